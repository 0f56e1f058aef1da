#include "proxy/rewrite.h"

#include <string.h>

#include "common/http/url.h"

/* ---- paths ----------------------------------------------------------------------------------- */

/* with in place of the route's match: of its prefix, or of the whole path. */
static void add_path(const struct config_route *route, struct sv path, struct sv with,
                     struct buf *out)
{
    struct sv rest = { 0 };

    buf_add_sv(out, with);
    if (route->match != CONFIG_MATCH_PREFIX) {
        return;
    }
    rest = sv_from_at(path, http_canon_encoded_len(path, route->match_value.n));
    if (sv_ends(with, SV("/")) && sv_starts(rest, SV("/"))) {
        rest = sv_from_at(rest, 1); /* no "//" where the two meet */
    }
    if (!sv_ends(with, SV("/")) && !sv_starts(rest, SV("/")) &&
        sv_ends(route->match_value, SV("/"))) {
        buf_add_char(out, '/'); /* the prefix's own: "/" + "/base" is "/base/x", not "/basex" */
    }
    buf_add_sv(out, rest);
}

/* "/a" + "/base/" makes "/base/../x" of "/a../x": such a path would leave what the route leads to. */
static enum err check(struct sv path, const struct http_canon_rules *rules, struct arena *arena,
                      struct sv *path_out)
{
    struct http_canon_rules strict = *rules;

    strict.keep_dot_segments = true; /* that is: refused, not resolved */
    if (strict.escaped_slashes != HTTP_SLASH_KEEP) {
        strict.escaped_slashes = HTTP_SLASH_REJECT;
    }
    return http_canon_path(path, &strict, arena, path_out, NULL) == HTTP_FAULT_NONE ? ERR_OK
                                                                                    : ERR_INVALID;
}

enum err proxy_rewrite_path(const struct config_route *route, const struct http_canon_rules *rules,
                            struct sv path, struct arena *arena, struct sv *path_out)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    if ((route->prefix_rewrite.p == NULL && route->rewrite == NULL) || !sv_starts(path, SV("/"))) {
        *path_out = path; /* also the "*" of OPTIONS */
        return ERR_OK;
    }
    buf_init(&text, PROXY_REWRITE_MAX);
    if (route->rewrite == NULL) {
        add_path(route, path, route->prefix_rewrite, &text);
    } else {
        switch (pattern_replace(route->rewrite, path, route->rewrite_substitution, &text)) {
        case PATTERN_GAVE_UP:
            return ERR_LIMIT;
        case PATTERN_NO:
            *path_out = path;
            return ERR_OK;
        case PATTERN_YES:
            break;
        }
    }
    return text.err != ERR_OK ? ERR_LIMIT
                              : check(arena_sv(arena, buf_sv(&text)), rules, arena, path_out);
}

/* ---- hosts ----------------------------------------------------------------------------------- */

static enum err check_host(struct sv text, struct arena *arena, struct sv *host_out)
{
    char room[HTTP_HOST_MAX + 1];
    struct http_authority auth;
    struct sv host = { 0 };
    struct buf b;

    if (http_authority_parse(text, &auth) != ERR_OK ||
        http_host_canonical(auth.host, room, &host) != ERR_OK) {
        return ERR_INVALID;
    }
    buf_init(&b, HTTP_HOST_MAX + 16);
    buf_add_sv(&b, host);
    if (auth.port != 0) {
        buf_printf(&b, ":%u", auth.port);
    }
    *host_out = arena_sv(arena, buf_sv(&b));
    buf_deinit(&b);
    return ERR_OK;
}

enum err proxy_rewrite_host(const struct config_route *route, const struct http_request *req,
                            struct sv header, struct arena *arena, struct sv *host_out)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    *host_out = (struct sv){ 0 };
    if (route->preserve_host_header) {
        *host_out = req->authority;
    } else if (route->host_rewrite.n != 0) {
        *host_out = route->host_rewrite;
    } else if (route->host_rewrite_header.n != 0 && header.p != NULL) {
        return check_host(header, arena, host_out);
    } else if (route->host_rewrite_path != NULL) {
        buf_init(&text, PROXY_REWRITE_MAX);
        switch (pattern_replace(route->host_rewrite_path, req->path,
                                route->host_rewrite_path_substitution, &text)) {
        case PATTERN_GAVE_UP:
            return ERR_LIMIT;
        case PATTERN_NO:
            break;
        case PATTERN_YES:
            return check_host(buf_sv(&text), arena, host_out);
        }
    }
    return ERR_OK;
}

/* ---- headers of answers ---------------------------------------------------------------------- */

struct sv proxy_rewrite_header(const struct config_route *route, struct sv name, struct sv value,
                               struct arena *arena)
{
    for (size_t i = 0; i < route->n_rewrite_response_headers; i++) {
        const struct config_header_rewrite *h = &route->rewrite_response_headers[i];
        size_t rest = 0;
        char *p = NULL;

        if (!sv_ieq(name, h->header) || !sv_starts(value, h->prefix)) {
            continue;
        }
        rest = value.n - h->prefix.n;
        p = arena_alloc(arena, h->value.n + rest + 1);
        memcpy(p, h->value.p == NULL ? "" : h->value.p, h->value.n);
        memcpy(p + h->value.n, value.p + h->prefix.n, rest);
        return sv_trim(sv_of(p, h->value.n + rest));
    }
    return value;
}

/* ---- redirects ------------------------------------------------------------------------------- */

static void add_host(const struct config_redirect *r, const struct http_request *req, bool https,
                     struct buf *out)
{
    bool to_https = r->https_redirect ||
                    (r->scheme_redirect.n != 0 ? sv_eq(r->scheme_redirect, SV("https")) : https);
    uint16_t port = req->port;

    buf_add_str(out, to_https ? "https://" : "http://");
    if (r->host_redirect.n != 0) {
        buf_add_sv(out, r->host_redirect);
        port = 0;
    } else {
        buf_add_sv(out, req->host);
    }
    /* The default port of the one scheme is none of the other. */
    if (to_https != https && port == (https ? 443 : 80)) {
        port = 0;
    }
    port = r->port_redirect != 0 ? r->port_redirect : port;
    if (port != 0) {
        buf_printf(out, ":%u", port);
    }
}

void proxy_rewrite_location(const struct config_route *route, const struct http_request *req,
                            bool https, struct buf *out)
{
    const struct config_redirect *r = &route->redirect;
    struct sv path = sv_starts(req->path, SV("/")) ? req->path : SV("/");

    add_host(r, req, https, out);
    if (r->path_redirect.n != 0) {
        buf_add_sv(out, r->path_redirect);
    } else if (r->prefix_rewrite.n != 0) {
        add_path(route, path, r->prefix_rewrite, out);
    } else {
        buf_add_sv(out, path);
    }
    if (req->has_query && !r->strip_query && sv_find(r->path_redirect, '?') == SIZE_MAX) {
        buf_add_char(out, '?');
        buf_add_sv(out, req->query);
    }
}
