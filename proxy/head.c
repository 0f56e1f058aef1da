/* What heads look like on the other side: which fields pass, which are ours. */
#include <string.h>

#include "common/http/cookie.h"
#include "common/http/form.h"
#include "proxy/forward.h"
#include "proxy/reply.h"

enum { COOKIE_MAX = 65536 };

/* One reservation and four copies: this runs a dozen times for each head. */
static void add_line(struct buf *out, struct sv name, struct sv value)
{
    size_t n = name.n + value.n + 4;
    char *at = buf_room(out, n);

    if (at == NULL) {
        return;
    }
    memcpy(at, name.p, name.n);
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes, not a C string */
    memcpy(at + name.n, ": ", 2);
    if (value.n != 0) {
        memcpy(at + name.n + 2, value.p, value.n);
    }
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): likewise */
    memcpy(at + n - 2, "\r\n", 2);
    buf_grew(out, n);
}

/* Query without the credentials that may travel in it; our own pages get it whole. */
static void add_query(struct proxy_exchange *x, struct buf *out, struct sv query)
{
    static const struct sv ours[] = { { "pomerium_session", 16 },
                                      { "pomerium_session_encrypted", 26 },
                                      { "pomerium_jwt", 12 } };
    bool first = true;

    if (x->service != PROXY_FOR_ROUTE ||
        (sv_search(query, SV("pomerium_")) == SIZE_MAX && sv_find(query, '%') == SIZE_MAX)) {
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

static void add_path(struct proxy_exchange *x, struct buf *out)
{
    const struct config_route *c = x->service == PROXY_FOR_ROUTE ? x->route->config : NULL;
    struct sv path = x->req.path;

    if (c == NULL || c->prefix_rewrite.p == NULL) {
        buf_add_sv(out, path);
        return;
    }
    buf_add_sv(out, c->prefix_rewrite);
    if (c->match == CONFIG_MATCH_PREFIX) {
        struct sv rest = sv_from_at(path, http_canon_encoded_len(path, c->match_value.n));

        if (sv_ends(c->prefix_rewrite, SV("/")) && sv_starts(rest, SV("/"))) {
            rest = sv_from_at(rest, 1); /* no "//" where the two meet */
        }
        if (!sv_ends(c->prefix_rewrite, SV("/")) && !sv_starts(rest, SV("/")) &&
            sv_ends(c->match_value, SV("/"))) {
            buf_add_char(out, '/'); /* the prefix's own: "/" + "/base" is "/base/x", not "/basex" */
        }
        buf_add_sv(out, rest);
    }
}

static bool is_our_authorization(struct sv value)
{
    size_t n = 0;

    while (n < value.n && value.p[n] != ' ' && value.p[n] != '\t') {
        n++;
    }
    return sv_ieq(sv_head(value, n), SV("Pomerium")) ||
           (sv_ieq(sv_head(value, n), SV("Bearer")) &&
            sv_istarts(sv_trim(sv_from_at(value, n)), SV("Pomerium-")));
}

static void add_cookie(struct proxy_exchange *x, struct buf *out, struct sv value)
{
    CLEANUP(buf_deinit) struct buf rest = { 0 };

    buf_init(&rest, COOKIE_MAX);
    switch (http_cookie_strip(value, &x->snapshot->cookies, &rest)) {
    case HTTP_COOKIE_EMPTY:
        break;
    case HTTP_COOKIE_SAME:
        add_line(out, SV("Cookie"), value);
        break;
    case HTTP_COOKIE_STRIPPED:
        add_line(out, SV("Cookie"), buf_sv(&rest));
        break;
    }
}

/* One field of the client's. */
static void add_field(struct proxy_exchange *x, struct buf *out, const struct http_field *f)
{
    if ((f->flags & HTTP_F_NOT_FORWARDED) != 0 || f->id == HTTP_H_HOST ||
        f->id == HTTP_H_CONTENT_LENGTH || f->id == HTTP_H_EXPECT) {
        return;
    }
    if (f->id == HTTP_H_COOKIE && x->service != PROXY_FOR_AUTHENTICATE) {
        add_cookie(x, out, f->value);
        return;
    }
    if ((f->id == HTTP_H_AUTHORIZATION && is_our_authorization(f->value)) ||
        http_name_set_has(x->snapshot->ours, f->name) ||
        (x->service == PROXY_FOR_ROUTE && http_name_set_has(x->route->drop, f->name))) {
        return;
    }
    add_line(out, f->name, f->value);
}

static void add_host(struct proxy_exchange *x, const struct proxy_target *target, struct buf *out)
{
    bool keep = x->service != PROXY_FOR_ROUTE || x->route->config->preserve_host_header;

    add_line(out, SV("Host"), keep ? x->req.authority : sv_from(target->host_header));
    add_line(out, SV("X-Forwarded-Host"), x->req.authority);
}

static void add_ours(struct proxy_exchange *x, struct buf *out)
{
    size_t i = 0;

    add_line(out, SV("X-Forwarded-For"), sv_from(x->conn->peer));
    add_line(out, SV("X-Forwarded-Proto"), x->conn->io.ssl != NULL ? SV("https") : SV("http"));
    add_line(out, SV("X-Request-Id"), sv_from(x->request_id));
    for (i = 0; x->identity != NULL && i < x->identity->n; i++) {
        add_line(out, x->identity->headers[i].name, x->identity->headers[i].value);
    }
    if (x->service == PROXY_FOR_ROUTE) {
        const struct config_pairs *set = &x->route->config->set_request_headers;

        for (i = 0; i < set->n; i++) {
            add_line(out, set->v[i].name, set->v[i].value);
        }
    }
}

static void add_framing(struct proxy_exchange *x, struct buf *out)
{
    if (x->upgrade) {
        add_line(out, SV("Connection"), SV("Upgrade"));
        add_line(out, SV("Upgrade"), http_head_value(&x->head, HTTP_H_UPGRADE));
    } else if (x->head.te_trailers) {
        add_line(out, SV("Connection"), SV("TE"));
        add_line(out, SV("TE"), SV("trailers"));
    }
    if (x->head.framing == HTTP_BODY_CHUNKED) {
        add_line(out, SV("Transfer-Encoding"), SV("chunked"));
    } else if (x->head.framing == HTTP_BODY_LENGTH) {
        buf_add_str(out, "Content-Length: ");
        buf_add_u64(out, x->head.content_length);
        buf_add_str(out, "\r\n");
    }
}

void proxy_head_request(struct proxy_exchange *x, const struct proxy_target *target,
                        struct buf *out)
{
    uint32_t i = 0;

    buf_add_sv(out, x->req.method_text);
    buf_add_char(out, ' ');
    add_path(x, out);
    if (x->req.has_query) {
        add_query(x, out, x->req.query);
    }
    buf_add_str(out, " HTTP/1.1\r\n");
    add_host(x, target, out);
    for (i = 0; i < x->head.n; i++) {
        add_field(x, out, &x->head.fields[i]);
    }
    add_framing(x, out);
    add_ours(x, out); /* last: nothing that came from outside stands behind ours */
    buf_add_str(out, "\r\n");
}

/* An upstream must not plant a session of ours. */
static bool sets_our_cookie(const struct proxy_exchange *x, const struct http_field *f)
{
    struct sv rest = f->value;
    struct sv name = sv_trim(sv_cut(&rest, '='));

    return f->id == HTTP_H_SET_COOKIE && x->service == PROXY_FOR_ROUTE &&
           http_cookie_is_ours(&x->snapshot->cookies, name);
}

static bool answer_passes(const struct proxy_exchange *x, const struct http_field *f)
{
    if ((f->flags & HTTP_F_NOT_FORWARDED) != 0 || f->id == HTTP_H_CONTENT_LENGTH ||
        f->id == HTTP_H_X_REQUEST_ID || sets_our_cookie(x, f)) {
        return false;
    }
    return x->service != PROXY_FOR_ROUTE || !http_name_set_has(x->route->drop_answer, f->name);
}

static void add_answer_framing(struct proxy_exchange *x, struct buf *out, bool *chunk)
{
    const struct http_head *a = &x->answer;
    const struct http_field *length = http_head_get(a, HTTP_H_CONTENT_LENGTH);

    *chunk = false;
    if (a->status == 101) {
        add_line(out, SV("Connection"), SV("Upgrade"));
        add_line(out, SV("Upgrade"), http_head_value(a, HTTP_H_UPGRADE));
        return;
    }
    if (a->framing == HTTP_BODY_LENGTH ||
        (a->framing == HTTP_BODY_NONE && length != NULL && a->status != 204)) {
        add_line(out, SV("Content-Length"), length == NULL ? SV("0") : length->value);
    } else if (a->framing != HTTP_BODY_NONE && x->head.minor >= 1) {
        *chunk = true;
        add_line(out, SV("Transfer-Encoding"), SV("chunked"));
    } else if (a->framing != HTTP_BODY_NONE) {
        x->close_after = true; /* HTTP/1.0: the end of the connection is the end of the body */
    }
    if (x->close_after || x->worker->stopping) {
        x->close_after = true;
        add_line(out, SV("Connection"), SV("close"));
    } else if (x->head.minor == 0) {
        add_line(out, SV("Connection"), SV("keep-alive"));
    }
}

void proxy_head_answer(struct proxy_exchange *x, struct buf *out, bool *chunk_out)
{
    const struct http_head *a = &x->answer;
    uint32_t i = 0;

    buf_add_str(out, "HTTP/1.1 ");
    buf_add_u64(out, a->status);
    buf_add_char(out, ' ');
    buf_add_sv(out, a->reason);
    buf_add_str(out, "\r\n");
    for (i = 0; i < a->n; i++) {
        if (answer_passes(x, &a->fields[i])) {
            add_line(out, a->fields[i].name, a->fields[i].value);
        }
    }
    proxy_reply_common(x, out);
    add_answer_framing(x, out, chunk_out);
    buf_add_str(out, "\r\n");
}
