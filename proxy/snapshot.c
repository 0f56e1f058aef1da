#include "proxy/snapshot.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "proxy/tls.h"

/* Request fields that say something about the client or the URL and that upstreams believe: never
 * the client's. x-forwarded-* and x-pomerium-* are prefixes. */
static const char *const spoken_for[] = {
    "forwarded",       "x-real-ip",   "x-request-id",       "x-client-ip",
    "true-client-ip",  "client-ip",   "x-cluster-client-ip", "x-original-forwarded-for",
    "x-original-url",  "x-rewrite-url", "x-original-host",  "x-original-uri",
    "x-host",          "x-http-host-override", "x-envoy-external-address", "proxy"
};

static enum err strip_base(const struct config *config, struct http_name_set *set)
{
    enum err err = http_name_set_add_prefix(set, SV("x-pomerium-"));
    size_t i = 0;

    if (err == ERR_OK) {
        err = http_name_set_add_prefix(set, SV("x-forwarded-"));
    }
    for (i = 0; err == ERR_OK && i < ARRAY_LEN(spoken_for); i++) {
        err = http_name_set_add(set, sv_from(spoken_for[i]));
    }
    for (i = 0; err == ERR_OK && i < config->jwt_claims_headers.n; i++) {
        err = http_name_set_add(set, config->jwt_claims_headers.v[i].name);
    }
    return err;
}

static enum err strip_route(const struct config_route *c, struct http_name_set *set)
{
    enum err err = ERR_OK;
    size_t i = 0;

    for (i = 0; err == ERR_OK && i < c->set_request_headers.n; i++) {
        err = http_name_set_add(set, c->set_request_headers.v[i].name);
    }
    for (i = 0; err == ERR_OK && i < c->remove_request_headers.n; i++) {
        err = http_name_set_add(set, c->remove_request_headers.v[i]);
    }
    return err;
}

static struct sv dup_sv(struct sv s)
{
    return sv_of(mem_svdup(s), s.n);
}

static void endpoint_free(struct proxy_endpoint *e)
{
    char *key = (char *)(uintptr_t)e->key.p;
    char *name = (char *)(uintptr_t)e->name.p;
    char *host = (char *)(uintptr_t)e->host.p;

    SSL_CTX_free(e->ctx);
    mem_free(&key);
    mem_free(&name);
    mem_free(&host);
    mem_free(&e);
}

static struct sv host_field(const struct config_url *url)
{
    CLEANUP(buf_deinit) struct buf b = { 0 };

    buf_init(&b, 512);
    buf_add_sv(&b, url->scheme == CONFIG_SCHEME_UNIX ? SV("localhost") : url->host);
    if (url->scheme != CONFIG_SCHEME_UNIX && url->port != (url->tls ? 443 : 80)) {
        buf_printf(&b, ":%u", url->port);
    }
    return dup_sv(buf_sv(&b));
}

static struct sv unbracket(struct sv host)
{
    return host.n > 2 && host.p[0] == '[' ? sv_of(host.p + 1, host.n - 2) : host;
}

/* Connections of two endpoints are exchangeable when address, name and trust are the same. */
static struct sv endpoint_key(const struct proxy_endpoint *e, const struct config_route *c,
                              uint64_t generation)
{
    CLEANUP(buf_deinit) struct buf b = { 0 };
    const struct config_url *url = e->url;

    buf_init(&b, 8192);
    if (url->scheme == CONFIG_SCHEME_UNIX) {
        buf_add_str(&b, "unix|");
        buf_add_sv(&b, url->socket);
    } else {
        buf_add_str(&b, url->tls ? "tls|" : "tcp|");
        buf_add_sv(&b, url->host);
        buf_printf(&b, "|%u|", url->port);
        buf_add_sv(&b, e->name);
        buf_add_str(&b, e->verify ? "|v" : "|n");
        if (c != NULL && c->tls_custom_ca.n != 0) {
            buf_printf(&b, "|%llu|%016llx", (unsigned long long)generation,
                       (unsigned long long)c->id);
        }
    }
    return dup_sv(buf_sv(&b));
}

/* The system's CAs are read once a snapshot, not once a route. */
static enum err endpoint_ctx(struct proxy_snapshot *s, const struct config_route *c,
                             struct proxy_endpoint *e, struct diag *d)
{
    enum err err = ERR_OK;

    if (c != NULL && c->tls_custom_ca.n != 0 && e->verify) {
        return proxy_tls_client(c->tls_custom_ca, true, &e->ctx, d);
    }
    if (s->client[e->verify] == NULL) {
        err = proxy_tls_client(SV(""), e->verify, &s->client[e->verify], d);
    }
    if (err == ERR_OK) {
        CHECK(SSL_CTX_up_ref(s->client[e->verify]) == 1);
        e->ctx = s->client[e->verify];
    }
    return err;
}

static enum err endpoint_new(struct proxy_snapshot *s, const struct config_route *c,
                             const struct config_upstream *up, struct proxy_endpoint **out,
                             struct diag *d)
{
    struct proxy_endpoint *e = MEM_NEW(struct proxy_endpoint);
    enum err err = ERR_OK;

    e->url = &up->url;
    e->weight = MAX(up->weight, 1U);
    e->verify = c == NULL || !c->tls_skip_verify;
    e->host = host_field(e->url);
    e->name = dup_sv(c != NULL && c->tls_upstream_server_name.n != 0 ? c->tls_upstream_server_name
                                                                       : unbracket(e->url->host));
    e->key = endpoint_key(e, c, s->generation);
    if (e->url->tls) {
        err = endpoint_ctx(s, c, e, d);
    }
    if (err != ERR_OK) {
        endpoint_free(e);
        return err;
    }
    *out = e;
    return ERR_OK;
}

static enum err route_init(struct proxy_snapshot *s, const struct config_route *c,
                           struct proxy_route *route, struct diag *d)
{
    enum err err = ERR_OK;
    size_t i = 0;

    route->config = c;
    route->index = c->index;
    route->strip = http_name_set_new();
    route->replace = http_name_set_new();
    err = strip_base(s->config, route->strip);
    if (err == ERR_OK) {
        err = strip_route(c, route->strip);
    }
    for (i = 0; err == ERR_OK && i < c->set_response_headers.n; i++) {
        err = http_name_set_add(route->replace, c->set_response_headers.v[i].name);
    }
    if (err != ERR_OK) {
        diag_set(d, "route %.*s: too many or bad header names", SV_ARG(c->from));
        return err;
    }
    route->endpoints = mem_array(c->n_upstreams, sizeof(*route->endpoints));
    for (i = 0; err == ERR_OK && i < c->n_upstreams; i++) {
        err = endpoint_new(s, c, &c->upstreams[i], &route->endpoints[i], d);
        route->n_endpoints += err == ERR_OK ? 1 : 0;
    }
    return err;
}

static void route_deinit(struct proxy_route *route)
{
    size_t i = 0;

    for (i = 0; i < route->n_endpoints; i++) {
        endpoint_free(route->endpoints[i]);
    }
    mem_free(&route->endpoints);
    http_name_set_free(&route->strip);
    http_name_set_free(&route->replace);
}

static struct sv authority_of(const struct config_url *url)
{
    CLEANUP(buf_deinit) struct buf b = { 0 };

    buf_init(&b, 512);
    buf_add_sv(&b, url->host);
    if (url->port_given) {
        buf_printf(&b, ":%u", url->port);
    }
    return dup_sv(buf_sv(&b));
}

static enum err authenticate_init(struct proxy_snapshot *s, struct diag *d)
{
    struct proxy_route *route = &s->routes[s->n_routes];
    struct config_upstream up = { .url = s->config->authenticate_internal_url, .weight = 1 };
    enum err err = ERR_OK;

    if (s->config->authenticate_service_url.scheme == CONFIG_SCHEME_NONE) {
        return ERR_OK;
    }
    s->authenticate_authority = authority_of(&s->config->authenticate_service_url);
    route->authenticate = true;
    route->index = SIZE_MAX;
    route->strip = http_name_set_new();
    route->endpoints = mem_array(1, sizeof(*route->endpoints));
    s->authenticate = route;
    err = strip_base(s->config, route->strip);
    if (err == ERR_OK) {
        err = endpoint_new(s, NULL, &up, &route->endpoints[0], d);
    }
    if (err != ERR_OK) {
        return err;
    }
    route->endpoints[0]->url = &s->config->authenticate_internal_url; /* not the local copy */
    route->n_endpoints = 1;
    return ERR_OK;
}

static enum err assertion_init(struct proxy_snapshot *s, struct diag *d)
{
    if (s->config->signing_key != NULL) {
        return assertion_keys_of_pem(secret_bytes(s->config->signing_key), &s->assertion, d);
    }
    return assertion_keys_of_shared(s->config->keys, &s->assertion);
}

static void rules_init(struct proxy_snapshot *s)
{
    const struct config *c = s->config;

    s->request_rules = (struct http_rules){
        .underscores = c->headers_with_underscores_action == CONFIG_UNDERSCORES_ALLOW
                           ? HTTP_UNDERSCORE_ALLOW
                           : (c->headers_with_underscores_action == CONFIG_UNDERSCORES_DROP
                                  ? HTTP_UNDERSCORE_DROP
                                  : HTTP_UNDERSCORE_REJECT),
    };
    s->response_rules = (struct http_rules){ .underscores = HTTP_UNDERSCORE_ALLOW };
    s->canon = (struct http_canon_rules){
        .keep_dot_segments = !c->normalize_path,
        .keep_double_slashes = !c->merge_slashes,
    };
    switch (c->path_with_escaped_slashes_action) {
    case CONFIG_SLASHES_REJECT:
        s->canon.escaped_slashes = HTTP_SLASH_REJECT;
        break;
    case CONFIG_SLASHES_KEEP:
        s->canon.escaped_slashes = HTTP_SLASH_KEEP;
        break;
    case CONFIG_SLASHES_UNESCAPE_REDIRECT:
        s->canon.escaped_slashes = HTTP_SLASH_UNESCAPE_REDIRECT;
        break;
    case CONFIG_SLASHES_UNESCAPE_FORWARD:
        s->canon.escaped_slashes = HTTP_SLASH_UNESCAPE_FORWARD;
        break;
    }
    (void)snprintf(s->cookie_handle, sizeof(s->cookie_handle), "__Host-%.*s",
                   SV_ARG(c->cookie_name));
    (void)snprintf(s->cookie_login, sizeof(s->cookie_login), "__Host-%.*s_login",
                   SV_ARG(c->cookie_name));
    s->cookies.exact[0] = c->cookie_name;
    s->cookies.prefix[0] = sv_from(s->cookie_handle);
    s->cookies.n_exact = 1;
    s->cookies.n_prefix = 1;
}

enum err proxy_snapshot_new(const struct config *config, uint64_t generation,
                            struct proxy_snapshot **snapshot_out, struct diag *d)
{
    CLEANUP(proxy_snapshot_unref) struct proxy_snapshot *s = MEM_NEW(struct proxy_snapshot);
    enum err err = ERR_OK;
    size_t i = 0;

    s->refs = 1;
    s->generation = generation;
    s->config = config_ref(config);
    s->n_routes = config->n_routes;
    s->routes = mem_array(s->n_routes + 1, sizeof(*s->routes));
    if (config->cookie_name.n > 64) {
        diag_set(d, "cookie_name is longer than 64 bytes");
        return ERR_INVALID;
    }
    rules_init(s);
    for (i = 0; err == ERR_OK && i < s->n_routes; i++) {
        err = route_init(s, &config->routes[i], &s->routes[i], d);
    }
    if (err == ERR_OK) {
        err = authenticate_init(s, d);
    }
    if (err == ERR_OK) {
        err = proxy_router_new(s->routes, s->n_routes, &s->router, d);
    }
    if (err == ERR_OK) {
        err = assertion_init(s, d);
    }
    if (err == ERR_OK && !config->insecure_server) {
        err = proxy_tls_server(config, &s->server, &s->certs, d);
    }
    if (err != ERR_OK) {
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

void proxy_snapshot_unref(struct proxy_snapshot **snapshot)
{
    struct proxy_snapshot *s = TAKE(*snapshot);
    char *authority = NULL;
    size_t i = 0;

    if (s == NULL || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    proxy_router_free(&s->router);
    for (i = 0; i <= s->n_routes; i++) {
        route_deinit(&s->routes[i]);
    }
    mem_free(&s->routes);
    authority = (char *)(uintptr_t)s->authenticate_authority.p;
    mem_free(&authority);
    SSL_CTX_free(s->client[0]);
    SSL_CTX_free(s->client[1]);
    proxy_tls_certs_free(&s->certs);
    assertion_keys_free(&s->assertion);
    config_unref(&s->config);
    mem_free(&s);
}

struct proxy_epoch *proxy_epoch_new(struct proxy_snapshot *snapshot)
{
    struct proxy_epoch *e = MEM_NEW(struct proxy_epoch);

    e->snapshot = snapshot;
    e->refs = 1;
    return e;
}

struct proxy_epoch *proxy_epoch_ref(struct proxy_epoch *epoch)
{
    epoch->refs++;
    return epoch;
}

void proxy_epoch_unref(struct proxy_epoch **epoch)
{
    struct proxy_epoch *e = TAKE(*epoch);

    if (e == NULL || --e->refs != 0) {
        return;
    }
    proxy_snapshot_unref(&e->snapshot);
    mem_free(&e);
}
