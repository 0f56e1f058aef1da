#include "proxy/reply.h"

#include <string.h>

#include "common/clock.h"
#include "common/http/form.h"
#include "common/http/sign_in.h"
#include "common/policy/reason.h"
#include "proxy/client.h"
#include "proxy/cors.h"
#include "proxy/refusal.h"

static const struct proxy_answer_rules *rules_of(const struct proxy_exchange *x)
{
    return x->route != NULL && x->route->config != NULL ? x->route->answers : x->snapshot->answers;
}

static void add_request_id(const struct proxy_exchange *x, struct proxy_emit *e)
{
    if (!http_name_set_has(rules_of(x)->drop, SV("x-request-id"))) {
        proxy_emit_unique(e, SV("x-request-id"), sv_from(x->request_id));
    }
}

void proxy_reply_common(struct proxy_exchange *x, struct proxy_emit *e)
{
    const struct proxy_answer_rules *answers = rules_of(x);

    proxy_emit_pairs(e, answers->set, buf_sv(&answers->lines));
    add_request_id(x, e);
}

static bool says(const struct proxy_reply *reply, struct sv name)
{
    for (size_t i = 0; reply->fields != NULL && i < reply->fields->n; i++) {
        if (sv_ieq(reply->fields->v[i].name, name)) {
            return true;
        }
    }
    return sv_ieq(name, SV("Date")) || (reply->type.n != 0 && sv_ieq(name, SV("Content-Type")));
}

/* A page to log in at must not be cached, or framed, because an application's may. */
static void add_common(struct proxy_exchange *x, struct proxy_emit *e,
                       const struct proxy_reply *reply)
{
    const struct config_pairs *set = rules_of(x)->set;

    for (size_t i = 0; i < set->n; i++) {
        if (!says(reply, set->v[i].name)) {
            proxy_emit_field(e, set->v[i].name, set->v[i].value);
        }
    }
    add_request_id(x, e);
}

void proxy_reply_cors(struct proxy_exchange *x, struct proxy_emit *e)
{
    struct proxy_fields fields = { .n = 0 };
    size_t i = 0;

    if (x->route == NULL || x->route->config == NULL || !x->route->config->cors.on) {
        return;
    }
    proxy_cors_answer(&x->route->config->cors, http_head_value(&x->head, HTTP_H_ORIGIN), &fields);
    for (i = 0; i < fields.n; i++) {
        proxy_emit_field(e, fields.v[i].name, fields.v[i].value);
    }
}

/* HTTP/1: whether the connection can carry another request behind this one. */
static bool must_close(const struct proxy_exchange *x)
{
    return !x->head.keep_alive || x->conn->draining || x->conn->eof ||
           (x->service != PROXY_FOR_NONE && !x->body.done && x->body.framing == HTTP_BODY_CHUNKED);
}

void proxy_reply(struct proxy_exchange *x, const struct proxy_reply *reply)
{
    unsigned status = reply->status;
    bool bodyless = x->head.method == HTTP_HEAD || status == 304 || status == 204;
    struct proxy_emit e;
    size_t i = 0;

    /* To whom asks for a verdict 2xx is an ALLOW, whatever else it says. */
    if (x->service == PROXY_FOR_VERDICT && x->verdict != PROXY_VERDICT_ALLOW && status < 300) {
        status = 403;
    }
    x->status = status;
    x->close_after = x->close_after || (x->stream == NULL && must_close(x));
    proxy_client_emit(x, &e);
    proxy_emit_status(&e, status, http_status_reason(status));
    proxy_emit_field(&e, SV("Date"), http_date_at(&x->worker->date, clock_wall_s()));
    if (reply->type.n != 0) {
        proxy_emit_field(&e, SV("Content-Type"), reply->type);
    }
    for (i = 0; reply->fields != NULL && i < reply->fields->n; i++) {
        proxy_emit_field(&e, reply->fields->v[i].name, reply->fields->v[i].value);
    }
    add_common(x, &e, reply);
    proxy_reply_cors(x, &e);
    if (status != 204 && status != 304) { /* RFC 9110 §8.6 */
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

void proxy_reply_canonical(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };
    struct sv to = x->req.forward;

    if (sv_starts(to, SV("//"))) { /* it would be the page of a host of that name */
        buf_init(&url, x->req.authority.n + to.n + 2);
        buf_add_str(&url, "//");
        buf_add_sv(&url, x->req.authority);
        buf_add_sv(&url, to);
        to = arena_sv(&x->arena, buf_sv(&url));
    }
    proxy_reply_redirect(x, 308, to, NULL);
}

static void add_page(struct buf *url, const struct proxy_exchange *x, const char *path)
{
    buf_add_str(url, "https://");
    buf_add_sv(url, x->req.authority);
    buf_add_str(url, path);
}

/* For a page whose call was refused: it sends its person there, who comes back logged in. The address of
 * the call is no place to send people to. */
static struct sv login_url(struct proxy_exchange *x, unsigned status)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };
    CLEANUP(buf_deinit) struct buf back = { 0 };

    if (status != 401 || x->head.method == HTTP_CONNECT || x->snapshot == NULL ||
        x->snapshot->authenticate.cluster == NULL) {
        return SV("");
    }
    buf_init(&url, 2048);
    buf_init(&back, 512);
    add_page(&back, x, "/.pomerium/");
    if (x->wants_fresh) {
        add_page(&url, x, HTTP_SIGN_IN_PATH "?");
        http_form_add(&url, SV(HTTP_SIGN_IN_BACK), buf_sv(&back));
        http_form_add(&url, SV(HTTP_SIGN_IN_FRESH), SV("true"));
    } else {
        buf_add_sv(&url, buf_sv(&back));
    }
    return url.err == ERR_OK ? arena_sv(&x->arena, buf_sv(&url)) : SV("");
}

/* A script that would take HTML still wants to know why it gets none of it: a page is for people. */
static enum http_media media_of(const struct proxy_exchange *x, unsigned status)
{
    enum http_media media = HTTP_MEDIA_JSON;

    if (x->service == PROXY_FOR_NONE) {
        return media;
    }
    media = http_accept_media(&x->head);
    if (x->service == PROXY_FOR_VERDICT) { /* a status of its own: HTTP's is the verdict */
        return media == HTTP_MEDIA_HTML ? media : HTTP_MEDIA_JSON;
    }
    return media == HTTP_MEDIA_HTML && status == 401 &&
                   http_accept_client(&x->head) == HTTP_CLIENT_API
               ? HTTP_MEDIA_JSON
               : media;
}

/* Browsers answer a Basic challenge with a box that asks for a password, which nobody has. */
static bool is_browser(const struct proxy_exchange *x)
{
    return http_head_get(&x->head, HTTP_H_SEC_FETCH_MODE) != NULL ||
           http_head_get(&x->head, HTTP_H_ORIGIN) != NULL ||
           sv_istarts(http_head_value(&x->head, HTTP_H_USER_AGENT), SV("Mozilla/"));
}

/* RFC 6750 §3.1; git, docker and their kin show a password only to who asks for one. */
static void add_challenges(const struct proxy_exchange *x, struct proxy_fields *fields)
{
    proxy_fields_add(fields, SV("WWW-Authenticate"),
                     x->by_token ? SV("Bearer realm=\"postern\", error=\"invalid_token\"")
                                 : SV("Bearer realm=\"postern\""));
    if ((x->service == PROXY_FOR_ROUTE || x->service == PROXY_FOR_VERDICT) &&
        x->head.method != HTTP_CONNECT && !is_browser(x)) {
        proxy_fields_add(fields, SV("WWW-Authenticate"),
                         SV("Basic realm=\"postern\", charset=\"UTF-8\""));
    }
}

static void refuse(struct proxy_exchange *x, unsigned status, struct sv code)
{
    CLEANUP(buf_deinit) struct buf body = { 0 };
    struct proxy_fields fields = { .n = 0 };
    const struct proxy_refusal refusal = {
        .status = status,
        .code = code,
        .request_id = sv_from(x->request_id),
        .login_url = login_url(x, status),
        .who = x->email.n != 0 ? x->email : x->user,
        .note = x->snapshot->config->error_message_first_paragraph,
        .support = x->snapshot->config->support_url,
        .allowed = x->verdict == PROXY_VERDICT_ALLOW,
        .media = media_of(x, status),
    };
    struct proxy_refusal_form form;

    buf_init(&body, PROXY_REFUSAL_MAX);
    form = proxy_refusal_write(&refusal, &x->arena, &body, &fields);
    if (status == 401) {
        add_challenges(x, &fields);
    }
    if (status == 429) {
        proxy_fields_add(&fields, SV("Retry-After"), SV("10"));
    }
    if (status == 503) {
        proxy_fields_add(&fields, SV("Retry-After"), SV("2"));
    }
    proxy_reply(x, &(struct proxy_reply){ .status = form.status,
                                          .type = form.type,
                                          .body = buf_sv(&body),
                                          .fields = &fields });
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
    struct sv code = SV("login-needed");

    for (size_t i = 0; i < x->n_reasons; i++) {
        if ((POLICY_REASON_BIT(x->reasons[i]) & POLICY_REASONS_FRESH) != 0) {
            code = sv_from(policy_reason_name(x->reasons[i]));
        }
    }
    refuse(x, 401, code);
}
