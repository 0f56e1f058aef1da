#include "proxy/snapshot.h"

#include <stdio.h>
#include <string.h>

#include "common/map.h"
#include "common/mem.h"
#include "proxy/tls.h"

enum { KEY_MAX = 1024 };

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
    (void)snprintf(key, sizeof(key), "%.*s|%s|%d%d|%016llx", SV_ARG(url->text),
                   t->server_name == NULL ? "" : t->server_name, t->verify, url->h2c,
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
    if (c->regex != NULL) {
        pattern_prepare(c->regex);
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
    http_name_set_free(&route->drop);
    http_name_set_free(&route->drop_answer);
}

static enum err build_routes(struct proxy_snapshot *s, struct diag *d)
{
    size_t i = 0;

    s->n_routes = s->config->n_routes;
    s->routes = mem_array(s->n_routes, sizeof(*s->routes));
    for (i = 0; i < s->n_routes; i++) {
        enum err err = route_init(&s->routes[i], &s->config->routes[i], d);

        if (err != ERR_OK) {
            return err;
        }
    }
    s->router = proxy_router_new(s->routes, s->n_routes);
    return ERR_OK;
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

static void snapshot_free(void *arg)
{
    struct proxy_snapshot *s = arg;
    size_t i = 0;

    proxy_router_free(&s->router);
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
