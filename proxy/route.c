#define PCRE2_CODE_UNIT_WIDTH 8
#include "proxy/route.h"

#include <pcre2.h>
#include <string.h>

#include "common/buf.h"
#include "common/map.h"
#include "common/mem.h"

enum { LINEAR_MAX = 8, MATCH_LIMIT = 200000, DEPTH_LIMIT = 1000, HEAP_LIMIT_KIB = 1024 };

/* Routes with the same key, in file order: they differ in port. */
struct chain {
    struct chain *next;
    const struct proxy_route *route;
};

struct host {
    const struct proxy_route **routes; /* all, in file order */
    size_t n;
    size_t cap;
    /* Only for hosts of more than LINEAR_MAX routes. */
    struct map *paths;    /* exact path -> chain */
    struct map *prefixes; /* prefix -> chain */
    size_t *lengths;      /* of prefixes, each once */
    size_t n_lengths;
    const struct proxy_route **regexes;
    size_t n_regexes;
};

struct pattern {
    struct sv text;
    struct host *host;
};

struct proxy_router {
    struct map *exact;    /* host -> struct host */
    struct map *suffixes; /* what follows the one leading '*' -> struct host */
    struct pattern *patterns;
    size_t n_patterns;
    struct host **hosts;
    size_t n_hosts;
    struct proxy_route *routes;
    size_t n_routes;
    pcre2_match_context *limits;
};

static enum err compile_regex(struct proxy_route *route, struct diag *d)
{
    struct sv text = route->config->match_value;
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)text.p, text.n,
                                   PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C,
                                   &code, &at, NULL);

    if (re == NULL) {
        diag_set(d, "route %.*s: regex does not compile at offset %zu", SV_ARG(route->config->from),
                 (size_t)at);
        return ERR_INVALID;
    }
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* without JIT the interpreter does it */
    route->regex = re;
    return ERR_OK;
}

static struct host *host_new(struct proxy_router *r)
{
    struct host *h = MEM_NEW(struct host);

    r->hosts = mem_realloc(r->hosts, r->n_hosts + 1, sizeof(*r->hosts));
    r->hosts[r->n_hosts++] = h;
    return h;
}

static struct host *host_in(struct proxy_router *r, struct map *map, struct sv key)
{
    struct host *h = map_get(map, key);

    if (h == NULL) {
        h = host_new(r);
        (void)map_set(map, key, h);
    }
    return h;
}

static struct host *host_of_pattern(struct proxy_router *r, struct sv text)
{
    size_t i = 0;

    for (i = 0; i < r->n_patterns; i++) {
        if (sv_eq(r->patterns[i].text, text)) {
            return r->patterns[i].host;
        }
    }
    r->patterns = mem_realloc(r->patterns, r->n_patterns + 1, sizeof(*r->patterns));
    r->patterns[r->n_patterns] = (struct pattern){ .text = text, .host = host_new(r) };
    return r->patterns[r->n_patterns++].host;
}

static struct host *host_of(struct proxy_router *r, const struct config_route *route)
{
    struct sv text = route->host;

    if (!route->wildcard) {
        return host_in(r, r->exact, text);
    }
    if (text.n > 0 && text.p[0] == '*' && sv_find(sv_from_at(text, 1), '*') == SIZE_MAX) {
        return host_in(r, r->suffixes, sv_from_at(text, 1));
    }
    return host_of_pattern(r, text);
}

static void host_add(struct host *h, const struct proxy_route *route)
{
    if (h->n == h->cap) {
        h->cap = h->cap == 0 ? 2 : h->cap * 2;
        h->routes = mem_realloc(h->routes, h->cap, sizeof(*h->routes));
    }
    h->routes[h->n++] = route;
}

static void chain_add(struct map *map, struct sv key, const struct proxy_route *route)
{
    struct chain *c = MEM_NEW(struct chain);
    struct chain *last = map_get(map, key);

    c->route = route;
    if (last == NULL) {
        (void)map_set(map, key, c);
        return;
    }
    while (last->next != NULL) {
        last = last->next;
    }
    last->next = c;
}

static void length_add(struct host *h, size_t n)
{
    size_t i = 0;

    for (i = 0; i < h->n_lengths; i++) {
        if (h->lengths[i] == n) {
            return;
        }
    }
    h->lengths = mem_realloc(h->lengths, h->n_lengths + 1, sizeof(*h->lengths));
    h->lengths[h->n_lengths++] = n;
}

static void host_index(struct host *h)
{
    size_t i = 0;

    if (h->n <= LINEAR_MAX) {
        return;
    }
    h->paths = map_new();
    h->prefixes = map_new();
    h->regexes = mem_array(h->n, sizeof(*h->regexes));
    for (i = 0; i < h->n; i++) {
        const struct config_route *c = h->routes[i]->config;

        if (c->match == CONFIG_MATCH_PATH) {
            chain_add(h->paths, c->match_value, h->routes[i]);
        } else if (c->match == CONFIG_MATCH_REGEX) {
            h->regexes[h->n_regexes++] = h->routes[i];
        } else {
            chain_add(h->prefixes, c->match_value, h->routes[i]);
            length_add(h, c->match_value.n);
        }
    }
}

enum err proxy_router_new(struct proxy_route *routes, size_t n, struct proxy_router **router_out,
                          struct diag *d)
{
    CLEANUP(proxy_router_free) struct proxy_router *r = MEM_NEW(struct proxy_router);
    size_t i = 0;

    r->exact = map_new();
    r->suffixes = map_new();
    r->routes = routes;
    r->n_routes = n;
    r->limits = pcre2_match_context_create(NULL);
    CHECK(r->limits != NULL);
    (void)pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    (void)pcre2_set_depth_limit(r->limits, DEPTH_LIMIT);
    (void)pcre2_set_heap_limit(r->limits, HEAP_LIMIT_KIB);
    for (i = 0; i < n; i++) {
        enum err err = ERR_OK;

        if (routes[i].config->match == CONFIG_MATCH_REGEX) {
            err = compile_regex(&routes[i], d);
        }
        if (err != ERR_OK) {
            return err;
        }
        host_add(host_of(r, routes[i].config), &routes[i]);
    }
    for (i = 0; i < r->n_hosts; i++) {
        host_index(r->hosts[i]);
    }
    *router_out = TAKE(r);
    return ERR_OK;
}

static void chain_free(struct sv key, void *value, void *arg)
{
    struct chain *c = value;

    (void)key;
    (void)arg;
    while (c != NULL) {
        struct chain *gone = c;

        c = c->next;
        mem_free(&gone);
    }
}

static void host_free(struct host *h)
{
    if (h->paths != NULL) {
        map_each(h->paths, chain_free, NULL);
        map_each(h->prefixes, chain_free, NULL);
    }
    map_free(&h->paths);
    map_free(&h->prefixes);
    mem_free(&h->lengths);
    mem_free(&h->regexes);
    mem_free(&h->routes);
    mem_free(&h);
}

void proxy_router_free(struct proxy_router **router)
{
    struct proxy_router *r = TAKE(*router);
    size_t i = 0;

    if (r == NULL) {
        return;
    }
    for (i = 0; i < r->n_hosts; i++) {
        host_free(r->hosts[i]);
    }
    for (i = 0; i < r->n_routes; i++) {
        pcre2_code_free(r->routes[i].regex);
        r->routes[i].regex = NULL;
    }
    map_free(&r->exact);
    map_free(&r->suffixes);
    mem_free(&r->patterns);
    mem_free(&r->hosts);
    pcre2_match_context_free(r->limits);
    mem_free(&r);
}

/* 1: fits, 0: does not, -1: the matcher gave up. */
static int regex_fits(const struct proxy_router *r, const struct proxy_route *route, struct sv path)
{
    static _Thread_local pcre2_match_data *scratch; /* one vector a thread, for its whole life */
    int n = 0;

    if (scratch == NULL) {
        scratch = pcre2_match_data_create(1, NULL);
        CHECK(scratch != NULL);
    }
    n = pcre2_match(route->regex, (PCRE2_SPTR)path.p, path.n, 0, 0, scratch, r->limits);
    return n >= 0 ? 1 : (n == PCRE2_ERROR_NOMATCH ? 0 : -1);
}

static bool port_fits(const struct proxy_route *route, uint16_t port)
{
    return route->config->port == 0 || route->config->port == port;
}

static int route_fits(const struct proxy_router *r, const struct proxy_route *route, uint16_t port,
                      struct sv path)
{
    const struct config_route *c = route->config;

    if (!port_fits(route, port)) {
        return 0;
    }
    switch (c->match) {
    case CONFIG_MATCH_PATH:
        return sv_eq(path, c->match_value) ? 1 : 0;
    case CONFIG_MATCH_REGEX:
        return regex_fits(r, route, path);
    case CONFIG_MATCH_PREFIX:
        break;
    }
    return sv_starts(path, c->match_value) ? 1 : 0;
}

static const struct proxy_route *earlier(const struct proxy_route *best, const struct chain *c,
                                         uint16_t port)
{
    for (; c != NULL; c = c->next) {
        if (port_fits(c->route, port)) {
            return best == NULL || c->route->index < best->index ? c->route : best;
        }
    }
    return best;
}

/* The first in file order; *gave_up_out where a pattern before it gave up. */
static const struct proxy_route *find_indexed(const struct proxy_router *r, const struct host *h,
                                              uint16_t port, struct sv path, bool *gave_up_out)
{
    const struct proxy_route *best = earlier(NULL, map_get(h->paths, path), port);
    size_t i = 0;

    for (i = 0; i < h->n_lengths; i++) {
        if (h->lengths[i] <= path.n) {
            best = earlier(best, map_get(h->prefixes, sv_head(path, h->lengths[i])), port);
        }
    }
    for (i = 0; i < h->n_regexes; i++) {
        int fits = 0;

        if (best != NULL && h->regexes[i]->index > best->index) {
            break;
        }
        fits = route_fits(r, h->regexes[i], port, path);
        if (fits != 0) {
            *gave_up_out = fits < 0;
            return h->regexes[i];
        }
    }
    return best;
}

static const struct proxy_route *find_in_host(const struct proxy_router *r, const struct host *h,
                                              uint16_t port, struct sv path, bool *gave_up_out)
{
    size_t i = 0;

    if (h->paths != NULL) {
        return find_indexed(r, h, port, path, gave_up_out);
    }
    for (i = 0; i < h->n; i++) {
        int fits = route_fits(r, h->routes[i], port, path);

        if (fits != 0) {
            *gave_up_out = fits < 0;
            return h->routes[i];
        }
    }
    return NULL;
}

/* '*' stands for any run of bytes; both at most 255 bytes long, so backtracking stays small: it
 * only ever goes back to the last '*'. */
static bool pattern_fits(struct sv pattern, struct sv text)
{
    size_t p = 0;
    size_t t = 0;
    size_t star = SIZE_MAX;
    size_t mark = 0;

    while (t < text.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.n && pattern.p[p] == text.p[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') {
        p++;
    }
    return p == pattern.n;
}

static const struct host *find_host(const struct proxy_router *r, struct sv host)
{
    const struct host *h = map_get(r->exact, host);
    size_t i = 0;

    if (h != NULL) {
        return h;
    }
    if (map_count(r->suffixes) != 0) {
        for (i = 0; i <= host.n; i++) {
            h = map_get(r->suffixes, sv_from_at(host, i));
            if (h != NULL) {
                return h;
            }
        }
    }
    for (i = 0; i < r->n_patterns; i++) {
        if (pattern_fits(r->patterns[i].text, host)) {
            return r->patterns[i].host;
        }
    }
    return NULL;
}

enum proxy_route_result proxy_router_find(const struct proxy_router *router, struct sv host,
                                          uint16_t port, struct sv decoded,
                                          const struct proxy_route **route_out)
{
    const struct host *h = find_host(router, host);
    const struct proxy_route *route = NULL;
    bool gave_up = false;

    if (h == NULL) {
        return PROXY_ROUTE_NO_HOST;
    }
    route = find_in_host(router, h, port, decoded, &gave_up);
    if (gave_up) {
        return PROXY_ROUTE_ERROR;
    }
    if (route == NULL) {
        return PROXY_ROUTE_NO_PATH;
    }
    if (route->config->match == CONFIG_MATCH_PREFIX &&
        http_canon_param_within(decoded, route->config->match_value.n)) {
        return PROXY_ROUTE_ERROR;
    }
    *route_out = route;
    return PROXY_ROUTE_FOUND;
}

void proxy_route_rewrite(const struct proxy_route *route, const struct http_request *req,
                         struct buf *out)
{
    const struct config_route *c = route->config;
    size_t cut = req->path.n;

    if (c == NULL || c->prefix_rewrite.p == NULL || req->form == HTTP_FORM_ASTERISK) {
        buf_add_sv(out, req->path);
        return;
    }
    if (c->match == CONFIG_MATCH_PREFIX) {
        cut = http_canon_encoded_len(req->path, c->match_value.n);
    }
    if (c->match == CONFIG_MATCH_PREFIX && c->match_value.n == 1) {
        cut = c->prefix_rewrite.n > 0 && c->prefix_rewrite.p[c->prefix_rewrite.n - 1] == '/' ? 1 : 0;
    }
    buf_add_sv(out, c->prefix_rewrite);
    buf_add_sv(out, sv_from_at(req->path, cut));
    if (out->n == 0) {
        buf_add_char(out, '/');
    }
}

static void add_target(const struct config_redirect *to, const struct proxy_route *route,
                       const struct http_request *req, struct buf *out)
{
    if (to->path_redirect.n != 0) {
        buf_add_sv(out, to->path_redirect);
    } else if (to->prefix_rewrite.n != 0 && route->config->match == CONFIG_MATCH_PREFIX) {
        size_t cut = http_canon_encoded_len(req->path, route->config->match_value.n);

        buf_add_sv(out, to->prefix_rewrite);
        buf_add_sv(out, sv_from_at(req->path, cut));
    } else {
        buf_add_sv(out, req->path);
    }
    if (req->has_query && !to->strip_query) {
        buf_add_char(out, '?');
        buf_add_sv(out, req->query);
    }
}

void proxy_route_location(const struct proxy_route *route, const struct http_request *req,
                          struct buf *out)
{
    const struct config_redirect *to = &route->config->redirect;
    bool https = to->https_redirect || route->config->from_https;

    if (to->scheme_redirect.n != 0) {
        https = sv_eq(to->scheme_redirect, SV("https"));
    }
    buf_add_str(out, https ? "https://" : "http://");
    buf_add_sv(out, to->host_redirect.n != 0 ? to->host_redirect : req->host);
    if (to->port_redirect != 0) {
        buf_printf(out, ":%u", to->port_redirect);
    } else if (to->host_redirect.n == 0 && req->port != 0 && !to->https_redirect) {
        buf_printf(out, ":%u", req->port);
    }
    add_target(to, route, req, out);
}
