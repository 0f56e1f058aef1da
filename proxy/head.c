/* What heads look like on the other side: which fields pass, which are ours. */
#include <string.h>

#include "common/b64.h"
#include "common/http/cookie.h"
#include "common/http/form.h"
#include "proxy/bearer.h"
#include "proxy/client.h"
#include "proxy/cors.h"
#include "proxy/forward.h"
#include "proxy/reply.h"
#include "proxy/rewrite.h"

enum { TARGET_MAX = 65536 };

/* Our own pages get their query whole. */
static bool query_passes(const struct proxy_exchange *x)
{
    struct sv query = x->req.query;

    return x->service != PROXY_FOR_ROUTE ||
           (sv_search(query, SV("pomerium_")) == SIZE_MAX && sv_find(query, '%') == SIZE_MAX);
}

/* Query without the credentials that may travel in it. */
static void add_query(struct proxy_exchange *x, struct buf *out, struct sv query)
{
    static const struct sv ours[] = { { "pomerium_session", 16 },
                                      { "pomerium_session_encrypted", 26 },
                                      { "pomerium_jwt", 12 } };
    bool first = true;

    if (query_passes(x)) {
        buf_add_char(out, '?');
        buf_add_sv(out, query);
        return;
    }
    while (query.p != NULL) {
        struct sv pair = sv_cut(&query, '&');
        struct sv rest = pair;
        struct sv name = sv_cut(&rest, '=');
        size_t i = 0;

        if (http_form_decode(name, true, &x->arena, &name) != ERR_OK) {
            name = (struct sv){ 0 }; /* broken, so no spelling of ours */
        }

        for (i = 0; i < ARRAY_LEN(ours) && !sv_eq(name, ours[i]); i++) {
        }
        if (i == ARRAY_LEN(ours)) {
            buf_add_char(out, first ? '?' : '&');
            buf_add_sv(out, pair);
            first = false;
        }
    }
}

/* path[?query] as the upstream gets it. */
static enum err target_of(struct proxy_exchange *x, struct sv *target_out)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    enum err err = ERR_OK;

    if (x->out.path.p == x->req.path.p && (!x->req.has_query || query_passes(x))) {
        *target_out = x->req.forward;
        return ERR_OK;
    }
    buf_init(&text, TARGET_MAX);
    buf_add_sv(&text, x->out.path);
    if (x->req.has_query) {
        add_query(x, &text, x->req.query);
    }
    err = buf_finish(&text, target_out);
    if (err == ERR_OK) {
        *target_out = arena_sv(&x->arena, *target_out);
    }
    return err;
}

static void add_cookie(struct proxy_exchange *x, struct proxy_emit *e, struct sv value)
{
    /* What is left is no longer than it was. */
    struct buf rest = { .p = arena_alloc(&x->arena, value.n + 1),
                        .cap = value.n + 1,
                        .max = value.n };

    switch (http_cookie_strip(value, &x->snapshot->cookies.names, &rest)) {
    case HTTP_COOKIE_EMPTY:
        break;
    case HTTP_COOKIE_SAME:
        proxy_emit_field(e, SV("Cookie"), value);
        break;
    case HTTP_COOKIE_STRIPPED:
        e->failed = e->failed || rest.err != ERR_OK;
        proxy_emit_field(e, SV("Cookie"), buf_sv(&rest));
        break;
    }
}

static bool strips_cookies(const struct proxy_exchange *x)
{
    return x->service != PROXY_FOR_AUTHENTICATE;
}

const struct http_name_set *proxy_head_dropped(const struct proxy_exchange *x)
{
    return x->service == PROXY_FOR_ROUTE ? x->route->drop : NULL;
}

/* Whether a field of the client's goes on as it is. */
static bool passes(struct proxy_exchange *x, const struct http_field *f)
{
    switch (f->id) {
    case HTTP_H_HOST:
    case HTTP_H_CONTENT_LENGTH:
    case HTTP_H_EXPECT:
        return false;
    case HTTP_H_COOKIE:
        if (strips_cookies(x)) {
            return false;
        }
        break;
    case HTTP_H_AUTHORIZATION:
        if (proxy_bearer_is_ours(x, f)) {
            return false;
        }
        break;
    case HTTP_H_SEC_WEBSOCKET_KEY:
        if (x->stream != NULL) {
            return false;
        }
        break;
    default:
        break;
    }
    return !http_name_set_has(x->snapshot->ours, f->name) &&
           !http_name_set_has(proxy_head_dropped(x), f->name);
}

/* The names that passes() has something to say about: all others pass. */
static struct http_name_bits watched(const struct proxy_exchange *x)
{
    struct http_name_bits bits = *http_name_set_numbers(x->snapshot->ours);

    http_name_bits_join(&bits, http_name_set_numbers(proxy_head_dropped(x)));
    http_name_bits_add(&bits, HTTP_H_OTHER);
    http_name_bits_add(&bits, HTTP_H_HOST);
    http_name_bits_add(&bits, HTTP_H_CONTENT_LENGTH);
    http_name_bits_add(&bits, HTTP_H_EXPECT);
    http_name_bits_add(&bits, HTTP_H_COOKIE);
    http_name_bits_add(&bits, HTTP_H_AUTHORIZATION);
    http_name_bits_add(&bits, HTTP_H_SEC_WEBSOCKET_KEY);
    return bits;
}

/* The client's fields, those that pass together with their neighbours. */
static void add_theirs(struct proxy_exchange *x, struct proxy_emit *e)
{
    const struct http_name_bits bits = watched(x);
    const struct http_field *fields = x->head.fields;
    uint32_t from = 0;
    uint32_t i = 0;

    for (i = 0; i < x->head.n; i++) {
        const struct http_field *f = &fields[i];
        bool forwarded = (f->flags & HTTP_F_NOT_FORWARDED) == 0;

        if (forwarded && (!http_name_bits_has(&bits, f->id) || passes(x, f))) {
            continue;
        }
        proxy_emit_fields(e, &fields[from], i - from);
        from = i + 1;
        if (forwarded && f->id == HTTP_H_COOKIE && strips_cookies(x) &&
            !http_name_set_has(proxy_head_dropped(x), f->name)) {
            add_cookie(x, e, f->value);
        }
    }
    proxy_emit_fields(e, &fields[from], i - from);
}

static struct sv upstream_authority(struct proxy_exchange *x, const struct proxy_target *target)
{
    return x->out.host.p != NULL ? x->out.host : sv_from(target->host_header);
}

/* Whether a field is ours to say: a route that sets or removes its name has the last word. */
static bool is_ours_to_say(const struct proxy_exchange *x, struct sv name)
{
    return !http_name_set_has(proxy_head_dropped(x), name);
}

static void add_own(const struct proxy_exchange *x, struct proxy_emit *e, struct sv name,
                    struct sv value)
{
    if (is_ours_to_say(x, name)) {
        proxy_emit_field(e, name, value);
    }
}

static void add_ours(struct proxy_exchange *x, struct proxy_emit *e)
{
    size_t i = 0;

    if (x->visitor.forwarded_for.n != 0) {
        add_own(x, e, SV("X-Forwarded-For"), x->visitor.forwarded_for);
    }
    if (x->visitor.address.known) {
        add_own(x, e, SV("X-Envoy-External-Address"), x->visitor.text);
    }
    add_own(x, e, SV("X-Forwarded-Proto"), x->visitor.https ? SV("https") : SV("http"));
    if (is_ours_to_say(x, SV("X-Request-Id"))) {
        proxy_emit_unique(e, SV("X-Request-Id"), sv_from(x->request_id));
    }
    for (i = 0; x->identity != NULL && i < x->identity->n; i++) {
        const struct proxy_identity_header *h = &x->identity->headers[i];

        if (is_ours_to_say(x, h->name)) {
            proxy_emit_clean(e, h->name, h->value);
        }
    }
    for (i = 0; i < x->out.n_set; i++) {
        if (x->out.set[i].value.p != NULL) {
            proxy_emit_field(e, x->out.set[i].name, x->out.set[i].value);
        }
    }
}

/* A WebSocket that came over HTTP/2 has no key; HTTP/1 wants one (RFC 6455 §4.1). */
static void add_websocket_key(struct proxy_exchange *x, struct proxy_emit *e)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    unsigned char bytes[16];

    rand_bytes(bytes, sizeof(bytes));
    buf_init(&text, 64);
    b64_std_add(&text, sv_of(bytes, sizeof(bytes)));
    proxy_emit_field(e, SV("Sec-WebSocket-Key"), arena_sv(&x->arena, buf_sv(&text)));
}

static void add_upgrade(struct proxy_exchange *x, struct proxy_emit *e)
{
    proxy_emit_field(e, SV("Connection"), SV("Upgrade"));
    proxy_emit_field(e, SV("Upgrade"),
                     x->stream != NULL ? SV("websocket")
                                       : http_head_value(&x->head, HTTP_H_UPGRADE));
    if (x->stream != NULL) {
        add_websocket_key(x, e);
    }
}

static void add_framing(struct proxy_exchange *x, struct proxy_emit *e)
{
    bool h1 = e->text != NULL;

    if (x->upgrade) {
        add_upgrade(x, e);
    } else if (x->head.te_trailers) {
        if (h1) {
            proxy_emit_field(e, SV("Connection"), SV("TE"));
        }
        proxy_emit_field(e, SV("TE"), SV("trailers"));
    }
    if (x->head.framing == HTTP_BODY_CHUNKED && h1) {
        proxy_emit_field(e, SV("Transfer-Encoding"), SV("chunked"));
    } else if (x->head.framing == HTTP_BODY_LENGTH) {
        proxy_emit_u64(e, SV("Content-Length"), x->head.content_length);
    }
}

bool proxy_head_request(struct proxy_exchange *x, const struct proxy_target *target,
                        struct proxy_emit *e)
{
    struct sv to = { 0 };

    if (target_of(x, &to) != ERR_OK) {
        return false;
    }
    proxy_emit_request(e, x->req.method_text, to, upstream_authority(x, target),
                       target->tls != NULL);
    add_own(x, e, SV("X-Forwarded-Host"), x->req.authority);
    add_theirs(x, e);
    add_framing(x, e);
    add_ours(x, e); /* last: nothing that came from outside stands behind ours */
    return proxy_emit_end(e);
}

/* An upstream must not plant a session of ours; also not as the value of a cookie without a name, which
 * some browsers send without its "=". */
static bool sets_our_cookie(const struct proxy_exchange *x, const struct http_field *f,
                            struct sv value)
{
    struct sv name = { 0 };

    if (f->id != HTTP_H_SET_COOKIE) {
        return false;
    }
    do {
        name = sv_trim(sv_cut(&value, '='));
    } while (name.n == 0 && value.n != 0);
    return x->service == PROXY_FOR_ROUTE && http_cookie_is_ours(&x->snapshot->cookies.names, name);
}

/* On routes with a cors block the upstream says nothing about CORS, but to the preflights that the
 * block leaves to it. */
static bool owns_cors(const struct proxy_exchange *x)
{
    return x->service == PROXY_FOR_ROUTE && x->route->config->cors.on &&
           (x->route->config->cors.answer_preflight || !proxy_request_is_preflight(x));
}

/* A stream needs no switching: its tunnel is simply open (RFC 8441 §5). */
static bool switched(const struct proxy_exchange *x)
{
    return x->answer.status == 101 && x->stream != NULL;
}

const struct http_name_set *proxy_head_dropped_answer(const struct proxy_exchange *x)
{
    return x->service == PROXY_FOR_ROUTE ? x->route->answers->drop : NULL;
}

static bool answer_passes(const struct proxy_exchange *x, const struct http_field *f)
{
    if (f->id == HTTP_H_CONTENT_LENGTH || f->id == HTTP_H_X_REQUEST_ID ||
        (f->id == HTTP_H_SEC_WEBSOCKET_ACCEPT && switched(x)) ||
        (proxy_cors_speaks_for(f->name) && owns_cors(x))) {
        return false;
    }
    return !http_name_set_has(proxy_head_dropped_answer(x), f->name);
}

static bool rewrites(const struct proxy_exchange *x)
{
    return x->service == PROXY_FOR_ROUTE && x->route->config->n_rewrite_response_headers != 0;
}

static void add_answer_field(struct proxy_exchange *x, struct proxy_emit *e,
                             const struct http_field *f)
{
    struct sv value = f->value;

    if (rewrites(x)) {
        value = proxy_rewrite_header(x->route->config, f->name, value, &x->arena);
    }
    if (!sets_our_cookie(x, f, value)) {
        proxy_emit_field(e, f->name, value);
    }
}

/* The names that an answer's field is looked at for: all others go on as they are. */
static struct http_name_bits watched_answer(const struct proxy_exchange *x)
{
    struct http_name_bits bits = *http_name_set_numbers(proxy_head_dropped_answer(x));

    http_name_bits_add(&bits, HTTP_H_OTHER);
    http_name_bits_add(&bits, HTTP_H_CONTENT_LENGTH);
    http_name_bits_add(&bits, HTTP_H_X_REQUEST_ID);
    http_name_bits_add(&bits, HTTP_H_SET_COOKIE);
    http_name_bits_add(&bits, HTTP_H_SEC_WEBSOCKET_ACCEPT);
    http_name_bits_add(&bits, HTTP_H_ACCESS_CONTROL_REQUEST_HEADERS);
    http_name_bits_add(&bits, HTTP_H_ACCESS_CONTROL_REQUEST_METHOD);
    return bits;
}

/* The upstream's fields, as add_theirs does it. */
static void add_answer_fields(struct proxy_exchange *x, struct proxy_emit *e)
{
    const struct http_name_bits bits = watched_answer(x);
    const struct http_field *fields = x->answer.fields;
    bool all = rewrites(x);
    uint32_t from = 0;
    uint32_t i = 0;

    for (i = 0; i < x->answer.n; i++) {
        const struct http_field *f = &fields[i];
        bool forwarded = (f->flags & HTTP_F_NOT_FORWARDED) == 0;

        if (forwarded && !all && !http_name_bits_has(&bits, f->id)) {
            continue;
        }
        proxy_emit_fields(e, &fields[from], i - from);
        from = i + 1;
        if (forwarded && answer_passes(x, f)) {
            add_answer_field(x, e, f);
        }
    }
    proxy_emit_fields(e, &fields[from], i - from);
}

/* HTTP/1: how the end of the body is told. */
static void add_answer_framing(struct proxy_exchange *x, struct proxy_emit *e, bool *chunk)
{
    const struct http_head *a = &x->answer;

    if (a->status == 101) {
        proxy_emit_field(e, SV("Connection"), SV("Upgrade"));
        proxy_emit_field(e, SV("Upgrade"), http_head_value(a, HTTP_H_UPGRADE));
        return;
    }
    if (a->framing != HTTP_BODY_NONE && a->framing != HTTP_BODY_LENGTH) {
        if (x->head.minor >= 1) {
            *chunk = true;
            proxy_emit_field(e, SV("Transfer-Encoding"), SV("chunked"));
        } else {
            x->close_after = true; /* HTTP/1.0: the end of the connection is the end of the body */
        }
    }
    if (x->close_after || x->conn->draining) {
        x->close_after = true;
        proxy_emit_field(e, SV("Connection"), SV("close"));
    } else if (x->head.minor == 0) {
        proxy_emit_field(e, SV("Connection"), SV("keep-alive"));
    }
}

static void add_answer_length(struct proxy_exchange *x, struct proxy_emit *e)
{
    const struct http_head *a = &x->answer;
    const struct http_field *length = http_head_get(a, HTTP_H_CONTENT_LENGTH);

    if (a->status != 101 && a->status != 204 && length != NULL &&
        (a->framing == HTTP_BODY_LENGTH || a->framing == HTTP_BODY_NONE)) {
        proxy_emit_field(e, SV("Content-Length"), length->value);
    }
}

void proxy_head_answer(struct proxy_exchange *x, struct proxy_emit *e, bool *chunk_out)
{
    *chunk_out = false;
    proxy_emit_status(e, switched(x) ? 200 : x->answer.status, x->answer.reason);
    add_answer_fields(x, e);
    proxy_reply_common(x, e);
    if (owns_cors(x)) {
        proxy_reply_cors(x, e);
    }
    add_answer_length(x, e);
    if (e->text != NULL) {
        add_answer_framing(x, e, chunk_out);
    }
}

void proxy_head_interim(struct proxy_exchange *x, struct proxy_emit *e)
{
    proxy_emit_status(e, x->answer.status, x->answer.reason);
    /* A length would be read as the final answer's (RFC 9110 §8.6), a cookie as any cookie. */
    add_answer_fields(x, e);
}
