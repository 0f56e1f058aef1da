#include "proxy/snapshot.h"

#include <stdio.h>
#include <string.h>

#include "common/map.h"
#include "common/mem.h"
#include "common/route/settle.h"
#include "proxy/emit.h"
#include "proxy/pipe.h"
#include "proxy/tls.h"

/* Request fields that we alone may tell an upstream. */
static const char *const our_names[] = {
    "forwarded",      "x-real-ip",     "x-client-ip",
    "true-client-ip", "client-ip",     "x-cluster-client-ip",
    "proxy",          "x-request-id",  "x-envoy-external-address",
    "x-original-url", "x-rewrite-url", "x-original-host",
    "x-remote-user",  "remote-user",
};

/* ---- clusters -------------------------------------------------------------------------------- */

static enum err route_cluster(struct proxy_clusters *clusters, struct proxy_route *route,
                              struct diag *d)
{
    const struct config_route *c = route->config;
    const struct config_url **urls = NULL;
    uint32_t *weights = NULL;
    enum err err = ERR_OK;
    size_t i = 0;

    if (c->n_upstreams == 0) {
        return ERR_OK;
    }
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    urls = mem_array(c->n_upstreams, sizeof(*urls));
    weights = mem_array(c->n_upstreams, sizeof(*weights));
    for (i = 0; i < c->n_upstreams; i++) {
        urls[i] = &c->upstreams[i].url;
        weights[i] = c->upstreams[i].weight;
    }
    err = proxy_clusters_make(clusters,
                              &(struct proxy_cluster_opts){ .id = c->id,
                                                            .id_text = c->id_text,
                                                            .urls = urls,
                                                            .weights = weights,
                                                            .n = c->n_upstreams,
                                                            .conf = &c->cluster,
                                                            .route = c },
                              &route->cluster, d);
    mem_free(&urls);
    mem_free(&weights);
    return err;
}

/* ---- routes ---------------------------------------------------------------------------------- */

/* Request fields that the route sets, removes or speaks for. */
static enum err names_of_route(struct proxy_route *route)
{
    const struct config_route *c = route->config;
    enum err err = ERR_OK;
    size_t i = 0;

    if (c->set_request_headers.n + c->remove_request_headers.n == 0 && !c->kubernetes) {
        return ERR_OK; /* a set takes a kilobyte, and most of 10,000 routes need none */
    }
    route->drop = http_name_set_new();
    for (i = 0; i < c->set_request_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(route->drop, c->set_request_headers.v[i].name);
    }
    for (i = 0; i < c->remove_request_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(route->drop, c->remove_request_headers.v[i]);
    }
    if (c->kubernetes && err == ERR_OK) { /* who acts is ours to say, and by which right */
        err = http_name_set_add_prefix(route->drop, SV("impersonate-"));
        err = err != ERR_OK ? err : http_name_set_add(route->drop, SV("authorization"));
    }
    return err;
}

static void answers_free(struct proxy_answer_rules **answers)
{
    struct proxy_answer_rules *s = TAKE(*answers);

    if (s != NULL) {
        http_name_set_free(&s->drop);
        buf_deinit(&s->lines);
        mem_free(&s);
    }
}

static enum err answers_new(const struct config_pairs *set, struct proxy_answer_rules **answers_out)
{
    struct proxy_answer_rules *s = MEM_NEW(struct proxy_answer_rules);
    struct proxy_emit e;
    enum err err = ERR_OK;

    s->set = set;
    s->drop = http_name_set_new();
    buf_init(&s->lines, PROXY_HEAD_OUT_MAX);
    proxy_emit_h1(&e, &s->lines);
    for (size_t i = 0; i < set->n && err == ERR_OK; i++) {
        proxy_emit_field(&e, set->v[i].name, set->v[i].value);
        err = e.failed ? ERR_INVALID : http_name_set_add(s->drop, set->v[i].name);
    }
    *answers_out = s;
    return err != ERR_OK ? err : s->lines.err;
}

static bool has_own_answers(const struct proxy_snapshot *s, const struct config_route *c)
{
    return c->set_response_headers.v != s->config->set_response_headers.v;
}

static enum err route_init(struct proxy_snapshot *s, struct proxy_route *route,
                           const struct config_route *c, struct proxy_clusters *clusters,
                           struct diag *d)
{
    enum err err = ERR_OK;

    route->config = c;
    err = route_cluster(clusters, route, d);
    if (c->regex != NULL) {
        pattern_prepare(c->regex);
    }
    err = err != ERR_OK ? err : names_of_route(route);
    route->answers = s->answers;
    if (err == ERR_OK && has_own_answers(s, c)) {
        err = answers_new(&c->set_response_headers, &route->answers);
    }
    if (err != ERR_OK) {
        diag_set(d, "the route cannot be used");
        diag_at(d, c->file, c->line, c->column);
    }
    return err;
}

static void route_deinit(struct proxy_snapshot *s, struct proxy_route *route)
{
    proxy_cluster_unref(&route->cluster);
    http_name_set_free(&route->drop);
    if (route->answers != s->answers) {
        answers_free(&route->answers);
    }
}

static enum err build_routes(struct proxy_snapshot *s, struct proxy_clusters *clusters,
                             struct diag *d)
{
    enum err err = answers_new(&s->config->set_response_headers, &s->answers);
    size_t i = 0;

    if (err != ERR_OK) {
        return err;
    }
    s->n_routes = s->config->n_routes;
    s->routes = mem_array(s->n_routes, sizeof(*s->routes));
    for (i = 0; i < s->n_routes; i++) {
        err = route_init(s, &s->routes[i], &s->config->routes[i], clusters, d);

        if (err != ERR_OK) {
            return err;
        }
    }
    s->table = route_table_new(s->config->routes, s->n_routes);
    return ERR_OK;
}

/* ---- client certificates --------------------------------------------------------------------- */

/* The trust for ca, made once. */
static enum err trust_for(struct proxy_snapshot *s, struct sv ca, struct map *known,
                          struct proxy_trust **trust_out, struct diag *d)
{
    enum err err = ERR_OK;

    *trust_out = map_get(known, ca);
    if (*trust_out != NULL) {
        return ERR_OK;
    }
    err = proxy_trust_new(&s->config->downstream_mtls, ca, trust_out, d);
    if (err == ERR_OK) {
        (void)map_set(known, ca, *trust_out);
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        s->trusts = mem_realloc(s->trusts, s->n_trusts + 1, sizeof(*s->trusts));
        s->trusts[s->n_trusts++] = *trust_out;
    }
    return err;
}

static enum err build_trusts(struct proxy_snapshot *s, struct diag *d)
{
    const struct config_mtls *mtls = &s->config->downstream_mtls;
    struct map *known = map_new();
    enum err err = mtls->ca.n == 0 ? ERR_OK : trust_for(s, mtls->ca, known, &s->trust, d);
    size_t i = 0;

    for (i = 0; i < s->n_routes && err == ERR_OK; i++) {
        struct proxy_route *route = &s->routes[i];

        route->trust = s->trust;
        if (route->config->client_ca.n != 0) {
            err = trust_for(s, route->config->client_ca, known, &route->trust, d);
            if (err != ERR_OK) {
                diag_at(d, route->config->file, route->config->line, route->config->column);
            }
        }
    }
    map_free(&known);
    return err;
}

struct trusts {
    const struct proxy_snapshot *snapshot;
    uint64_t set;
};

static void add_trust(const struct config_route *config, void *arg)
{
    struct trusts *t = arg;
    const struct proxy_route *route = proxy_snapshot_route(t->snapshot, config);
    size_t i = 0;

    for (i = 0; i < t->snapshot->n_trusts; i++) {
        t->set |= t->snapshot->trusts[i] == route->trust ? UINT64_C(1) << (i % 64) : 0;
    }
}

uint64_t proxy_snapshot_trusts_of(const struct proxy_snapshot *snapshot, struct sv host)
{
    struct trusts t = { .snapshot = snapshot };

    route_table_each(snapshot->table, host, add_trust, &t);
    return t.set;
}

const struct proxy_route *proxy_snapshot_same_route(const struct proxy_snapshot *snapshot,
                                                    const struct proxy_route *route)
{
    const struct config_route *c = config_route_by_id(snapshot->config, route->config->id);

    return c == NULL ? NULL : &snapshot->routes[c->index];
}

/* ---- https ----------------------------------------------------------------------------------- */

struct first {
    const struct route_table *table;
    const struct config_route *route; /* NULL: none yet */
};

static void take_first(const struct config_route *route, void *arg)
{
    struct first *first = arg;

    if (first->route == NULL ||
        route_table_rank(first->table, route) < route_table_rank(first->table, first->route)) {
        first->route = route;
    }
}

bool proxy_snapshot_https_port(const struct proxy_snapshot *snapshot, struct sv host,
                               uint16_t *port_out)
{
    const struct config_url *login = &snapshot->config->authenticate_service_url;
    struct first first = { .table = snapshot->table };

    if (login->scheme != CONFIG_SCHEME_NONE && sv_eq(login->host, host)) {
        *port_out = login->port_given ? login->port : 0;
        return true;
    }
    route_table_each(snapshot->table, host, take_first, &first);
    *port_out = first.route == NULL ? 0 : first.route->port;
    return first.route != NULL;
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
    http_session_cookies_init(&s->cookies, s->config->cookie_name);
    return err;
}

static enum err build_authenticate(struct proxy_snapshot *s, struct proxy_clusters *clusters,
                                   struct diag *d)
{
    /* Ours: its own limits hold. */
    static const struct config_cluster unbounded = { .limits = { UINT32_MAX, UINT32_MAX, UINT32_MAX,
                                                                 UINT32_MAX } };
    const struct config *c = s->config;

    if (c->authenticate_service_url.scheme == CONFIG_SCHEME_NONE) {
        return ERR_OK;
    }
    (void)snprintf(s->authenticate_host, sizeof(s->authenticate_host), "%s",
                   c->authenticate_service_url.host.p);
    return proxy_clusters_make(
        clusters,
        &(struct proxy_cluster_opts){
            .id = 0,
            .id_text = SV("authenticate"),
            .urls = (const struct config_url *[]){ &c->authenticate_internal_url },
            .weights = (const uint32_t[]){ 1 },
            .n = 1,
            .conf = &unbounded },
        &s->authenticate.cluster, d);
}

enum err proxy_snapshot_new(const struct config *config, struct proxy_clusters *clusters,
                            struct proxy_snapshot **snapshot_out, struct diag *d)
{
    CLEANUP(proxy_snapshot_unref) struct proxy_snapshot *s = MEM_NEW(struct proxy_snapshot);
    enum err err = ERR_OK;

    s->refs = 1;
    s->config = config_ref(config);
    route_settle_rules(config, &s->canon, &s->head);
    err = build_names(s);
    err = err != ERR_OK ? err : build_routes(s, clusters, d);
    err = err != ERR_OK ? err : build_trusts(s, d);
    err = err != ERR_OK ? err : build_authenticate(s, clusters, d);
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

void proxy_snapshot_commit(const struct proxy_snapshot *snapshot, struct proxy_clusters *clusters)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    struct proxy_cluster **list = mem_array(snapshot->n_routes + 1, sizeof(*list));
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < snapshot->n_routes; i++) {
        if (snapshot->routes[i].cluster != NULL) {
            list[n++] = snapshot->routes[i].cluster;
        }
    }
    if (snapshot->authenticate.cluster != NULL) {
        list[n++] = snapshot->authenticate.cluster;
    }
    proxy_clusters_commit(clusters, list, n, &snapshot->config->dns);
    mem_free(&list);
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

    route_table_free(&s->table);
    for (i = 0; s->routes != NULL && i < s->n_routes; i++) {
        route_deinit(s, &s->routes[i]);
    }
    mem_free(&s->routes);
    s->authenticate.answers = s->answers;
    route_deinit(s, &s->authenticate);
    answers_free(&s->answers);
    proxy_tls_drop(s);
    for (i = 0; i < s->n_trusts; i++) {
        proxy_trust_unref(&s->trusts[i]);
    }
    mem_free(&s->trusts);
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
