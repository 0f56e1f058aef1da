#include "proxy/watch.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"

enum { REBUILD_MS = 20 }; /* flapping endpoints cost one table in so long */

struct member;

/* One health check of one endpoint. */
struct check {
    struct member *member;
    const struct config_health_check *conf;
    struct proxy_health health;
    struct event *timer;
    struct proxy_probe *probe;
};

struct member {
    struct proxy_watch *watch;
    struct proxy_endpoint *endpoint;
    struct proxy_ejection ejection;
    struct check *checks; /* as many as the cluster has */
    bool healthy;         /* all checks say so */
    bool judged;          /* they have said anything */
};

/* One entry of `to`, and where it leads. */
struct source {
    struct proxy_watch *watch;
    struct proxy_target *target;
    uint32_t weight;
    struct proxy_name *name; /* NULL: literal */
    bool settled;
    struct member **members;
    size_t n;
};

struct proxy_watch {
    struct proxy_cluster *cluster; /* whose part it is */
    struct proxy_watch_room *room; /* NULL: not started, or stopped */
    struct list in_dirty;
    struct source *sources;
    size_t n_sources;
    size_t n_members;
    size_t n_ejected;
    struct event *sweep;
    unsigned n_workers;
};

/* ---- tables ---------------------------------------------------------------------------------- */

static struct proxy_table *make_table(const struct proxy_watch *w)
{
    struct proxy_candidate *all = mem_array(w->n_members, sizeof(*all));
    struct proxy_table *table = NULL;
    bool settled = true;
    size_t n = 0;
    size_t i = 0;
    size_t k = 0;

    for (i = 0; i < w->n_sources; i++) {
        const struct source *s = &w->sources[i];

        settled = settled && s->settled;
        for (k = 0; k < s->n && n < PROXY_ENDPOINTS_MAX; k++) {
            all[n++] =
                (struct proxy_candidate){ s->members[k]->endpoint, s->weight,
                                          s->members[k]->healthy && !s->members[k]->ejection.out };
        }
    }
    table = proxy_table_new(&w->cluster->conf, all, n, settled);
    mem_free(&all);
    return table;
}

struct delivery {
    struct proxy_worker *worker;
    struct proxy_cluster *cluster;
    struct proxy_table *table;
};

/* Worker's thread. */
static void deliver(void *arg)
{
    struct delivery *d = arg;
    struct proxy_view *view = &d->cluster->views[d->worker->index];

    proxy_table_unref(&view->table);
    view->table = d->table;
    proxy_upstream_changed(view);
    proxy_cluster_unref(&d->cluster);
    mem_free(&d);
}

static void publish(const struct proxy_watch *w)
{
    struct proxy_table *table = make_table(w);
    unsigned i = 0;

    for (i = 0; w->room->workers != NULL && i < w->room->n_workers; i++) {
        struct delivery *d = MEM_NEW(struct delivery);

        d->worker = w->room->workers[i];
        d->cluster = proxy_cluster_ref(w->cluster);
        d->table = proxy_table_ref(table);
        loop_post(d->worker->loop, deliver, d);
    }
    proxy_table_unref(&table);
}

static void changed(struct proxy_watch *w)
{
    const struct timeval soon = { .tv_usec = REBUILD_MS * 1000L };

    if (w->room == NULL || !list_empty(&w->in_dirty)) {
        return;
    }
    if (list_empty(&w->room->dirty)) {
        (void)event_add(w->room->rebuild, &soon);
    }
    list_push_back(&w->room->dirty, &w->in_dirty);
}

void proxy_watch_rebuild(struct proxy_watch_room *room)
{
    while (!list_empty(&room->dirty)) {
        struct proxy_watch *w = LIST_ENTRY(room->dirty.next, struct proxy_watch, in_dirty);

        list_remove(&w->in_dirty);
        publish(w);
    }
}

/* ---- health ---------------------------------------------------------------------------------- */

static void ask_later(struct check *c, bool first)
{
    int64_t ms = proxy_health_wait_ms(c->conf, first, (uint32_t)rand_u64());
    struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(c->timer, &tv);
}

static void judge(struct member *m, const char *why)
{
    bool healthy = true;
    size_t i = 0;

    for (i = 0; i < m->watch->cluster->conf.n_checks; i++) {
        healthy = healthy && m->checks[i].health.state == PROXY_HEALTH_FIT;
    }
    if (healthy == m->healthy && m->judged) {
        return;
    }
    m->judged = true;
    m->healthy = healthy;
    if (healthy) {
        log_info("endpoint.healthy", KV_SV("route-id", m->watch->cluster->id_text),
                 KV_STR("endpoint", m->endpoint->text));
    } else {
        log_warn("endpoint.unhealthy", KV_SV("route-id", m->watch->cluster->id_text),
                 KV_STR("endpoint", m->endpoint->text), KV_STR("why", why));
    }
    changed(m->watch);
}

static void on_probed(void *arg, enum proxy_health_result result, const char *why)
{
    struct check *c = arg;

    c->probe = NULL;
    if (proxy_health_step(&c->health, c->conf, result)) {
        judge(c->member, why);
    }
    ask_later(c, false);
}

static void on_check_due(evutil_socket_t fd, short what, void *arg)
{
    struct check *c = arg;

    (void)fd;
    (void)what;
    c->probe = proxy_probe_start(c->member->watch->room->prober, c->conf, c->member->endpoint,
                                 on_probed, c);
}

/* ---- members --------------------------------------------------------------------------------- */

static struct member *member_new(struct proxy_watch *w, struct proxy_endpoint *endpoint)
{
    struct member *m = MEM_NEW(struct member);
    size_t n = w->cluster->conf.n_checks;
    size_t i = 0;

    m->watch = w;
    m->endpoint = endpoint;
    m->healthy = n == 0;
    m->checks = mem_array(n, sizeof(*m->checks));
    for (i = 0; i < n; i++) {
        m->checks[i].member = m;
        m->checks[i].conf = &w->cluster->conf.checks[i];
    }
    w->n_members++;
    return m;
}

static void member_start(struct member *m)
{
    size_t i = 0;

    m->endpoint->owners++;
    __atomic_store_n(&m->endpoint->gone, false, __ATOMIC_RELAXED);
    for (i = 0; i < m->watch->cluster->conf.n_checks; i++) {
        struct check *c = &m->checks[i];

        c->timer = event_new(loop_base(m->watch->room->loop), -1, 0, on_check_due, c);
        CHECK(c->timer != NULL);
        ask_later(c, true);
    }
}

static void member_stop(struct member *m)
{
    size_t i = 0;

    for (i = 0; i < m->watch->cluster->conf.n_checks; i++) {
        proxy_probe_cancel(&m->checks[i].probe);
        if (m->checks[i].timer != NULL) {
            event_free(TAKE(m->checks[i].timer));
        }
    }
    if (--m->endpoint->owners == 0) {
        __atomic_store_n(&m->endpoint->gone, true, __ATOMIC_RELAXED);
    }
}

static void member_free(struct member *m)
{
    m->watch->n_members--;
    m->watch->n_ejected -= m->ejection.out ? 1 : 0;
    proxy_endpoint_unref(&m->endpoint);
    mem_free(&m->checks);
    mem_free(&m);
}

/* The same endpoint of a cluster that this one follows. */
static const struct member *find_before(const struct proxy_watch *before,
                                        const struct proxy_target *target,
                                        const struct proxy_sockaddr *address)
{
    size_t i = 0;
    size_t k = 0;

    for (i = 0; before != NULL && i < before->n_sources; i++) {
        for (k = 0; k < before->sources[i].n; k++) {
            if (proxy_endpoint_is(before->sources[i].members[k]->endpoint, target, address)) {
                return before->sources[i].members[k];
            }
        }
    }
    return NULL;
}

/* What was found out about an endpoint stays true when the settings around it change. An endpoint that
 * was used without checks goes on until a check says no. */
static struct member *take_over(struct proxy_watch *w, const struct member *old)
{
    struct member *m = member_new(w, proxy_endpoint_ref(old->endpoint));
    size_t i = 0;

    for (i = 0; i < w->cluster->conf.n_checks; i++) {
        m->checks[i].health.state = old->healthy ? PROXY_HEALTH_FIT : PROXY_HEALTH_UNKNOWN;
    }
    m->healthy = m->healthy || old->healthy;
    m->judged = old->judged;
    if (w->cluster->conf.outlier.on) {
        m->ejection = old->ejection;
        w->n_ejected += m->ejection.out ? 1 : 0;
    }
    return m;
}

static struct member *member_at(struct source *s, const struct proxy_sockaddr *address,
                                const struct proxy_watch *before)
{
    const struct member *old = find_before(before, s->target, address);

    if (old != NULL) {
        return take_over(s->watch, old);
    }
    return member_new(s->watch, proxy_endpoint_new(s->target, address, s->watch->n_workers));
}

static void add_member(struct source *s, struct member *m)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    s->members = mem_realloc(s->members, s->n + 1, sizeof(*s->members));
    s->members[s->n++] = m;
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct member *take_member(struct source *s, const struct proxy_sockaddr *address)
{
    size_t i = 0;

    for (i = 0; i < s->n; i++) {
        if (s->members[i] != NULL &&
            proxy_endpoint_is(s->members[i]->endpoint, s->target, address)) {
            return TAKE(s->members[i]);
        }
    }
    return NULL;
}

static void on_addresses(void *arg, const struct proxy_addresses *addresses)
{
    struct source *s = arg;
    struct source old = *s;
    size_t i = 0;

    s->settled = true;
    s->members = NULL;
    s->n = 0;
    for (i = 0; i < addresses->n; i++) {
        struct proxy_sockaddr address = addresses->v[i];
        struct member *m = NULL;

        proxy_sockaddr_set_port(&address, s->target->url.port);
        m = take_member(&old, &address);
        if (m == NULL) {
            m = member_at(s, &address, NULL);
            member_start(m);
        }
        add_member(s, m);
    }
    for (i = 0; i < old.n; i++) {
        if (old.members[i] != NULL) {
            member_stop(old.members[i]);
            member_free(old.members[i]);
        }
    }
    mem_free(&old.members);
    changed(s->watch);
}

/* ---- ejections ------------------------------------------------------------------------------- */

static struct member *member_of(const struct proxy_watch *w, const struct proxy_endpoint *endpoint)
{
    size_t i = 0;
    size_t k = 0;

    for (i = 0; i < w->n_sources; i++) {
        for (k = 0; k < w->sources[i].n; k++) {
            if (w->sources[i].members[k]->endpoint == endpoint) {
                return w->sources[i].members[k];
            }
        }
    }
    return NULL;
}

static void arm_sweep(struct proxy_watch *w)
{
    int64_t ms = w->cluster->conf.outlier.interval_ms;
    struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    if (event_pending(w->sweep, EV_TIMEOUT, NULL) == 0) {
        (void)event_add(w->sweep, &tv);
    }
}

void proxy_watch_eject(struct proxy_watch *watch, struct proxy_endpoint *endpoint,
                       enum proxy_outlier_rule rule)
{
    struct member *m = member_of(watch, endpoint);
    const struct proxy_outlier_case c = { .rule = rule,
                                          .n_out = watch->n_ejected,
                                          .n_all = watch->n_members,
                                          .now_ms = clock_mono_ms(),
                                          .enforce = (uint32_t)rand_u64(),
                                          .jitter = (uint32_t)rand_u64() };

    if (watch->room == NULL || m == NULL ||
        !proxy_outlier_eject(&m->ejection, &watch->cluster->conf.outlier, &c)) {
        return;
    }
    watch->n_ejected++;
    log_warn("endpoint.ejected", KV_SV("route-id", watch->cluster->id_text),
             KV_STR("endpoint", endpoint->text),
             KV_STR("why",
                    rule == PROXY_OUTLIER_5XX ? "consecutive 5xx" : "consecutive gateway failures"),
             KV_I64("for-ms", m->ejection.until_ms - c.now_ms));
    arm_sweep(watch);
    changed(watch);
}

static bool sweep_member(struct proxy_watch *w, struct member *m)
{
    if (proxy_outlier_sweep(&m->ejection, clock_mono_ms())) {
        w->n_ejected--;
        __atomic_store_n(&m->endpoint->run_5xx, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->endpoint->run_gateway, 0, __ATOMIC_RELAXED);
        log_info("endpoint.back", KV_SV("route-id", w->cluster->id_text),
                 KV_STR("endpoint", m->endpoint->text));
        changed(w);
    }
    return m->ejection.out || m->ejection.times != 0;
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_watch *w = arg;
    bool again = false;
    size_t i = 0;
    size_t k = 0;

    (void)fd;
    (void)what;
    for (i = 0; i < w->n_sources; i++) {
        for (k = 0; k < w->sources[i].n; k++) {
            again = sweep_member(w, w->sources[i].members[k]) || again;
        }
    }
    if (again) {
        arm_sweep(w);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void source_init(struct source *s, const struct proxy_source_opts *opts,
                        const struct proxy_watch *before)
{
    struct proxy_sockaddr address;
    size_t i = 0;
    size_t k = 0;

    s->target = opts->target;
    s->weight = opts->weight;
    s->settled = proxy_target_literal(s->target, &address);
    if (s->settled) {
        add_member(s, member_at(s, &address, before));
        return;
    }
    for (i = 0; before != NULL && i < before->n_sources; i++) {
        const struct source *old = &before->sources[i];

        if (strcmp(old->target->key, s->target->key) != 0 || s->settled) {
            continue;
        }
        for (k = 0; k < old->n; k++) {
            add_member(s, take_over(s->watch, old->members[k]));
        }
        s->settled = old->settled;
    }
}

struct proxy_watch *proxy_watch_new(struct proxy_cluster *cluster,
                                    const struct proxy_source_opts *sources, size_t n,
                                    const struct proxy_watch *before, unsigned n_workers)
{
    struct proxy_watch *w = MEM_NEW(struct proxy_watch);
    struct proxy_table *table = NULL;
    size_t i = 0;

    w->cluster = cluster;
    w->n_workers = n_workers;
    list_init(&w->in_dirty);
    w->sources = mem_array(n, sizeof(*w->sources));
    w->n_sources = n;
    for (i = 0; i < n; i++) {
        w->sources[i].watch = w;
        source_init(&w->sources[i], &sources[i], before);
    }
    table = make_table(w);
    for (i = 0; i < cluster->n_views; i++) {
        cluster->views[i].table = proxy_table_ref(table);
    }
    proxy_table_unref(&table);
    return w;
}

void proxy_watch_start(struct proxy_watch *watch, struct proxy_watch_room *room)
{
    size_t i = 0;
    size_t k = 0;

    watch->room = room;
    watch->sweep = event_new(loop_base(room->loop), -1, 0, on_sweep, watch);
    CHECK(watch->sweep != NULL);
    if (watch->n_ejected != 0) {
        arm_sweep(watch);
    }
    for (i = 0; i < watch->n_sources; i++) {
        struct source *s = &watch->sources[i];
        struct proxy_sockaddr address;
        char host[PROXY_HOST_MAX];

        for (k = 0; k < s->n; k++) {
            member_start(s->members[k]);
        }
        if (!proxy_target_literal(s->target, &address)) {
            proxy_target_host(s->target, host);
            s->name = proxy_name_watch(room->resolver, host, on_addresses, s);
        }
    }
}

void proxy_watch_stop(struct proxy_watch *watch)
{
    size_t i = 0;
    size_t k = 0;

    if (watch->room == NULL) {
        return;
    }
    for (i = 0; i < watch->n_sources; i++) {
        proxy_name_unwatch(&watch->sources[i].name);
        for (k = 0; k < watch->sources[i].n; k++) {
            member_stop(watch->sources[i].members[k]);
        }
    }
    event_free(TAKE(watch->sweep));
    list_remove(&watch->in_dirty);
    publish(watch); /* workers close idle connections to what is gone */
    watch->room = NULL;
}

void proxy_watch_free(struct proxy_watch **watch)
{
    struct proxy_watch *w = TAKE(*watch);
    size_t i = 0;
    size_t k = 0;

    if (w == NULL) {
        return;
    }
    for (i = 0; i < w->n_sources; i++) {
        for (k = 0; k < w->sources[i].n; k++) {
            member_free(w->sources[i].members[k]);
        }
        mem_free(&w->sources[i].members);
        proxy_target_unref(&w->sources[i].target);
    }
    mem_free(&w->sources);
    mem_free(&w);
}

size_t proxy_watch_sources(const struct proxy_watch *watch)
{
    return watch->n_sources;
}

bool proxy_watch_has(const struct proxy_watch *watch, size_t i, const char *key, uint32_t weight)
{
    return strcmp(watch->sources[i].target->key, key) == 0 && watch->sources[i].weight == weight;
}

struct proxy_target *proxy_watch_target(const struct proxy_watch *watch, const char *key)
{
    size_t i = 0;

    for (i = 0; i < watch->n_sources; i++) {
        if (strcmp(watch->sources[i].target->key, key) == 0) {
            return watch->sources[i].target;
        }
    }
    return NULL;
}
