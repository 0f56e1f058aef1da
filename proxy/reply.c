#include "proxy/reply.h"

#include <string.h>

#include "common/clock.h"
#include "common/http/accept.h"
#include "common/http/page.h"
#include "common/policy/reason.h"
#include "proxy/client.h"

enum { BODY_MAX = HTTP_PAGE_MAX, HEADERS_MAX = 8192 };

void proxy_reply_common(struct proxy_exchange *x, struct proxy_emit *e)
{
    const struct config_pairs *set = &x->snapshot->config->set_response_headers;
    size_t i = 0;

    if (x->route != NULL && x->route->config != NULL) {
        set = &x->route->config->set_response_headers;
    }
    for (i = 0; i < set->n; i++) {
        proxy_emit_field(e, set->v[i].name, set->v[i].value);
    }
    proxy_emit_field(e, SV("x-request-id"), sv_from(x->request_id));
}

/* HTTP/1: whether the connection can carry another request behind this one. */
static bool must_close(const struct proxy_exchange *x)
{
    return !x->head.keep_alive || x->conn->draining || x->conn->eof ||
           (x->service != PROXY_FOR_NONE && !x->body.done && x->body.framing == HTTP_BODY_CHUNKED);
}

void proxy_reply(struct proxy_exchange *x, const struct proxy_reply *reply)
{
    bool bodyless = x->head.method == HTTP_HEAD || reply->status == 304 || reply->status == 204;
    struct proxy_emit e;
    size_t i = 0;

    x->status = reply->status;
    x->close_after = x->close_after || (x->stream == NULL && must_close(x));
    proxy_client_emit(x, &e);
    proxy_emit_status(&e, reply->status, http_status_reason(reply->status));
    proxy_emit_field(&e, SV("Date"), http_date_at(&x->worker->date, clock_wall_s()));
    if (reply->type.n != 0) {
        proxy_emit_field(&e, SV("Content-Type"), reply->type);
    }
    for (i = 0; reply->fields != NULL && i < reply->fields->n; i++) {
        proxy_emit_field(&e, reply->fields->v[i].name, reply->fields->v[i].value);
    }
    proxy_reply_common(x, &e);
    if (reply->status != 204) { /* RFC 9110 §8.6 */
        proxy_emit_u64(&e, SV("Content-Length"), reply->body.n);
    }
    if (x->close_after && x->stream == NULL) {
        proxy_emit_field(&e, SV("Connection"), SV("close"));
    }
    proxy_client_reply(x, &e, bodyless ? (struct sv){ 0 } : reply->body);
}

void proxy_reply_redirect(struct proxy_exchange *x, unsigned status, struct sv location,
                          const struct proxy_fields *fields)
{
    struct proxy_fields all = { .n = 0 };
    size_t i = 0;

    if (sv_find(location, '\r') != SIZE_MAX || sv_find(location, '\n') != SIZE_MAX) {
        proxy_reply_fault(x, 500, "internal-error");
        return;
    }
    proxy_fields_add(&all, SV("Location"), location);
    proxy_fields_add(&all, SV("Cache-Control"), SV("no-store"));
    for (i = 0; fields != NULL && i < fields->n; i++) {
        proxy_fields_add(&all, fields->v[i].name, fields->v[i].value);
    }
    proxy_reply(x, &(struct proxy_reply){ .status = status, .fields = &all });
}

/* What happened and what to do, for people. */
struct words {
    const char *title;
    const char *what;
    const char *todo;
};

static struct words words_of(unsigned status, bool allowed)
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
        if (allowed) {
            return (struct words){ "The service is busy",
                                   "You may come in, but the service behind this address takes no "
                                   "more requests at the moment.",
                                   "Try again in a moment; if it stays, tell whoever runs the "
                                   "service." };
        }
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
    struct words w = words_of(status, x->verdict == PROXY_VERDICT_ALLOW);

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

static void page_fields(struct proxy_exchange *x, struct proxy_fields *fields)
{
    CLEANUP(buf_deinit) struct buf csp = { 0 };
    size_t n = 0;
    const struct http_page_header *fixed = http_page_headers(&n);
    size_t i = 0;

    buf_init(&csp, HEADERS_MAX);
    http_page_csp(&csp, NULL, 0);
    proxy_fields_add(fields, SV("Content-Security-Policy"), arena_sv(&x->arena, buf_sv(&csp)));
    for (i = 0; i < n; i++) {
        proxy_fields_add(fields, sv_from(fixed[i].name), sv_from(fixed[i].value));
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

static void grpc_fields(struct proxy_exchange *x, unsigned status, struct sv code,
                        struct proxy_fields *fields)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, HEADERS_MAX);
    buf_add_u64(&text, grpc_status(status));
    proxy_fields_add(fields, SV("grpc-status"), arena_sv(&x->arena, buf_sv(&text)));
    buf_reset(&text);
    buf_add_urlenc(&text, code);
    proxy_fields_add(fields, SV("grpc-message"), arena_sv(&x->arena, buf_sv(&text)));
}

static void refuse(struct proxy_exchange *x, unsigned status, struct sv code)
{
    CLEANUP(buf_deinit) struct buf body = { 0 };
    struct proxy_fields fields = { .n = 0 };
    enum http_media media =
        x->service == PROXY_FOR_NONE ? HTTP_MEDIA_JSON : http_accept_media(&x->head);
    struct proxy_reply reply = { .status = status,
                                 .type = SV("application/json"),
                                 .fields = &fields };

    buf_init(&body, BODY_MAX);
    proxy_fields_add(&fields, SV("x-pomerium-intercepted-response"), SV("true"));
    if (status == 401) {
        proxy_fields_add(&fields, SV("WWW-Authenticate"), SV("Bearer realm=\"postern\""));
    }
    if (status == 503) {
        proxy_fields_add(&fields, SV("Retry-After"), SV("2"));
    }
    if (media == HTTP_MEDIA_GRPC) {
        reply.type = SV("application/grpc");
        grpc_fields(x, status, code, &fields);
        reply.status = 200;
    } else if (media == HTTP_MEDIA_HTML) {
        reply.type = HTTP_PAGE_TYPE;
        html_body(&body, x, status, code);
        page_fields(x, &fields);
    } else {
        proxy_fields_add(&fields, SV("Cache-Control"), SV("no-store"));
        json_body(&body, x, status, code);
    }
    reply.body = buf_sv(&body);
    proxy_reply(x, &reply);
}

void proxy_reply_fault(struct proxy_exchange *x, unsigned status, const char *code)
{
    x->fault = code;
    refuse(x, status, sv_from(code));
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
    refuse(x, status, main_reason(x));
}

void proxy_reply_login_needed(struct proxy_exchange *x)
{
    refuse(x, 401, SV("login-needed"));
}
