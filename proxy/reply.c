#include "proxy/reply.h"

#include <string.h>

#include "common/clock.h"
#include "common/http/accept.h"
#include "common/http/page.h"
#include "common/policy/reason.h"

enum { BODY_MAX = HTTP_PAGE_MAX, HEADERS_MAX = 8192 };

void proxy_reply_common(struct proxy_exchange *x, struct buf *head)
{
    const struct config_pairs *set = &x->snapshot->config->set_response_headers;
    size_t i = 0;

    if (x->route != NULL && x->route->config != NULL) {
        set = &x->route->config->set_response_headers;
    }
    for (i = 0; i < set->n; i++) {
        buf_add_sv(head, set->v[i].name);
        buf_add_str(head, ": ");
        buf_add_sv(head, set->v[i].value);
        buf_add_str(head, "\r\n");
    }
    buf_add_str(head, "x-request-id: ");
    buf_add_str(head, x->request_id);
    buf_add_str(head, "\r\n");
}

void proxy_reply(struct proxy_exchange *x, const struct proxy_reply *reply)
{
    struct buf *out = &x->conn->out.head;
    bool bodyless = x->head.method == HTTP_HEAD || reply->status == 304 || reply->status == 204;

    x->status = reply->status;
    if (!x->head.keep_alive || x->worker->stopping || x->conn->eof ||
        (x->service != PROXY_FOR_NONE && !x->body.done && x->body.framing == HTTP_BODY_CHUNKED)) {
        x->close_after = true;
    }
    buf_add_str(out, "HTTP/1.1 ");
    buf_add_u64(out, reply->status);
    buf_add_char(out, ' ');
    buf_add_sv(out, http_status_reason(reply->status));
    buf_add_str(out, "\r\nDate: ");
    buf_add_sv(out, http_date_at(&x->worker->date, clock_wall_s()));
    buf_add_str(out, "\r\n");
    if (reply->type.n != 0) {
        buf_add_str(out, "Content-Type: ");
        buf_add_sv(out, reply->type);
        buf_add_str(out, "\r\n");
    }
    buf_add_sv(out, reply->headers);
    proxy_reply_common(x, out);
    if (reply->status != 204) { /* RFC 9110 §8.6 */
        buf_add_str(out, "Content-Length: ");
        buf_add_u64(out, reply->body.n);
        buf_add_str(out, "\r\n");
    }
    buf_add_str(out, x->close_after ? "Connection: close\r\n\r\n" : "\r\n");
    if (!bodyless) {
        buf_add_sv(out, reply->body);
        x->down_pipe.bytes = reply->body.n;
    }
    proxy_exchange_send(x);
}

void proxy_reply_redirect(struct proxy_exchange *x, unsigned status, struct sv location,
                          struct sv headers)
{
    CLEANUP(buf_deinit) struct buf lines = { 0 };

    buf_init(&lines, (size_t)HEADERS_MAX * 4);
    buf_add_str(&lines, "Location: ");
    buf_add_sv(&lines, location);
    buf_add_str(&lines, "\r\nCache-Control: no-store\r\n");
    buf_add_sv(&lines, headers);
    if (lines.err != ERR_OK || sv_find(location, '\r') != SIZE_MAX ||
        sv_find(location, '\n') != SIZE_MAX) {
        proxy_reply_fault(x, 500, "internal-error");
        return;
    }
    proxy_reply(x, &(struct proxy_reply){ .status = status, .headers = buf_sv(&lines) });
}

/* What happened and what to do, for people. */
struct words {
    const char *title;
    const char *what;
    const char *todo;
};

static struct words words_of(unsigned status)
{
    switch (status) {
    case 401:
        return (struct words){ "Please log in", "This address needs a login.",
                               "Open it in a browser window and log in." };
    case 403:
        return (
            struct words){ "You are not allowed in here",
                           "You are logged in, but the rules of this address do not let you in.",
                           "If you need access, ask whoever runs this service and give them the "
                           "request id below." };
    case 404:
        return (struct words){ "Nothing is here", "No service is known at this address.",
                               "Check the address for typing errors." };
    case 408:
        return (struct words){ "That took too long", "The request did not arrive in time.",
                               "Try again." };
    case 502:
        return (
            struct words){ "The service does not answer",
                           "You may come in, but the service behind this address did not give a "
                           "usable answer.",
                           "Try again in a moment; if it stays, tell whoever runs the service." };
    case 503:
        return (
            struct words){ "Not available right now",
                           "Whether you may come in cannot be decided at the moment, so nobody is "
                           "let in.",
                           "Try again in a moment." };
    case 504:
        return (struct words){ "The service is too slow",
                               "The service behind this address did not answer in time.",
                               "Try again in a moment." };
    default:
        return (struct words){ "This request was refused",
                               "The request has a form that this proxy does not pass on.",
                               "If a program made it, see the code below." };
    }
}

static void html_body(struct buf *body, const struct proxy_exchange *x, unsigned status,
                      struct sv code)
{
    struct words w = words_of(status);

    http_page_problem(body,
                      &(struct http_page_problem){
                          .title = sv_from(w.title),
                          .what = sv_from(w.what),
                          .todo = sv_from(w.todo),
                          .code = code,
                          .request_id = sv_from(x->request_id),
                          .link = status == 403 ? SV("/.pomerium/") : (struct sv){ 0 },
                          .link_text = status == 403 ? SV("Who am I here?") : (struct sv){ 0 } });
}

static void json_body(struct buf *body, const struct proxy_exchange *x, unsigned status,
                      struct sv code)
{
    buf_add_str(body, "{\"status\":");
    buf_add_u64(body, status);
    buf_add_str(body, ",\"error\":");
    buf_add_json(body, http_status_reason(status));
    buf_add_str(body, ",\"code\":");
    buf_add_json(body, code);
    buf_add_str(body, ",\"request_id\":");
    buf_add_json(body, sv_from(x->request_id));
    buf_add_str(body, "}\n");
}

static void page_headers(struct buf *lines)
{
    size_t n = 0;
    const struct http_page_header *fixed = http_page_headers(&n);
    size_t i = 0;

    buf_add_str(lines, "Content-Security-Policy: ");
    http_page_csp(lines, NULL, 0);
    buf_add_str(lines, "\r\n");
    for (i = 0; i < n; i++) {
        buf_printf(lines, "%s: %s\r\n", fixed[i].name, fixed[i].value);
    }
}

/* https://grpc.github.io/grpc/core/md_doc_http-grpc-status-mapping.html */
static unsigned grpc_status(unsigned status)
{
    switch (status) {
    case 400:
        return 13;
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return 12;
    case 429:
    case 502:
    case 503:
    case 504:
        return 14;
    default:
        return 2;
    }
}

static void refuse(struct proxy_exchange *x, unsigned status, struct sv code, struct sv more)
{
    CLEANUP(buf_deinit) struct buf body = { 0 };
    CLEANUP(buf_deinit) struct buf lines = { 0 };
    enum http_media media =
        x->service == PROXY_FOR_NONE ? HTTP_MEDIA_JSON : http_accept_media(&x->head);
    struct proxy_reply reply = { .status = status, .type = SV("application/json") };

    buf_init(&body, BODY_MAX);
    buf_init(&lines, HEADERS_MAX);
    buf_add_str(&lines, "x-pomerium-intercepted-response: true\r\n");
    buf_add_sv(&lines, more);
    if (status == 503) {
        buf_add_str(&lines, "Retry-After: 2\r\n");
    }
    if (media == HTTP_MEDIA_GRPC) {
        reply.type = SV("application/grpc");
        buf_printf(&lines, "grpc-status: %u\r\ngrpc-message: ", grpc_status(status));
        buf_add_urlenc(&lines, code);
        buf_add_str(&lines, "\r\n");
        reply.status = 200;
    } else if (media == HTTP_MEDIA_HTML) {
        reply.type = HTTP_PAGE_TYPE;
        html_body(&body, x, status, code);
        page_headers(&lines);
    } else {
        buf_add_str(&lines, "Cache-Control: no-store\r\n");
        json_body(&body, x, status, code);
    }
    reply.body = buf_sv(&body);
    reply.headers = buf_sv(&lines);
    proxy_reply(x, &reply);
}

void proxy_reply_fault(struct proxy_exchange *x, unsigned status, const char *code)
{
    x->fault = code;
    refuse(x, status, sv_from(code), (struct sv){ 0 });
}

/* The reason that explains most: the first that is no "-ok". */
static struct sv main_reason(const struct proxy_exchange *x)
{
    struct sv first = SV("denied");
    size_t i = 0;

    for (i = 0; i < x->n_reasons; i++) {
        struct sv name = sv_from(policy_reason_name((enum policy_reason)x->reasons[i]));

        if (i == 0) {
            first = name;
        }
        if (!sv_ends(name, SV("-ok"))) {
            return name;
        }
    }
    return first;
}

void proxy_reply_denied(struct proxy_exchange *x, unsigned status)
{
    refuse(x, status, main_reason(x), (struct sv){ 0 });
}

void proxy_reply_login_needed(struct proxy_exchange *x)
{
    refuse(x, 401, SV("login-needed"), SV("WWW-Authenticate: Bearer realm=\"postern\"\r\n"));
}
