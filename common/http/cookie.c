#include "common/http/cookie.h"

#include <stdio.h>

#include "common/http/chars.h"
#include "common/http/name.h"

bool http_cookie_next(struct sv *header, struct sv *name_out, struct sv *value_out,
                      struct sv *raw_out)
{
    struct sv raw = { 0 };
    struct sv pair = { 0 };
    size_t eq = 0;

    do {
        if (header->p == NULL) {
            return false;
        }
        raw = sv_cut(header, ';');
        pair = sv_trim(raw);
    } while (pair.n == 0);
    eq = sv_find(pair, '=');
    *name_out = eq == SIZE_MAX ? (struct sv){ 0 } : sv_trim(sv_head(pair, eq));
    *value_out = eq == SIZE_MAX ? pair : sv_trim(sv_from_at(pair, eq + 1));
    if (raw_out != NULL) {
        *raw_out = raw;
    }
    return true;
}

size_t http_cookie_find(const struct http_head *head, struct sv name, struct sv *values, size_t cap)
{
    size_t found = 0;
    uint32_t i = 0;

    for (i = head->at[HTTP_H_COOKIE]; i > 0 && i <= head->n; i++) {
        struct sv rest = head->fields[i - 1].value;
        struct sv got = { 0 };
        struct sv value = { 0 };

        if (head->fields[i - 1].id != HTTP_H_COOKIE) {
            continue;
        }
        while (http_cookie_next(&rest, &got, &value, NULL)) {
            if (!sv_eq(got, name)) {
                continue;
            }
            if (found < cap) {
                values[found] = value;
            }
            found++;
        }
    }
    return found;
}

void http_session_cookies_init(struct http_session_cookies *cookies, struct sv name)
{
    struct http_cookie_names *names = &cookies->names;

    (void)snprintf(cookies->session, sizeof(cookies->session), "__Host-%.*s", SV_ARG(name));
    (void)snprintf(cookies->login, sizeof(cookies->login), "%s_login", cookies->session);
    *names = (struct http_cookie_names){ .n_exact = 2, .n_prefix = 1 };
    names->exact[0] = sv_from(cookies->session);
    names->exact[1] = name;
    names->prefix[0] = sv_from(cookies->session);
}

bool http_cookie_is_ours(const struct http_cookie_names *ours, struct sv name)
{
    size_t i = 0;

    for (i = 0; i < ours->n_exact; i++) {
        if (sv_eq(ours->exact[i], name)) {
            return true;
        }
    }
    for (i = 0; i < ours->n_prefix; i++) {
        if (sv_starts(name, ours->prefix[i])) {
            return true;
        }
    }
    return false;
}

/* One raw piece between semicolons. */
static bool piece_is_ours(struct sv piece, const struct http_cookie_names *ours)
{
    size_t eq = sv_find(piece, '=');

    return eq != SIZE_MAX && http_cookie_is_ours(ours, sv_trim(sv_head(piece, eq)));
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Pieces that stand together, as they came; in front of all others without blanks and empty pieces. */
static void add_run(struct buf *out, size_t start, struct sv run)
{
    if (out->n != start) {
        buf_add_char(out, ';');
    } else {
        while (run.n != 0 && (is_blank(run.p[0]) || run.p[0] == ';')) {
            run = sv_from_at(run, 1);
        }
    }
    buf_add_sv(out, run);
}

enum http_cookie_strip http_cookie_strip(struct sv header, const struct http_cookie_names *ours,
                                         struct buf *out)
{
    struct sv rest = header;
    const char *run = header.p;
    bool found = false;
    size_t start = out->n;

    while (rest.p != NULL) {
        struct sv piece = sv_cut(&rest, ';');

        if (!piece_is_ours(piece, ours)) {
            continue;
        }
        if (piece.p != run) {
            add_run(out, start, sv_of(run, (size_t)(piece.p - 1 - run)));
        }
        found = true;
        run = rest.p;
    }
    if (!found) {
        return sv_trim(header).n == 0 ? HTTP_COOKIE_EMPTY : HTTP_COOKIE_SAME;
    }
    if (run != NULL) {
        add_run(out, start, sv_of(run, (size_t)(header.p + header.n - run)));
    }
    while (out->n != start && is_blank(out->p[out->n - 1])) { /* RFC 9113 §8.2.1 */
        out->n--;
    }
    return out->n == start ? HTTP_COOKIE_EMPTY : HTTP_COOKIE_STRIPPED;
}

enum http_cookie_strip http_cookie_strip_all(const struct http_head *head,
                                             const struct http_cookie_names *ours, struct buf *out)
{
    bool stripped = false;

    for (uint32_t i = 0; i < head->n; i++) {
        size_t before = out->n;
        enum http_cookie_strip left = HTTP_COOKIE_EMPTY;

        if (head->fields[i].id != HTTP_H_COOKIE || head->fields[i].value.p == NULL) {
            continue;
        }
        buf_add_str(out, before == 0 ? "" : "; ");
        left = http_cookie_strip(head->fields[i].value, ours, out);
        if (left == HTTP_COOKIE_SAME) {
            buf_add_sv(out, head->fields[i].value);
        } else if (left == HTTP_COOKIE_EMPTY) {
            out->n = before;
        }
        stripped = stripped || left != HTTP_COOKIE_SAME;
    }
    if (out->n == 0) {
        return HTTP_COOKIE_EMPTY;
    }
    return stripped ? HTTP_COOKIE_STRIPPED : HTTP_COOKIE_SAME;
}

/* cookie-octet, RFC 6265 §4.1.1. */
static bool is_cookie_value(struct sv v)
{
    size_t i = 0;

    for (i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];

        if (c <= 0x20 || c >= 0x7f || c == '"' || c == ',' || c == ';' || c == '\\') {
            return false;
        }
    }
    return true;
}

/* av-octets without the separator. */
static bool is_attribute(struct sv v)
{
    return http_is_value(v) && sv_find(v, ';') == SIZE_MAX && sv_find(v, ',') == SIZE_MAX;
}

/* RFC 6265bis §4.1.3: browsers drop a prefixed cookie that breaks its promise. */
static bool keeps_prefix_promise(const struct http_set_cookie *c)
{
    bool root = c->path.n == 0 || sv_eq(c->path, SV("/"));

    if (sv_istarts(c->name, SV("__Host-"))) {
        return !c->insecure && c->domain.n == 0 && root;
    }
    return !sv_istarts(c->name, SV("__Secure-")) || !c->insecure;
}

enum err http_set_cookie_add(struct buf *b, const struct http_set_cookie *c)
{
    static const char *const same_site[] = { "Lax", "Strict", "None" };
    size_t start = b->n;

    if (!http_is_token(c->name) || !is_cookie_value(c->value) || !is_attribute(c->path) ||
        (c->path.n > 0 && c->path.p[0] != '/') || !is_attribute(c->domain) ||
        (unsigned)c->same_site >= ARRAY_LEN(same_site) || !keeps_prefix_promise(c) ||
        (c->same_site == HTTP_SAME_SITE_NONE && c->insecure)) {
        return ERR_INVALID;
    }
    buf_add_sv(b, c->name);
    buf_add_char(b, '=');
    buf_add_sv(b, c->value);
    buf_add_str(b, "; Path=");
    buf_add_sv(b, c->path.n == 0 ? SV("/") : c->path);
    if (c->domain.n > 0) {
        buf_add_str(b, "; Domain=");
        buf_add_sv(b, c->domain);
    }
    if (c->max_age_s != 0) {
        buf_add_str(b, "; Max-Age=");
        buf_add_u64(b, c->max_age_s < 0 ? 0 : (uint64_t)c->max_age_s);
    }
    buf_add_str(b, c->insecure ? "" : "; Secure");
    buf_add_str(b, c->script_readable ? "" : "; HttpOnly");
    buf_add_str(b, "; SameSite=");
    buf_add_str(b, same_site[c->same_site]);
    if (b->err != ERR_OK) {
        return b->err;
    }
    if (b->n - start > HTTP_SET_COOKIE_MAX) {
        b->n = start;
        return ERR_LIMIT;
    }
    return ERR_OK;
}
