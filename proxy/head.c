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
static void add_query(struct proxy_conn *conn, struct buf *out, struct sv query)
{
    static const struct sv ours[] = { { "pomerium_session", 16 },
                                      { "pomerium_session_encrypted", 26 },
                                      { "pomerium_jwt", 12 } };
    bool first = true;

    if (conn->service != PROXY_FOR_ROUTE ||
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

        if (http_form_decode(name, true, &conn->arena, &name) != ERR_OK) {
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

static void add_path(struct proxy_conn *conn, struct buf *out)
{
    const struct config_route *c = conn->service == PROXY_FOR_ROUTE ? conn->route->config : NULL;
    struct sv path = conn->req.path;

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

static void add_cookie(struct proxy_conn *conn, struct buf *out, struct sv value)
{
    CLEANUP(buf_deinit) struct buf rest = { 0 };

    buf_init(&rest, COOKIE_MAX);
    switch (http_cookie_strip(value, &conn->snapshot->cookies, &rest)) {
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
static void add_field(struct proxy_conn *conn, struct buf *out, const struct http_field *f)
{
    if ((f->flags & HTTP_F_NOT_FORWARDED) != 0 || f->id == HTTP_H_HOST ||
        f->id == HTTP_H_CONTENT_LENGTH || f->id == HTTP_H_EXPECT) {
        return;
    }
    if (f->id == HTTP_H_COOKIE && conn->service != PROXY_FOR_AUTHENTICATE) {
        add_cookie(conn, out, f->value);
        return;
    }
    if ((f->id == HTTP_H_AUTHORIZATION && is_our_authorization(f->value)) ||
        http_name_set_has(conn->snapshot->ours, f->name) ||
        (conn->service == PROXY_FOR_ROUTE && http_name_set_has(conn->route->drop, f->name))) {
        return;
    }
    add_line(out, f->name, f->value);
}

static void add_host(struct proxy_conn *conn, const struct proxy_target *target, struct buf *out)
{
    bool keep = conn->service != PROXY_FOR_ROUTE || conn->route->config->preserve_host_header;

    add_line(out, SV("Host"), keep ? conn->req.authority : sv_from(target->host_header));
    add_line(out, SV("X-Forwarded-Host"), conn->req.authority);
}

static void add_ours(struct proxy_conn *conn, struct buf *out)
{
    size_t i = 0;

    add_line(out, SV("X-Forwarded-For"), sv_from(conn->peer));
    add_line(out, SV("X-Forwarded-Proto"), conn->io.ssl != NULL ? SV("https") : SV("http"));
    add_line(out, SV("X-Request-Id"), sv_from(conn->request_id));
    for (i = 0; conn->identity != NULL && i < conn->identity->n; i++) {
        add_line(out, conn->identity->headers[i].name, conn->identity->headers[i].value);
    }
    if (conn->service == PROXY_FOR_ROUTE) {
        const struct config_pairs *set = &conn->route->config->set_request_headers;

        for (i = 0; i < set->n; i++) {
            add_line(out, set->v[i].name, set->v[i].value);
        }
    }
}

static void add_framing(struct proxy_conn *conn, struct buf *out)
{
    if (conn->upgrade) {
        add_line(out, SV("Connection"), SV("Upgrade"));
        add_line(out, SV("Upgrade"), http_head_value(&conn->head, HTTP_H_UPGRADE));
    } else if (conn->head.te_trailers) {
        add_line(out, SV("Connection"), SV("TE"));
        add_line(out, SV("TE"), SV("trailers"));
    }
    if (conn->head.framing == HTTP_BODY_CHUNKED) {
        add_line(out, SV("Transfer-Encoding"), SV("chunked"));
    } else if (conn->head.framing == HTTP_BODY_LENGTH) {
        buf_add_str(out, "Content-Length: ");
        buf_add_u64(out, conn->head.content_length);
        buf_add_str(out, "\r\n");
    }
}

void proxy_head_request(struct proxy_conn *conn, const struct proxy_target *target, struct buf *out)
{
    uint32_t i = 0;

    buf_add_sv(out, conn->req.method_text);
    buf_add_char(out, ' ');
    add_path(conn, out);
    if (conn->req.has_query) {
        add_query(conn, out, conn->req.query);
    }
    buf_add_str(out, " HTTP/1.1\r\n");
    add_host(conn, target, out);
    for (i = 0; i < conn->head.n; i++) {
        add_field(conn, out, &conn->head.fields[i]);
    }
    add_framing(conn, out);
    add_ours(conn, out); /* last: nothing that came from outside stands behind ours */
    buf_add_str(out, "\r\n");
}

/* An upstream must not plant a session of ours. */
static bool sets_our_cookie(const struct proxy_conn *conn, const struct http_field *f)
{
    struct sv rest = f->value;
    struct sv name = sv_trim(sv_cut(&rest, '='));

    return f->id == HTTP_H_SET_COOKIE && conn->service == PROXY_FOR_ROUTE &&
           http_cookie_is_ours(&conn->snapshot->cookies, name);
}

static bool answer_passes(const struct proxy_conn *conn, const struct http_field *f)
{
    if ((f->flags & HTTP_F_NOT_FORWARDED) != 0 || f->id == HTTP_H_CONTENT_LENGTH ||
        f->id == HTTP_H_X_REQUEST_ID || sets_our_cookie(conn, f)) {
        return false;
    }
    return conn->service != PROXY_FOR_ROUTE ||
           !http_name_set_has(conn->route->drop_answer, f->name);
}

static void add_answer_framing(struct proxy_conn *conn, struct buf *out, bool *chunk)
{
    const struct http_head *a = &conn->answer;
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
    } else if (a->framing != HTTP_BODY_NONE && conn->head.minor >= 1) {
        *chunk = true;
        add_line(out, SV("Transfer-Encoding"), SV("chunked"));
    } else if (a->framing != HTTP_BODY_NONE) {
        conn->close_after = true; /* HTTP/1.0: the end of the connection is the end of the body */
    }
    if (conn->close_after || conn->worker->stopping) {
        conn->close_after = true;
        add_line(out, SV("Connection"), SV("close"));
    } else if (conn->head.minor == 0) {
        add_line(out, SV("Connection"), SV("keep-alive"));
    }
}

void proxy_head_answer(struct proxy_conn *conn, struct buf *out, bool *chunk_out)
{
    const struct http_head *a = &conn->answer;
    uint32_t i = 0;

    buf_add_str(out, "HTTP/1.1 ");
    buf_add_u64(out, a->status);
    buf_add_char(out, ' ');
    buf_add_sv(out, a->reason);
    buf_add_str(out, "\r\n");
    for (i = 0; i < a->n; i++) {
        if (answer_passes(conn, &a->fields[i])) {
            add_line(out, a->fields[i].name, a->fields[i].value);
        }
    }
    proxy_reply_common(conn, out);
    add_answer_framing(conn, out, chunk_out);
    buf_add_str(out, "\r\n");
}
