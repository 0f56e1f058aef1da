#include "proxy/worker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
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
#include "proxy/conn.h"
#include "proxy/exchange.h"
#include "proxy/h2.h"
#include "proxy/upstream.h"

enum { TICK_MS = 100, BACKLOG = 1024, ACCEPTS_MAX = 64, DRAIN_MS = 4000 };

/* ---- listening ------------------------------------------------------------------------------- */

static int listen_at(const struct sockaddr *address, socklen_t size, struct diag *d,
                     const char *text)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    char room[128];

    if (fd < 0) {
        diag_set(d, "no socket is to be had for %s", text);
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)); /* one listener a worker */
    if (bind(fd, address, size) != 0 || listen(fd, BACKLOG) != 0) {
        diag_set(d, "cannot listen on %s: %s", text, strerror_r(errno, room, sizeof(room)));
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* The kernel would let a second proxy of the same user share the port: ask before. */
static bool taken(const struct sockaddr *address, socklen_t size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    bool is_taken = false;

    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        is_taken = bind(fd, address, size) != 0 && errno == EADDRINUSE;
        (void)close(fd);
    }
    return is_taken;
}

static enum err open_listener(const struct proxy_worker *w, struct sv address, int *fd_out,
                              struct diag *d)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char host[PROXY_HOST_MAX];
    size_t colon = sv_rfind(address, ':');
    struct sv name = { 0 };

    if (colon == SIZE_MAX || colon >= sizeof(host)) {
        diag_set(d, "address '%.*s' is no host:port", SV_ARG(address));
        return ERR_INVALID;
    }
    name = sv_head(address, colon);
    if (name.n > 2 && name.p[0] == '[') {
        name = sv_head(sv_from_at(name, 1), name.n - 2);
    }
    (void)snprintf(host, sizeof(host), "%.*s", SV_ARG(name));
    if (getaddrinfo(name.n == 0 ? NULL : host, address.p + colon + 1, &hints, &found) != 0) {
        diag_set(d, "address '%.*s' cannot be understood", SV_ARG(address));
        return ERR_INVALID;
    }
    if (w->index == 0 && taken(found->ai_addr, found->ai_addrlen)) {
        diag_set(d, "cannot listen on %.*s: it is in use", SV_ARG(address));
    } else {
        *fd_out = listen_at(found->ai_addr, found->ai_addrlen, d, address.p);
    }
    freeaddrinfo(found);
    return *fd_out < 0 ? ERR_IO : ERR_OK;
}

static void close_listeners(struct proxy_worker *w)
{
    int *both[] = { &w->listener, &w->redirect_listener };
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(both); i++) {
        if (*both[i] >= 0) {
            (void)close(*both[i]);
        }
        *both[i] = -1;
    }
}

static void accept_from(struct proxy_worker *w, bool on)
{
    struct event *both[] = { w->accept, w->accept_redirect };
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(both) && both[i] != NULL; i++) {
        (void)(on ? event_add(both[i], NULL) : event_del(both[i]));
    }
}

static void take_client(struct proxy_worker *w, int client, const struct sockaddr *address,
                        bool to_https)
{
    static _Thread_local struct log_limit limit;

    if (w->n_conns < PROXY_CONNS_MAX) {
        proxy_conn_open(w, client, address, to_https);
        return;
    }
    (void)close(client);
    if (log_limit_pass(&limit, 1)) {
        log_warn("connections.full", KV_U64("open", w->n_conns));
    }
}

/* No descriptor is left: the listener would stay readable and the loop would spin. */
static void pause_accepting(struct proxy_worker *w)
{
    static _Thread_local struct log_limit limit;

    w->accept_paused = true;
    accept_from(w, false);
    if (log_limit_pass(&limit, 1)) {
        log_warn("connections.no-descriptor", KV_U64("open", w->n_conns));
    }
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_worker *w = arg;
    int i = 0;

    (void)what;
    for (i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage address;
        socklen_t size = sizeof(address);
        int client = accept4(fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (client < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                pause_accepting(w);
            }
            return;
        }
        take_client(w, client, (const struct sockaddr *)&address, fd == w->redirect_listener);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static void end_if_drained(struct proxy_worker *w, int64_t now)
{
    if (!w->stopping || (w->n_conns != 0 && now < w->stop_at_ms)) {
        return;
    }
    while (!list_empty(&w->conns)) {
        proxy_conn_close(LIST_ENTRY(w->conns.next, struct proxy_conn, in_worker));
    }
    loop_stop(w->loop);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_worker *w = arg;
    int64_t now = clock_mono_ms();
    struct list *it = NULL;
    struct list *next = NULL;

    (void)fd;
    (void)what;
    LIST_FOREACH_SAFE(it, next, &w->exchanges) {
        proxy_exchange_tick(LIST_ENTRY(it, struct proxy_exchange, in_worker), now);
    }
    LIST_FOREACH_SAFE(it, next, &w->conns) {
        proxy_conn_tick(LIST_ENTRY(it, struct proxy_conn, in_worker), now);
    }
    proxy_upstream_tick(w, now);
    if (w->accept_paused && !w->stopping) {
        w->accept_paused = false;
        accept_from(w, true);
    }
    end_if_drained(w, now);
}

static void on_flush(void *arg)
{
    struct proxy_worker *w = arg;

    proxy_h2_flush_all(w);
    proxy_authz_flush(w->authz);
    proxy_access_flush(w);
    proxy_exchange_pool_turn(w);
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

static void run_stop(void *arg)
{
    struct proxy_worker *w = arg;
    struct list *it = NULL;
    struct list *next = NULL;

    w->stopping = true;
    w->stop_at_ms = clock_mono_ms() + DRAIN_MS;
    accept_from(w, false);
    close_listeners(w);
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

static struct proxy_authz *authz_of(struct proxy_worker *w, const struct config *c)
{
    const char **targets = mem_array(c->authorize.n, sizeof(*targets));
    struct proxy_authz *authz = NULL;

    for (size_t i = 0; i < c->authorize.n; i++) {
        /* Workers begin with different ones: where there are more than a worker keeps, all count. */
        targets[i] = c->authorize.v[(w->index + i) % c->authorize.n].text.p;
    }
    authz = proxy_authz_new(&(struct proxy_authz_opts){ .loop = w->loop,
                                                        .identity = w->app->identity,
                                                        .targets = targets,
                                                        .n_targets = c->authorize.n,
                                                        .timeout_ms = c->authorize_timeout_ms,
                                                        .on_changed = on_changed,
                                                        .on_link = on_link,
                                                        .arg = w });
    mem_free(&targets);
    return authz;
}

enum err proxy_worker_new(struct proxy_app *app, unsigned index, struct proxy_snapshot *snapshot,
                          struct proxy_worker **worker_out, struct diag *d)
{
    struct proxy_worker *w = MEM_NEW(struct proxy_worker);
    struct timeval tick = { .tv_usec = TICK_MS * INT64_C(1000) };
    const struct config *c = snapshot->config;
    enum err err = ERR_OK;

    w->app = app;
    w->index = index;
    w->listener = -1;
    w->snapshot = proxy_snapshot_ref(snapshot);
    list_init(&w->conns);
    list_init(&w->exchanges);
    list_init(&w->h2_dirty);
    list_init(&w->spare);
    list_init(&w->spent);
    list_init(&w->upstreams);
    w->redirect_listener = -1;
    err = open_listener(w, c->address, &w->listener, d);
    if (err == ERR_OK && c->http_redirect_addr.n != 0) {
        err = open_listener(w, c->http_redirect_addr, &w->redirect_listener, d);
    }
    if (err != ERR_OK) {
        close_listeners(w);
        proxy_snapshot_unref(&w->snapshot);
        mem_free(&w);
        return err;
    }
    w->loop = loop_new_private();
    w->handles = proxy_handles_new(rpc_identity_keys(app->identity));
    buf_init(&w->access, 1 << 20);
    w->authz = authz_of(w, c);
    w->accept = event_new(loop_base(w->loop), w->listener, EV_READ | EV_PERSIST, on_accept, w);
    w->tick = event_new(loop_base(w->loop), -1, EV_PERSIST, on_tick, w);
    CHECK(w->accept != NULL && w->tick != NULL);
    if (w->redirect_listener >= 0) {
        w->accept_redirect =
            event_new(loop_base(w->loop), w->redirect_listener, EV_READ | EV_PERSIST, on_accept, w);
        CHECK(w->accept_redirect != NULL);
    }
    accept_from(w, true);
    (void)event_add(w->tick, &tick);
    loop_on_flush(w->loop, on_flush, w);
    *worker_out = w;
    return ERR_OK;
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
    event_free(w->accept);
    if (w->accept_redirect != NULL) {
        event_free(w->accept_redirect);
    }
    event_free(w->tick);
    close_listeners(w);
    loop_free(&w->loop);
    proxy_handles_free(&w->handles);
    buf_deinit(&w->access);
    proxy_acme_unref(&w->acme);
    proxy_snapshot_unref(&w->snapshot);
    mem_free(&w);
}
