#include "proxy/forward_auth.h"

#include "common/http/accept.h"
#include "common/http/form.h"
#include "common/http/reported.h"
#include "common/http/sign_in.h"
#include "common/log.h"
#include "proxy/bearer.h"
#include "proxy/reply.h"

enum { URL_MAX_N = 49152 };

#define PREFIX "/.pomerium/auth/"

/* ---- who asks, and in which words ------------------------------------------------------------- */

/* What tells the client's request: the whole address in one field, or in pieces. */
struct words {
    struct sv method;
    struct sv url; /* "": in pieces */
    struct sv scheme;
    struct sv authority;
    struct sv target;
};

static const struct words original = { .method = { "X-Original-Method", 17 },
                                       .url = { "X-Original-URL", 14 } };
static const struct words forwarded = { .method = { "X-Forwarded-Method", 18 },
                                        .scheme = { "X-Forwarded-Proto", 17 },
                                        .authority = { "X-Forwarded-Host", 16 },
                                        .target = { "X-Forwarded-Uri", 15 } };

/* Fields that clients may send through the asking proxy, and others take for the address. */
static const struct sv foreign_to_original[] = { { "X-Forwarded-Method", 18 },
                                                 { "X-Forwarded-Uri", 15 },
                                                 { "X-Original-URI", 14 },
                                                 { "X-Rewrite-URL", 13 } };
static const struct sv foreign_to_forwarded[] = { { "X-Original-URL", 14 },
                                                  { "X-Original-Method", 17 },
                                                  { "X-Original-URI", 14 },
                                                  { "X-Rewrite-URL", 13 } };

static const struct dialect {
    const char *name;
    const struct words *words;
    const struct sv *foreign;
    size_t n_foreign;
    bool host_in_query; /* ?host=$host: for which host the asking proxy will forward */
    bool redirects;     /* a 302 goes to the client; else 401 says where to log in */
} dialects[] = {
    { "nginx", &original, foreign_to_original, ARRAY_LEN(foreign_to_original), true, false },
    { "traefik", &forwarded, foreign_to_forwarded, ARRAY_LEN(foreign_to_forwarded), false, true },
    { "caddy", &forwarded, foreign_to_forwarded, ARRAY_LEN(foreign_to_forwarded), false, true },
};

bool proxy_forward_auth_path(struct sv target)
{
    return sv_starts(target, SV(PREFIX));
}

static const struct dialect *dialect_of(struct sv path)
{
    for (size_t i = 0; proxy_forward_auth_path(path) && i < ARRAY_LEN(dialects); i++) {
        if (sv_eq(sv_from_at(path, sizeof(PREFIX) - 1), sv_from(dialects[i].name))) {
            return &dialects[i];
        }
    }
    return NULL;
}

/* ---- the client's request --------------------------------------------------------------------- */

/* NULL, or why not. */
static const char *one_value(const struct http_head *head, struct sv name, struct sv *value_out)
{
    size_t n = 0;

    for (uint32_t i = 0; i < head->n; i++) {
        if (sv_ieq(head->fields[i].name, name)) {
            *value_out = head->fields[i].value;
            n++;
        }
    }
    if (n > 1) {
        return "forward-auth-field-twice";
    }
    return n == 0 || value_out->n == 0 ? "forward-auth-field-missing" : NULL;
}

/* "https://host/path" to its pieces. */
static const char *split_url(struct sv url, struct sv *scheme_out, struct http_reported *r)
{
    size_t colon = sv_search(url, SV("://"));
    size_t slash = 0;

    if (colon == SIZE_MAX) {
        return "forward-auth-bad-address";
    }
    *scheme_out = sv_head(url, colon);
    url = sv_from_at(url, colon + 3);
    slash = sv_find(url, '/');
    if (slash == SIZE_MAX) {
        return "forward-auth-bad-address";
    }
    r->authority = sv_head(url, slash);
    r->target = sv_from_at(url, slash);
    return NULL;
}

static const char *read_words(const struct http_head *head, const struct words *w,
                              struct http_reported *r)
{
    struct sv scheme = { 0 };
    struct sv url = { 0 };
    const char *why = one_value(head, w->method, &r->method);

    if (why == NULL && w->url.n != 0) {
        why = one_value(head, w->url, &url);
        why = why == NULL ? split_url(url, &scheme, r) : why;
    } else if (why == NULL) {
        why = one_value(head, w->scheme, &scheme);
        why = why == NULL ? one_value(head, w->authority, &r->authority) : why;
        why = why == NULL ? one_value(head, w->target, &r->target) : why;
    }
    if (why == NULL && !sv_ieq(scheme, SV("https")) && !sv_ieq(scheme, SV("http"))) {
        why = "forward-auth-bad-address";
    }
    return why;
}

static const char *check_fields(const struct http_head *head, const struct dialect *d)
{
    for (uint32_t i = 0; i < head->n; i++) {
        for (size_t k = 0; k < d->n_foreign; k++) {
            if (sv_ieq(head->fields[i].name, d->foreign[k])) {
                return "forward-auth-mixed-fields";
            }
        }
    }
    return http_head_count(head, HTTP_H_X_FORWARDED_FOR) == 0 ? "forward-auth-without-client"
                                                              : NULL;
}

/* nginx chooses its server by the name in the request line, where there is one, and tells it as $host;
 * the client's Host field, which the address is made of, may say another. */
static bool names_host(struct sv query, struct sv host)
{
    char room[HTTP_HOST_MAX + 1];
    struct sv name = { 0 };

    return sv_starts(query, SV("host=")) &&
           http_host_canonical(sv_from_at(query, 5), room, &name) == ERR_OK && sv_eq(name, host);
}

/* Once for each exchange: why it is refused, or NULL. */
static const char *read_request(struct proxy_exchange *x, const struct dialect *d)
{
    struct http_reported r = { .method = { 0 } };
    struct http_field none[1];
    struct http_head head;
    struct http_request req = { .method = HTTP_UNKNOWN };
    enum http_fault fault = HTTP_FAULT_NONE;
    const char *why = check_fields(&x->head, d);

    why = why == NULL ? read_words(&x->head, d->words, &r) : why;
    if (why != NULL) {
        return why;
    }
    http_head_init(&head, HTTP_REQUEST, &x->snapshot->head, none, 0);
    fault = http_reported_head(&head, &r);
    if (fault == HTTP_FAULT_NONE) {
        fault = http_reported_canon(&head, &x->snapshot->canon, &x->arena, &req);
    }
    if (fault != HTTP_FAULT_NONE) {
        return http_fault_name(fault);
    }
    if (d->host_in_query && !names_host(x->req.query, req.host)) {
        return "forward-auth-host-mismatch";
    }
    x->req = req;
    return NULL;
}

/* ---- who may ask ------------------------------------------------------------------------------ */

/* Asked at the host of an application, it may be a browser that came through the asking proxy's own
 * location for /.pomerium/. */
static bool may_ask(const struct proxy_exchange *x)
{
    const struct proxy_snapshot *s = x->snapshot;

    return proxy_peer_is_in(&x->conn->peer, &s->config->forward_auth_from) &&
           !route_table_has_host(s->table, x->req.host) &&
           !sv_eq(x->req.host, sv_from(s->authenticate_host));
}

static void log_refused(const struct proxy_exchange *x)
{
    static _Thread_local struct log_limit limit;

    if (log_limit_pass(&limit, 1)) {
        log_warn("forward-auth.refused", KV_STR("peer", x->conn->peer.text),
                 KV_SV("host", x->req.host),
                 KV_STR("hint", "asked for a verdict by an address that is not in "
                                "forward_auth_from, at the host of an application, or in a "
                                "dialect that is not nginx, traefik or caddy"));
    }
}

bool proxy_forward_auth_take(struct proxy_exchange *x)
{
    const struct dialect *d = dialect_of(x->req.decoded);
    const char *why = NULL;

    if (d == NULL || !may_ask(x)) {
        log_refused(x);
        proxy_reply_fault(x, 404, "no-such-endpoint");
        return false;
    }
    x->verdict_redirects = d->redirects;
    why = read_request(x, d);
    if (why != NULL) {
        proxy_reply_fault(x, 400, why);
        return false;
    }
    return true;
}

/* ---- answers ---------------------------------------------------------------------------------- */

/* The application is not to see our session. Nothing is left: no field, and the asking proxy sends none. */
static void add_cookie(struct proxy_exchange *x, struct proxy_fields *fields)
{
    CLEANUP(buf_deinit) struct buf all = { 0 };

    buf_init(&all, URL_MAX_N);
    (void)http_cookie_strip_all(&x->head, &x->snapshot->cookies.names, &all);
    if (all.err == ERR_OK && all.n != 0) {
        proxy_fields_add(fields, SV("Cookie"), arena_sv(&x->arena, buf_sv(&all)));
    }
}

void proxy_forward_auth_allow(struct proxy_exchange *x)
{
    const struct http_field *authorization = http_head_get(&x->head, HTTP_H_AUTHORIZATION);
    struct proxy_fields fields = { .n = 0 };
    size_t i = 0;

    proxy_fields_add(&fields, SV("Cache-Control"), SV("no-store"));
    add_cookie(x, &fields);
    if (authorization != NULL && !proxy_bearer_is_ours(x, authorization)) {
        proxy_fields_add(&fields, SV("Authorization"), authorization->value);
    }
    for (i = 0; x->identity != NULL && i < x->identity->n; i++) {
        if (fields.n == PROXY_FIELDS_MAX) {
            proxy_reply_fault(x, 503, "identity-too-large"); /* never cut */
            return;
        }
        proxy_fields_add(&fields, x->identity->headers[i].name, x->identity->headers[i].value);
    }
    proxy_reply(x, &(struct proxy_reply){ .status = 200, .fields = &fields });
}

void proxy_forward_auth_login(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };
    struct proxy_fields fields = { .n = 0 };
    bool reads = x->req.method == HTTP_GET || x->req.method == HTTP_HEAD;

    if (x->by_token || x->snapshot->authenticate.cluster == NULL || !reads ||
        http_accept_client(&x->head) != HTTP_CLIENT_NAVIGATION) {
        proxy_reply_login_needed(x);
        return;
    }
    buf_init(&url, URL_MAX_N);
    http_sign_in_add(&url, &x->req);
    if (x->wants_fresh) {
        http_form_add(&url, SV(HTTP_SIGN_IN_FRESH), SV("true"));
    }
    if (url.err != ERR_OK) {
        proxy_reply_fault(x, 414, "address-too-long");
    } else if (x->verdict_redirects) {
        proxy_reply_redirect(x, 302, buf_sv(&url), NULL);
    } else {
        proxy_fields_add(&fields, SV("Location"), buf_sv(&url));
        proxy_fields_add(&fields, SV("Cache-Control"), SV("no-store"));
        proxy_fields_add(&fields, SV("WWW-Authenticate"), SV("Bearer realm=\"postern\""));
        proxy_reply(x, &(struct proxy_reply){ .status = 401, .fields = &fields });
    }
}

unsigned proxy_forward_auth_denied(const struct proxy_exchange *x, unsigned status)
{
    return x->verdict_redirects ? status : 403;
}
