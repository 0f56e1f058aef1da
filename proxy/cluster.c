#include "proxy/cluster.h"

#include <string.h>

#include "common/map.h"
#include "common/mem.h"
#include "common/rand.h"
#include "proxy/watch.h"

struct proxy_clusters {
    struct proxy_watch_room room;
    struct map *in_force; /* 8 bytes of id → struct proxy_cluster, with a reference */
};

/* ---- what a cluster is made of --------------------------------------------------------------- */

static bool same_texts(const struct config_strings *a, const struct config_strings *b)
{
    size_t i = 0;

    for (i = 0; i < a->n && a->n == b->n; i++) {
        if (!sv_eq(a->v[i], b->v[i])) {
            return false;
        }
    }
    return a->n == b->n;
}

static bool same_check(const struct config_health_check *a, const struct config_health_check *b)
{
    size_t i = 0;

    for (i = 0; i < a->n_statuses && a->n_statuses == b->n_statuses; i++) {
        if (a->statuses[i].first != b->statuses[i].first ||
            a->statuses[i].last != b->statuses[i].last) {
            return false;
        }
    }
    return a->kind == b->kind && a->timeout_ms == b->timeout_ms &&
           a->interval_ms == b->interval_ms && a->initial_jitter_ms == b->initial_jitter_ms &&
           a->interval_jitter_ms == b->interval_jitter_ms &&
           a->interval_jitter_percent == b->interval_jitter_percent &&
           a->unhealthy_threshold == b->unhealthy_threshold &&
           a->healthy_threshold == b->healthy_threshold && sv_eq(a->host, b->host) &&
           sv_eq(a->path, b->path) && a->codec == b->codec && a->n_statuses == b->n_statuses &&
           sv_eq(a->service, b->service) && sv_eq(a->send, b->send) &&
           same_texts(&a->receive, &b->receive);
}

static bool same_outlier(const struct config_outlier *a, const struct config_outlier *b)
{
    return a->on == b->on && a->consecutive_5xx == b->consecutive_5xx &&
           a->consecutive_gateway_failure == b->consecutive_gateway_failure &&
           a->enforcing_consecutive_5xx == b->enforcing_consecutive_5xx &&
           a->enforcing_consecutive_gateway_failure == b->enforcing_consecutive_gateway_failure &&
           a->interval_ms == b->interval_ms && a->base_ejection_ms == b->base_ejection_ms &&
           a->max_ejection_ms == b->max_ejection_ms &&
           a->max_ejection_jitter_ms == b->max_ejection_jitter_ms &&
           a->max_ejection_percent == b->max_ejection_percent;
}

static bool same_limits(const struct config_limits *a, const struct config_limits *b)
{
    return a->max_connections == b->max_connections &&
           a->max_pending_requests == b->max_pending_requests &&
           a->max_requests == b->max_requests && a->max_retries == b->max_retries;
}

static bool same_conf(const struct config_cluster *a, const struct config_cluster *b)
{
    size_t i = 0;

    for (i = 0; i < a->n_checks && a->n_checks == b->n_checks; i++) {
        if (!same_check(&a->checks[i], &b->checks[i])) {
            return false;
        }
    }
    return a->n_checks == b->n_checks && a->policy == b->policy &&
           a->choice_count == b->choice_count && a->minimum_ring_size == b->minimum_ring_size &&
           a->maximum_ring_size == b->maximum_ring_size && a->table_size == b->table_size &&
           a->healthy_panic_threshold == b->healthy_panic_threshold &&
           same_outlier(&a->outlier, &b->outlier) && same_limits(&a->limits, &b->limits);
}

/* Nothing about its whole route has changed. */
static bool is_of_edition(const struct proxy_cluster *cluster,
                          const struct proxy_cluster_opts *opts)
{
    return opts->route != NULL && cluster->edition != 0 && cluster->edition == opts->route->edition;
}

/* Nothing about it has changed. */
static bool is_made_of(const struct proxy_cluster *cluster, const struct proxy_cluster_opts *opts)
{
    char key[PROXY_TARGET_KEY_MAX];
    size_t i = 0;

    if (proxy_watch_sources(cluster->watch) != opts->n || !same_conf(&cluster->conf, opts->conf)) {
        return false;
    }
    for (i = 0; i < opts->n; i++) {
        proxy_target_key(opts->urls[i], opts->route, key);
        if (!proxy_watch_has(cluster->watch, i, key, opts->weights[i])) {
            return false;
        }
    }
    return true;
}

static void keep(struct arena *arena, struct sv *text)
{
    if (text->p != NULL) {
        *text = sv_of(arena_str(arena, *text), text->n);
    }
}

static void *keep_array(struct arena *arena, const void *p, size_t n, size_t size)
{
    void *copy = n == 0 ? NULL : arena_alloc(arena, n * size);

    if (n != 0) {
        memcpy(copy, p, n * size);
    }
    return copy;
}

/* The configuration may go before the cluster does. */
static void copy_conf(struct proxy_cluster *c, const struct config_cluster *conf)
{
    size_t i = 0;
    size_t k = 0;

    c->conf = *conf;
    c->conf.checks = keep_array(&c->texts, conf->checks, conf->n_checks, sizeof(*conf->checks));
    for (i = 0; i < conf->n_checks; i++) {
        struct config_health_check *check = &c->conf.checks[i];

        keep(&c->texts, &check->host);
        keep(&c->texts, &check->path);
        keep(&c->texts, &check->service);
        keep(&c->texts, &check->send);
        check->statuses =
            keep_array(&c->texts, check->statuses, check->n_statuses, sizeof(*check->statuses));
        check->receive.v =
            keep_array(&c->texts, check->receive.v, check->receive.n, sizeof(struct sv));
        for (k = 0; k < check->receive.n; k++) {
            keep(&c->texts, &check->receive.v[k]);
        }
    }
}

/* ---- one ------------------------------------------------------------------------------------- */

struct proxy_cluster *proxy_cluster_ref(struct proxy_cluster *cluster)
{
    (void)__atomic_add_fetch(&cluster->refs, 1, __ATOMIC_RELAXED);
    return cluster;
}

void proxy_cluster_unref(struct proxy_cluster **cluster)
{
    struct proxy_cluster *c = TAKE(*cluster);
    unsigned i = 0;

    if (c == NULL || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    for (i = 0; i < c->n_views; i++) {
        proxy_table_unref(&c->views[i].table);
    }
    mem_free(&c->views);
    proxy_watch_free(&c->watch);
    arena_deinit(&c->texts);
    mem_free(&c);
}

static struct proxy_cluster *cluster_new(const struct proxy_clusters *clusters,
                                         const struct proxy_cluster_opts *opts)
{
    struct proxy_cluster *c = mem_aligned_array(1, sizeof(*c), PROXY_CACHE_LINE);
    unsigned i = 0;

    c->refs = 1;
    c->id = opts->id;
    c->edition = opts->route == NULL ? 0 : opts->route->edition;
    c->main = clusters == NULL ? NULL : clusters->room.loop;
    c->n_views = clusters == NULL ? 1 : clusters->room.n_workers;
    arena_init(&c->texts);
    c->id_text = sv_of(arena_str(&c->texts, opts->id_text), opts->id_text.n);
    copy_conf(c, opts->conf);
    c->views = mem_aligned_array(c->n_views, sizeof(*c->views), PROXY_CACHE_LINE);
    for (i = 0; i < c->n_views; i++) {
        c->views[i].cursor.random = rand_u64() | 1;
        c->views[i].cursor.turn = (uint32_t)rand_u64();
        list_init(&c->views[i].waiting);
        list_init(&c->views[i].idle);
    }
    return c;
}

struct report {
    struct proxy_cluster *cluster;
    struct proxy_endpoint *endpoint;
    enum proxy_outlier_rule rule;
};

static void take_report(void *arg)
{
    struct report *r = arg;

    proxy_watch_eject(r->cluster->watch, r->endpoint, r->rule);
    proxy_endpoint_unref(&r->endpoint);
    proxy_cluster_unref(&r->cluster);
    mem_free(&r);
}

void proxy_cluster_report(struct proxy_cluster *cluster, struct proxy_endpoint *endpoint,
                          enum proxy_outlier_rule rule)
{
    struct report *r = NULL;

    if (cluster->main == NULL || rule == PROXY_OUTLIER_NONE) {
        return;
    }
    r = MEM_NEW(struct report);
    r->cluster = proxy_cluster_ref(cluster);
    r->endpoint = proxy_endpoint_ref(endpoint);
    r->rule = rule;
    loop_post(cluster->main, take_report, r);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static struct proxy_cluster *find(const struct proxy_clusters *clusters, uint64_t id)
{
    return clusters == NULL ? NULL : map_get(clusters->in_force, sv_of(&id, sizeof(id)));
}

static enum err make_sources(const struct proxy_cluster_opts *opts, const struct proxy_cluster *old,
                             struct proxy_source_opts *sources, struct diag *d)
{
    char key[PROXY_TARGET_KEY_MAX];
    enum err err = ERR_OK;
    size_t i = 0;

    for (i = 0; i < opts->n && err == ERR_OK; i++) {
        struct proxy_target *known = NULL;

        proxy_target_key(opts->urls[i], opts->route, key);
        known = old == NULL ? NULL : proxy_watch_target(old->watch, key);
        sources[i].weight = opts->weights[i];
        if (known != NULL) {
            sources[i].target = proxy_target_ref(known);
        } else {
            err = proxy_target_new(opts->urls[i], opts->route, &sources[i].target, d);
        }
    }
    for (i = 0; err != ERR_OK && i < opts->n; i++) {
        proxy_target_unref(&sources[i].target);
    }
    return err;
}

enum err proxy_clusters_make(struct proxy_clusters *clusters, const struct proxy_cluster_opts *opts,
                             struct proxy_cluster **cluster_out, struct diag *d)
{
    CLEANUP(mem_free) struct proxy_source_opts *sources = mem_array(opts->n, sizeof(*sources));
    struct proxy_cluster *old = find(clusters, opts->id);
    enum err err = ERR_OK;

    if (old != NULL && (is_of_edition(old, opts) || is_made_of(old, opts))) {
        *cluster_out = proxy_cluster_ref(old);
        return ERR_OK;
    }
    err = make_sources(opts, old, sources, d);
    if (err != ERR_OK) {
        return err;
    }
    *cluster_out = cluster_new(clusters, opts);
    (*cluster_out)->watch = proxy_watch_new(
        *cluster_out, sources, opts->n, old == NULL ? NULL : old->watch, (*cluster_out)->n_views);
    return ERR_OK;
}

static void on_rebuild(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    proxy_watch_rebuild(arg);
}

struct proxy_clusters *proxy_clusters_new(struct loop *loop, unsigned n_workers,
                                          const struct config_dns *dns)
{
    struct proxy_clusters *c = MEM_NEW(struct proxy_clusters);

    c->room.loop = loop;
    c->room.n_workers = n_workers;
    c->room.resolver = proxy_resolver_new(loop, dns);
    c->room.prober = proxy_prober_new(loop);
    list_init(&c->room.dirty);
    c->room.rebuild = event_new(loop_base(loop), -1, 0, on_rebuild, &c->room);
    CHECK(c->room.rebuild != NULL);
    c->in_force = map_new();
    return c;
}

void proxy_clusters_attach(struct proxy_clusters *clusters, struct proxy_worker **workers)
{
    clusters->room.workers = workers;
}

static void end_one(struct sv key, void *value, void *arg)
{
    struct proxy_cluster *cluster = value;
    const struct map *stays = arg;

    if (stays == NULL || map_get(stays, key) != cluster) {
        proxy_watch_stop(cluster->watch);
    }
    proxy_cluster_unref(&cluster);
}

void proxy_clusters_commit(struct proxy_clusters *clusters, struct proxy_cluster *const *list,
                           size_t n, const struct config_dns *dns)
{
    struct map *fresh = map_new();
    size_t i = 0;

    proxy_resolver_set(clusters->room.resolver, dns);
    for (i = 0; i < n; i++) {
        (void)map_set(fresh, sv_of(&list[i]->id, sizeof(list[i]->id)), proxy_cluster_ref(list[i]));
        if (find(clusters, list[i]->id) != list[i]) {
            proxy_watch_start(list[i]->watch, &clusters->room);
        }
    }
    map_each(clusters->in_force, end_one,
             fresh); /* after: endpoints that stay have an owner all along */
    map_free(&clusters->in_force);
    clusters->in_force = fresh;
}

struct proxy_resolver *proxy_clusters_resolver(struct proxy_clusters *clusters)
{
    return clusters->room.resolver;
}

void proxy_clusters_free(struct proxy_clusters **clusters)
{
    struct proxy_clusters *c = TAKE(*clusters);

    if (c == NULL) {
        return;
    }
    c->room.workers = NULL;
    map_each(c->in_force, end_one, NULL);
    map_free(&c->in_force);
    proxy_resolver_free(&c->room.resolver);
    proxy_prober_free(&c->room.prober);
    event_free(c->room.rebuild);
    mem_free(&c);
}
