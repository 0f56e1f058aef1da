#include "cli/demo_page.h"

#include <jansson.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/http/page.h"
#include "common/mem.h"

enum { BODY_MAX = 512 * 1024, CLAIMS_MAX = 64 * 1024 };

/* The claims of the assertion. An application of one's own must verify its signature with the keys from
 * /.well-known/pomerium/jwks.json first; this one only shows what it was given. */
static json_t *assertion_claims(const struct http_head *head)
{
    const struct http_field *field = http_head_find(head, SV("x-pomerium-jwt-assertion"));
    struct sv rest = field == NULL ? SV("") : field->value;
    struct sv payload = { 0 };
    char *text = NULL;
    size_t n = 0;
    json_t *claims = NULL;

    (void)sv_cut(&rest, '.');
    payload = rest.p == NULL ? SV("") : sv_cut(&rest, '.');
    if (payload.n == 0 || payload.n > CLAIMS_MAX) {
        return NULL;
    }
    text = mem_alloc(b64_decoded_max(payload.n));
    if (b64_decode(payload, text, b64_decoded_max(payload.n), &n) == ERR_OK) {
        claims = json_loadb(text, n, 0, NULL);
    }
    mem_free(&text);
    return claims;
}

static void add_who(struct buf *b, const struct http_head *head)
{
    json_t *claims = assertion_claims(head);
    const char *email = json_string_value(json_object_get(claims, "email"));
    char *text = NULL;

    buf_add_str(b, "<p>");
    if (email != NULL && email[0] != '\0') {
        buf_add_str(b, "You are <strong>");
        buf_add_html(b, sv_from(email));
        buf_add_str(b, "</strong>, says the signed assertion that came with this request.");
    } else {
        buf_add_str(b, "This request came without an identity.");
    }
    buf_add_str(b, "</p>\n");
    if (claims != NULL) {
        text = json_dumps(claims, JSON_INDENT(2) | JSON_SORT_KEYS);
        buf_add_str(b, "<h2>Claims</h2>\n<pre>");
        buf_add_html(b, sv_from(text));
        buf_add_str(b, "</pre>\n");
        mem_release(text);
        json_decref(claims);
    }
}

static void add_request(struct buf *b, const struct http_head *head)
{
    buf_add_str(b, "<h2>Request</h2>\n");
    http_page_facts_begin(b);
    http_page_fact(b, SV("method"), head->method_text);
    http_page_fact(b, SV("target"), head->target);
    for (uint32_t i = 0; i < head->n; i++) {
        http_page_fact(b, head->fields[i].name, head->fields[i].value);
    }
    http_page_facts_end(b);
    buf_add_str(b, "<p><a href=\"/.pomerium/\">your session</a> · <a href=\"/events\">a stream of "
                   "events</a> · <code>/ws</code> is a WebSocket that echoes · "
                   "<a href=\"/.pomerium/sign_out\">sign out</a></p>\n");
}

void cli_demo_page(struct buf *out, const struct http_head *head)
{
    struct buf body;
    size_t n = 0;
    const struct http_page_header *headers = http_page_headers(&n);

    buf_init(&body, BODY_MAX);
    http_page_begin(&body, SV("Postern demo app"));
    add_who(&body, head);
    add_request(&body, head);
    http_page_end(&body, SV(""));
    buf_add_str(out, "HTTP/1.1 200 OK\r\nContent-Type: ");
    buf_add_sv(out, HTTP_PAGE_TYPE);
    buf_add_str(out, "\r\nContent-Security-Policy: ");
    http_page_csp(out, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "\r\n%s: %s", headers[i].name, headers[i].value);
    }
    buf_printf(out, "\r\nContent-Length: %zu%s\r\n\r\n", body.n,
               head->keep_alive ? "" : "\r\nConnection: close");
    if (head->method != HTTP_HEAD) {
        buf_add_sv(out, buf_sv(&body));
    }
    buf_deinit(&body);
}

void cli_demo_events_head(struct buf *out)
{
    buf_add_str(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                     "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n");
}

void cli_demo_event(struct buf *out, uint64_t number)
{
    char when[CLOCK_TEXT_SIZE];
    struct buf event;

    buf_init(&event, 256);
    buf_printf(&event, "data: %llu %s\n\n", (unsigned long long)number,
               clock_format(clock_wall_ms(), when));
    buf_printf(out, "%zx\r\n", event.n);
    buf_add_sv(out, buf_sv(&event));
    buf_add_str(out, "\r\n");
    buf_deinit(&event);
}

void cli_demo_error(struct buf *out, int status, const char *text)
{
    buf_printf(out,
               "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
               "Connection: close\r\n\r\n%s\n",
               status, text, sv_from(text).n + 1, text);
}
