#define PCRE2_CODE_UNIT_WIDTH 8
#include "proxy/snapshot.h"

#include <stdio.h>
#include <string.h>

#include <pcre2.h>

#include "common/map.h"
#include "common/mem.h"
#include "proxy/tls.h"

enum { REGEX_MATCH_LIMIT = 100000, KEY_MAX = 1024 };

struct proxy_host {
    struct proxy_route **routes; /* file order */
    size_t n;
};

/* Request fields that we alone may tell an upstream. */
static const char *const our_names[] = {
    "forwarded",      "x-real-ip",     "x-client-ip",
    "true-client-ip", "client-ip",     "x-cluster-client-ip",
    "proxy",          "x-request-id",  "x-envoy-external-address",
    "x-original-url", "x-rewrite-url", "x-original-host",
    "x-remote-user",  "remote-user",
};

/* ---- targets --------------------------------------------------------------------------------- */

static char *host_header_of(const struct config_url *url)
{
    char room[PROXY_HOST_MAX];

    if (url->scheme == CONFIG_SCHEME_UNIX) {
        return mem_strdup("localhost");
    }
    if (url->port_given) {
        (void)snprintf(room, sizeof(room), "%s:%u", url->host.p, url->port);
    } else {
        (void)snprintf(room, sizeof(room), "%s", url->host.p);
    }
    return mem_strdup(room);
}

static enum err target_init(struct proxy_target *t, const struct config_url *url,
                            const struct config_route *route, struct diag *d)
{
    char key[KEY_MAX];
    struct sv ca = route == NULL ? (struct sv){ 0 } : route->tls_custom_ca;
    enum err err = ERR_OK;

    t->url = url;
    t->host_header = host_header_of(url);
    t->verify = route == NULL || !route->tls_skip_verify;
    if (url->tls) {
        t->server_name = mem_svdup(route != NULL && route->tls_upstream_server_name.n != 0
                                       ? route->tls_upstream_server_name
                                       : url->host);
        err = proxy_tls_upstream_ctx(ca, t->verify, &t->tls, d);
    }
    (void)snprintf(key, sizeof(key), "%.*s|%s|%d|%016llx", SV_ARG(url->text),
                   t->server_name == NULL ? "" : t->server_name, t->verify,
                   (unsigned long long)map_hash(ca));
    t->key = mem_strdup(key);
    return err;
}

static void target_deinit(struct proxy_target *t)
{
    SSL_CTX_free(t->tls);
    mem_free(&t->key);
    mem_free(&t->server_name);
    mem_free(&t->host_header);
}

struct proxy_target *proxy_route_target(struct proxy_route *route)
{
    uint32_t turn = __atomic_fetch_add(&route->turn, 1, __ATOMIC_RELAXED);

    return &route->targets[turn % route->n_targets];
}

/* ---- routes ---------------------------------------------------------------------------------- */

static enum err regex_compile(struct proxy_route *route, struct diag *d)
{
    char pattern[4096];
    int code = 0;
    PCRE2_SIZE at = 0;

    /* The whole path must match, whatever alternatives the pattern has. */
    (void)snprintf(pattern, sizeof(pattern), "^(?:%s)$", route->config->match_value.p);
    route->regex = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                 PCRE2_DOLLAR_ENDONLY | PCRE2_DOTALL, &code, &at, NULL);
    if (route->regex == NULL) {
        diag_set(d, "the pattern '%s' does not compile", route->config->match_value.p);
        return ERR_INVALID;
    }
    (void)pcre2_jit_compile(route->regex, PCRE2_JIT_COMPLETE); /* without it, it is slower */
    return ERR_OK;
}

/* A pattern that hit its limits on a path of this search: neither yes nor no. */
static _Thread_local bool regex_gave_up;
static _Thread_local pcre2_match_data *match_data;
static _Thread_local pcre2_match_context *limits;

void proxy_snapshot_thread_end(void)
{
    pcre2_match_data_free(match_data);
    pcre2_match_context_free(limits);
    match_data = NULL;
    limits = NULL;
}

static bool regex_fits(const struct proxy_route *route, struct sv path)
{
    int got = 0;

    if (match_data == NULL) {
        match_data = pcre2_match_data_create(1, NULL);
        limits = pcre2_match_context_create(NULL);
        CHECK(match_data != NULL && limits != NULL);
        (void)pcre2_set_match_limit(limits, REGEX_MATCH_LIMIT);
        (void)pcre2_set_depth_limit(limits, REGEX_MATCH_LIMIT);
    }
    got = pcre2_match(route->regex, (PCRE2_SPTR)path.p, path.n, 0, 0, match_data, limits);
    if (got < 0 && got != PCRE2_ERROR_NOMATCH) {
        regex_gave_up = true;
        return true; /* ends the search: a later, more open route must not take it */
    }
    return got >= 0;
}

static bool path_fits(const struct proxy_route *route, struct sv path)
{
    const struct config_route *c = route->config;

    switch (c->match) {
    case CONFIG_MATCH_PREFIX:
        return sv_starts(path, c->match_value);
    case CONFIG_MATCH_PATH:
        return sv_eq(path, c->match_value);
    case CONFIG_MATCH_REGEX:
        return regex_fits(route, path);
    }
    return false;
}

static enum err names_of_route(struct proxy_route *route)
{
    const struct config_route *c = route->config;
    enum err err = ERR_OK;
    size_t i = 0;

    route->drop = http_name_set_new();
    route->drop_answer = http_name_set_new();
    for (i = 0; i < c->set_request_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(route->drop, c->set_request_headers.v[i].name);
    }
    for (i = 0; i < c->remove_request_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(route->drop, c->remove_request_headers.v[i]);
    }
    for (i = 0; i < c->set_response_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(route->drop_answer, c->set_response_headers.v[i].name);
    }
    return err;
}

static enum err route_init(struct proxy_route *route, const struct config_route *c, struct diag *d)
{
    enum err err = ERR_OK;
    size_t i = 0;

    route->config = c;
    route->targets = mem_array(c->n_upstreams, sizeof(*route->targets));
    for (i = 0; i < c->n_upstreams && err == ERR_OK; i++) {
        route->n_targets++;
        err = target_init(&route->targets[i], &c->upstreams[i].url, c, d);
    }
    if (err == ERR_OK && c->match == CONFIG_MATCH_REGEX) {
        err = regex_compile(route, d);
    }
    err = err != ERR_OK ? err : names_of_route(route);
    if (err != ERR_OK) {
        diag_set(d, "the route cannot be used");
        diag_at(d, c->file, c->line, c->column);
    }
    return err;
}

static void route_deinit(struct proxy_route *route)
{
    size_t i = 0;

    for (i = 0; i < route->n_targets; i++) {
        target_deinit(&route->targets[i]);
    }
    mem_free(&route->targets);
    pcre2_code_free(route->regex);
    http_name_set_free(&route->drop);
    http_name_set_free(&route->drop_answer);
}

static void host_add(struct proxy_host *host, struct proxy_route *route)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    host->routes = mem_realloc(host->routes, host->n + 1, sizeof(*host->routes));
    host->routes[host->n++] = route;
}

static enum err build_routes(struct proxy_snapshot *s, struct diag *d)
{
    size_t i = 0;

    s->hosts = map_new();
    s->all = MEM_NEW(struct proxy_host);
    s->n_routes = s->config->n_routes;
    s->routes = mem_array(s->n_routes, sizeof(*s->routes));
    for (i = 0; i < s->n_routes; i++) {
        const struct config_route *c = &s->config->routes[i];
        struct proxy_host *host = s->all;
        enum err err = route_init(&s->routes[i], c, d);

        if (err != ERR_OK) {
            return err;
        }
        if (!c->wildcard) {
            host = map_get(s->hosts, c->host);
            if (host == NULL) {
                host = MEM_NEW(struct proxy_host);
                (void)map_set(s->hosts, c->host, host);
            }
        }
        host_add(host, &s->routes[i]);
    }
    return ERR_OK;
}

static struct proxy_route *first_fit(const struct proxy_host *host, struct sv name, uint16_t port,
                                     struct sv path)
{
    size_t i = 0;

    for (i = 0; host != NULL && i < host->n; i++) {
        struct proxy_route *route = host->routes[i];

        if ((route->config->port == 0 || route->config->port == port) &&
            (!route->config->wildcard || config_route_has_host(route->config, name)) &&
            path_fits(route, path)) {
            return route;
        }
    }
    return NULL;
}

static bool serves_port(const struct proxy_host *host, uint16_t port)
{
    size_t i = 0;

    for (i = 0; host != NULL && i < host->n; i++) {
        if (host->routes[i]->config->port == 0 || host->routes[i]->config->port == port) {
            return true;
        }
    }
    return false;
}

/* A host with routes of its own is served by those alone, as in Pomerium: what they leave out must
 * not become reachable because somebody wrote a route for every host. */
static struct proxy_route *find(const struct proxy_snapshot *s, struct sv host, uint16_t port,
                                struct sv path)
{
    const struct proxy_host *own = map_get(s->hosts, host);

    return first_fit(serves_port(own, port) ? own : s->all, host, port, path);
}

/* The path as servers read it that cut ";parameters" off every segment. */
static struct sv without_params(struct sv path, char *out)
{
    size_t n = 0;
    size_t i = 0;
    bool skip = false;

    for (i = 0; i < path.n; i++) {
        if (path.p[i] == ';' || path.p[i] == '/') {
            skip = path.p[i] == ';';
        }
        if (!skip) {
            out[n++] = path.p[i];
        }
    }
    return sv_of(out, n);
}

struct proxy_route *proxy_snapshot_route(struct proxy_snapshot *snapshot, struct sv host,
                                         uint16_t port, struct sv decoded, bool *unclear_out)
{
    struct proxy_route *route = NULL;

    regex_gave_up = false;
    route = find(snapshot, host, port, decoded);
    *unclear_out = regex_gave_up;
    if (!*unclear_out && route != NULL && sv_find(decoded, ';') != SIZE_MAX) {
        char *room = mem_alloc(decoded.n);

        *unclear_out =
            find(snapshot, host, port, without_params(decoded, room)) != route || regex_gave_up;
        mem_free(&room);
    }
    return *unclear_out ? NULL : route;
}

bool proxy_snapshot_has_host(const struct proxy_snapshot *snapshot, struct sv host)
{
    size_t i = 0;

    if (map_get(snapshot->hosts, host) != NULL) {
        return true;
    }
    for (i = 0; i < snapshot->all->n; i++) {
        if (config_route_has_host(snapshot->all->routes[i]->config, host)) {
            return true;
        }
    }
    return false;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static enum err build_names(struct proxy_snapshot *s)
{
    enum err err = ERR_OK;
    size_t i = 0;

    s->ours = http_name_set_new();
    err = http_name_set_add_prefix(s->ours, SV("x-pomerium-"));
    if (err == ERR_OK) {
        err = http_name_set_add_prefix(s->ours, SV("x-forwarded-"));
    }
    for (i = 0; i < ARRAY_LEN(our_names) && err == ERR_OK; i++) {
        err = http_name_set_add(s->ours, sv_from(our_names[i]));
    }
    for (i = 0; i < s->config->jwt_claims_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(s->ours, s->config->jwt_claims_headers.v[i].name);
    }
    (void)snprintf(s->cookie_name, sizeof(s->cookie_name), "__Host-%s", s->config->cookie_name.p);
    (void)snprintf(s->login_name, sizeof(s->login_name), "%s_login", s->cookie_name);
    s->cookies.exact[0] = sv_from(s->cookie_name);
    s->cookies.exact[1] = s->config->cookie_name;
    s->cookies.n_exact = 2;
    s->cookies.prefix[0] = sv_from(s->cookie_name);
    s->cookies.n_prefix = 1;
    return err;
}

static void build_rules(struct proxy_snapshot *s)
{
    static const enum http_escaped_slashes slashes[] = {
        [CONFIG_SLASHES_REJECT] = HTTP_SLASH_REJECT,
        [CONFIG_SLASHES_KEEP] = HTTP_SLASH_KEEP,
        [CONFIG_SLASHES_UNESCAPE_REDIRECT] = HTTP_SLASH_UNESCAPE_REDIRECT,
        [CONFIG_SLASHES_UNESCAPE_FORWARD] = HTTP_SLASH_UNESCAPE_FORWARD,
    };

    static const enum http_underscores underscores[] = {
        [CONFIG_UNDERSCORES_REJECT] = HTTP_UNDERSCORE_REJECT,
        [CONFIG_UNDERSCORES_ALLOW] = HTTP_UNDERSCORE_ALLOW,
        [CONFIG_UNDERSCORES_DROP] = HTTP_UNDERSCORE_DROP,
    };
    const struct config *c = s->config;

    s->canon = (struct http_canon_rules){
        .keep_dot_segments = !c->normalize_path,
        .keep_double_slashes = !c->merge_slashes,
        .escaped_slashes = slashes[c->path_with_escaped_slashes_action],
    };
    s->head = (struct http_rules){ .underscores = underscores[c->headers_with_underscores_action] };
}

static enum err build_authenticate(struct proxy_snapshot *s, struct diag *d)
{
    const struct config *c = s->config;

    if (c->authenticate_service_url.scheme == CONFIG_SCHEME_NONE) {
        return ERR_OK;
    }
    (void)snprintf(s->authenticate_host, sizeof(s->authenticate_host), "%s",
                   c->authenticate_service_url.host.p);
    s->authenticate.targets = MEM_NEW(struct proxy_target);
    s->authenticate.n_targets = 1;
    return target_init(s->authenticate.targets, &c->authenticate_internal_url, NULL, d);
}

enum err proxy_snapshot_new(const struct config *config, struct proxy_snapshot **snapshot_out,
                            struct diag *d)
{
    CLEANUP(proxy_snapshot_unref) struct proxy_snapshot *s = MEM_NEW(struct proxy_snapshot);
    enum err err = ERR_OK;

    s->refs = 1;
    s->config = config_ref(config);
    build_rules(s);
    err = build_names(s);
    err = err != ERR_OK ? err : build_routes(s, d);
    err = err != ERR_OK ? err : build_authenticate(s, d);
    err = err != ERR_OK ? err : proxy_tls_build(s, d);
    if (err == ERR_OK && config->signing_key != NULL) {
        err = assertion_keys_of_pem(secret_bytes(config->signing_key), &s->assertion, d);
    } else if (err == ERR_OK) {
        err = assertion_keys_of_shared(config->keys, &s->assertion);
    }
    if (err != ERR_OK) {
        diag_set(d, "the configuration cannot be used: %s", err_name(err));
        return err;
    }
    *snapshot_out = TAKE(s);
    return ERR_OK;
}

struct proxy_snapshot *proxy_snapshot_ref(struct proxy_snapshot *snapshot)
{
    (void)__atomic_add_fetch(&snapshot->refs, 1, __ATOMIC_RELAXED);
    return snapshot;
}

static void free_host(struct sv key, void *value, void *arg)
{
    struct proxy_host *host = value;

    (void)key;
    (void)arg;
    mem_free(&host->routes);
    mem_free(&host);
}

static void snapshot_free(void *arg)
{
    struct proxy_snapshot *s = arg;
    size_t i = 0;

    if (s->hosts != NULL) {
        map_each(s->hosts, free_host, NULL);
        map_free(&s->hosts);
        free_host((struct sv){ 0 }, s->all, NULL);
    }
    for (i = 0; s->routes != NULL && i < s->n_routes; i++) {
        route_deinit(&s->routes[i]);
    }
    mem_free(&s->routes);
    route_deinit(&s->authenticate);
    proxy_tls_drop(s);
    http_name_set_free(&s->ours);
    assertion_keys_free(&s->assertion);
    config_unref(&s->config);
    mem_free(&s);
}

void proxy_snapshot_unref(struct proxy_snapshot **snapshot)
{
    struct proxy_snapshot *s = TAKE(*snapshot);

    if (s == NULL || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    if (s->home != NULL && !loop_is_mine(s->home)) {
        loop_post(s->home, snapshot_free, s);
    } else {
        snapshot_free(s);
    }
}
