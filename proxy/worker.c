#include "proxy/worker.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "proxy/access.h"
#include "proxy/app.h"
#include "proxy/bearer.h"
#include "proxy/conn.h"
#include "proxy/exchange.h"
#include "proxy/h2.h"
#include "proxy/upstream.h"

/* LAST_MS: those that come last need a moment for their answer. */
enum { TICK_MS = 100, LAST_MS = 1000, IDLE_TICKS = 10 };

/* ---- clients ---------------------------------------------------------------------------------- */

void proxy_worker_take(struct proxy_worker *w, int client, const struct sockaddr *address,
                       bool to_https)
{
    static _Thread_local struct log_limit limit;
    uint32_t max = w->snapshot->config->max_connections;
    uint32_t open = __atomic_add_fetch(&w->app->n_conns, 1, __ATOMIC_RELAXED);

    if (open <= max) {
        proxy_conn_open(w, client, address, to_https);
        return;
    }
    (void)__atomic_sub_fetch(&w->app->n_conns, 1, __ATOMIC_RELAXED);
    (void)close(client);
    if (log_limit_pass(&limit, 1)) {
        log_warn("connections.full", KV_U64("max", max));
    }
}

void proxy_worker_gone(struct proxy_worker *w, const struct proxy_conn *conn)
{
    w->n_conns--;
    w->n_old -= conn->old ? 1 : 0;
    (void)__atomic_sub_fetch(&w->app->n_conns, 1, __ATOMIC_RELAXED);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void end_if_drained(struct proxy_worker *w, int64_t now)
{
    if (!w->stopping) {
        return;
    }
    if (w->listeners.accepting && (w->n_old == 0 || now + LAST_MS >= w->stop_at_ms)) {
        proxy_listeners_stop(&w->listeners);
    }
    if (w->n_conns != 0 && now < w->stop_at_ms) {
        return;
    }
    while (!list_empty(&w->conns)) {
        proxy_conn_close(LIST_ENTRY(w->conns.next, struct proxy_conn, in_worker));
    }
    loop_stop(w->loop);
}

/* The place that the work comes from, if no other worker is there: two that work at once would wait for
 * each other. */
static unsigned place_of_work(const struct proxy_worker *w, int fd)
{
    const struct proxy_app *app = w->app;
    int cpu = -1;
    socklen_t size = sizeof(cpu);

    if (!proxy_authz_is_near(w->authz) ||
        getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &size) != 0 || cpu < 0) {
        return 0;
    }
    for (unsigned i = 0; i < app->n_workers; i++) {
        const struct proxy_worker *other = app->workers[i];

        if (other != w && __atomic_load_n(&other->place, __ATOMIC_RELAXED) == (unsigned)cpu + 1) {
            return 0;
        }
    }
    return (unsigned)cpu + 1;
}

static void tell_place(struct proxy_worker *w)
{
    __atomic_store_n(&w->place, w->home.place, __ATOMIC_RELAXED);
    proxy_authz_place(w->authz, w->home.place);
}

void proxy_worker_pace(struct proxy_worker *worker, bool crowd, int fd)
{
    pace_note(&worker->pace, crowd);
    if (home_note(&worker->home, proxy_worker_is_alone(worker) && !worker->pace.eager)) {
        home_look(&worker->home, place_of_work(worker, fd));
        tell_place(worker);
    }
}

static void on_tick(void *arg)
{
    struct proxy_worker *w = arg;
    int64_t now = clock_mono_ms();
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &w->exchanges) {
        proxy_exchange_tick(LIST_ENTRY(it, struct proxy_exchange, in_worker), now);
    }
    LIST_FOREACH_SAFE(it, next, &w->conns) {
        proxy_conn_tick(LIST_ENTRY(it, struct proxy_conn, in_worker), now);
    }
    proxy_upstream_tick(w, now);
    proxy_access_flush(w);
    proxy_listeners_tick(&w->listeners);
    if (++w->ticks % IDLE_TICKS == 0) {
        home_idle(&w->home);
        tell_place(w);
    }
    end_if_drained(w, now);
}

/* A check that is alone is answered within microseconds by a thread that shares our processor
 * (common/home.h), as soon as we step aside. Its answer is looked for at once: to wait for an event, and to
 * be woken, would cost more than the check. Where it is not there yet, the event tells as ever. */
static void step_aside(struct proxy_worker *w)
{
    if (proxy_worker_is_alone(w) && !w->pace.eager && proxy_authz_is_awaited(w->authz)) {
        (void)sched_yield();
        proxy_authz_look(w->authz);
    }
}

static void on_flush(void *arg)
{
    struct proxy_worker *w = arg;

    proxy_h2_flush_all(w);
    proxy_authz_flush(w->authz);
    if (list_empty(&w->exchanges)) {
        proxy_access_flush(w); /* else there will soon be more of them */
    }
    proxy_exchange_pool_turn(w);
    step_aside(w);
}

static void on_late(void *arg)
{
    struct proxy_worker *w = arg;

    if (!list_empty(&w->late)) {
        proxy_conn_go_on(LIST_ENTRY(w->late.next, struct proxy_conn, in_late));
    }
    if (!list_empty(&w->late)) {
        loop_late(w->loop);
    }
}

/* ---- changes --------------------------------------------------------------------------------- */

static bool concerns(const struct proxy_exchange *x, const struct sv *sessions, size_t n, bool all)
{
    size_t i = 0;

    if (!proxy_exchange_stands_on_verdict(x)) {
        return false;
    }
    for (i = 0; !all && i < n; i++) {
        if (x->handle_valid && sv_eq(sessions[i], sv_from(x->handle.session))) {
            return true;
        }
    }
    return all;
}

static void on_changed(void *arg, const struct sv *sessions, size_t n, bool all)
{
    struct proxy_worker *w = arg;
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &w->exchanges) {
        struct proxy_exchange *x = LIST_ENTRY(it, struct proxy_exchange, in_worker);

        if (concerns(x, sessions, n, all)) {
            proxy_request_recheck(x);
        }
    }
}

static void on_link(void *arg, bool up)
{
    struct proxy_worker *w = arg;
    struct list *it = NULL;

    LIST_FOREACH(it, &w->exchanges) {
        struct proxy_exchange *x = LIST_ENTRY(it, struct proxy_exchange, in_worker);

        if (!up && proxy_exchange_stands_on_verdict(x)) {
            proxy_request_unvouched(x, proxy_authz_heard_ms(w->authz));
        }
    }
    proxy_app_authz(w->app, up);
}

struct snapshot_task {
    struct proxy_worker *worker;
    struct proxy_snapshot *snapshot;
};

/* Open exchanges whose route is gone end; the rest is asked about again by authorize's word. */
static void close_routeless(struct proxy_worker *w)
{
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &w->exchanges) {
        struct proxy_exchange *x = LIST_ENTRY(it, struct proxy_exchange, in_worker);

        if (proxy_exchange_stands_on_verdict(x) && x->route != NULL &&
            config_route_by_id(w->snapshot->config, x->route->config->id) == NULL) {
            x->fault = "route-removed";
            proxy_exchange_abort(x);
        }
    }
}

/* Authorize knows nothing of CAs and lists: it is asked again with what they say now. */
static void recheck_certificates(struct proxy_worker *w)
{
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &w->exchanges) {
        struct proxy_exchange *x = LIST_ENTRY(it, struct proxy_exchange, in_worker);

        if (x->conn->client_cert != NULL && proxy_exchange_stands_on_verdict(x)) {
            proxy_request_recheck(x);
        }
    }
}

static void run_set(void *arg)
{
    struct snapshot_task *task = arg;
    struct proxy_worker *w = task->worker;

    proxy_snapshot_unref(&w->snapshot);
    w->snapshot = task->snapshot;
    mem_free(&task);
    close_routeless(w);
    recheck_certificates(w);
}

void proxy_worker_set(struct proxy_worker *worker, struct proxy_snapshot *snapshot)
{
    struct snapshot_task *task = MEM_NEW(struct snapshot_task);

    task->worker = worker;
    task->snapshot = proxy_snapshot_ref(snapshot);
    loop_post(worker->loop, run_set, task);
}

struct acme_task {
    struct proxy_worker *worker;
    struct proxy_acme *acme;
};

static void run_set_acme(void *arg)
{
    struct acme_task *task = arg;

    proxy_acme_unref(&task->worker->acme);
    task->worker->acme = task->acme;
    mem_free(&task);
}

void proxy_worker_set_acme(struct proxy_worker *worker, struct proxy_acme *acme)
{
    struct acme_task *task = MEM_NEW(struct acme_task);

    task->worker = worker;
    task->acme = proxy_acme_ref(acme);
    loop_post(worker->loop, run_set_acme, task);
}

struct authorizes_task {
    struct proxy_worker *worker;
    struct proxy_sockaddr v[PROXY_AUTHZ_PEERS_MAX];
    size_t n;
};

static void run_set_authorizes(void *arg)
{
    struct authorizes_task *task = arg;

    proxy_authz_set(task->worker->authz, task->v, task->n);
    mem_free(&task);
}

/* Workers begin with different ones: where there are more than a worker keeps, all count. */
void proxy_worker_set_authorizes(struct proxy_worker *worker, const struct proxy_sockaddr *v,
                                 size_t n)
{
    struct authorizes_task *task = MEM_NEW(struct authorizes_task);

    task->worker = worker;
    task->n = MIN(n, (size_t)PROXY_AUTHZ_PEERS_MAX);
    for (size_t i = 0; i < task->n; i++) {
        task->v[i] = v[(worker->index + i) % n];
    }
    loop_post(worker->loop, run_set_authorizes, task);
}

static void run_stop(void *arg)
{
    struct proxy_worker *w = arg;
    struct list *it = NULL;
    struct list *next = NULL;

    w->stopping = true;
    w->stop_at_ms = clock_mono_ms() + w->snapshot->config->shutdown_grace_ms;
    if (!w->listeners.passed) { /* else nobody would serve until we have ended */
        proxy_listeners_stop(&w->listeners);
    }
    w->n_old = w->n_conns;
    LIST_FOREACH_SAFE(it, next, &w->conns) {
        proxy_conn_drain(LIST_ENTRY(it, struct proxy_conn, in_worker));
    }
    end_if_drained(w, clock_mono_ms());
}

void proxy_worker_stop(struct proxy_worker *worker)
{
    loop_post(worker->loop, run_stop, worker);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct proxy_worker *proxy_worker_new(struct proxy_app *app, unsigned index,
                                      struct proxy_snapshot *snapshot)
{
    struct proxy_worker *w = MEM_NEW(struct proxy_worker);
    const struct config *c = snapshot->config;

    w->app = app;
    w->index = index;
    w->snapshot = proxy_snapshot_ref(snapshot);
    list_init(&w->conns);
    list_init(&w->exchanges);
    list_init(&w->h2_dirty);
    list_init(&w->late);
    list_init(&w->spare);
    list_init(&w->spent);
    list_init(&w->upstreams);
    w->loop = loop_new_private();
    w->handles = proxy_handles_new(rpc_identity_keys(app->identity));
    w->bearers = proxy_bearers_new(rpc_identity_keys(app->identity));
    buf_init(&w->access, 1 << 20);
    w->authz = proxy_authz_new(&(struct proxy_authz_opts){ .loop = w->loop,
                                                           .identity = app->identity,
                                                           .timeout_ms = c->authorize_timeout_ms,
                                                           .on_changed = on_changed,
                                                           .on_link = on_link,
                                                           .arg = w });
    w->tick = loop_tick_new(w->loop, TICK_MS, on_tick, w);
    loop_on_flush(w->loop, on_flush, w);
    loop_on_late(w->loop, on_late, w);
    return w;
}

enum err proxy_worker_listen(struct proxy_worker *worker, const struct proxy_sockets *sockets,
                             size_t n, struct diag *d)
{
    enum err err = proxy_listeners_init(&worker->listeners, worker, sockets, n, d);

    if (err == ERR_OK) {
        proxy_listeners_start(&worker->listeners);
    }
    return err;
}

static void *worker_main(void *arg)
{
    struct proxy_worker *w = arg;

    loop_run(w->loop);
    proxy_access_flush(w);
    pattern_thread_end();
    proxy_app_worker_stopped(w->app);
    return NULL;
}

void proxy_worker_start(struct proxy_worker *worker)
{
    sigset_t all;
    sigset_t before;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    CHECK(pthread_create(&worker->thread, NULL, worker_main, worker) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void proxy_worker_free(struct proxy_worker **worker)
{
    struct proxy_worker *w = TAKE(*worker);

    if (w == NULL) {
        return;
    }
    while (!list_empty(&w->conns)) {
        proxy_conn_close(LIST_ENTRY(w->conns.next, struct proxy_conn, in_worker));
    }
    while (!list_empty(&w->upstreams)) {
        struct proxy_upstream *up = LIST_ENTRY(w->upstreams.next, struct proxy_upstream, in_worker);

        proxy_upstream_close(&up);
    }
    proxy_exchange_pool_free(w);
    proxy_spares_deinit(&w->spares);
    proxy_authz_free(&w->authz);
    proxy_listeners_deinit(&w->listeners);
    loop_tick_free(&w->tick);
    pace_deinit(&w->pace);
    loop_free(&w->loop);
    proxy_handles_free(&w->handles);
    proxy_bearers_free(&w->bearers);
    buf_deinit(&w->access);
    proxy_acme_unref(&w->acme);
    proxy_snapshot_unref(&w->snapshot);
    mem_free(&w);
}
