#include "proxy/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

/* In a turn: those who are here already wait meanwhile. */
enum { ACCEPTS_MAX = 8, ACCEPTS_SHARED_MAX = 4, SWEEP_MAX = 4096 };

/* ---- sockets ---------------------------------------------------------------------------------- */

static enum err open_set(const char *name, struct sv address, size_t n, struct listen_set *set,
                         struct diag *d)
{
    enum err err = listen_named(name, address, set, d);

    while (err == ERR_OK && !set->passed && !sv_starts(address, SV("unix:")) &&
           set->n < MIN(n, (size_t)LISTEN_MAX)) {
        err = listen_join(set->fd[0], &set->fd[set->n], d);
        set->n += err == ERR_OK ? 1 : 0;
    }
    return err;
}

enum err proxy_listeners_open(const struct config *config, size_t n,
                              struct proxy_sockets *sockets_out, struct diag *d)
{
    enum err err = open_set("http", config->address, n, &sockets_out->http, d);

    if (err == ERR_OK && config->http_redirect_addr.n != 0) {
        err = open_set("redirect", config->http_redirect_addr, n, &sockets_out->redirect, d);
    }
    return err;
}

static bool same_address(int a, int b)
{
    struct sockaddr_storage of_a = { 0 };
    struct sockaddr_storage of_b = { 0 };
    socklen_t n_a = sizeof(of_a);
    socklen_t n_b = sizeof(of_b);

    return getsockname(a, (struct sockaddr *)&of_a, &n_a) == 0 &&
           getsockname(b, (struct sockaddr *)&of_b, &n_b) == 0 && n_a == n_b &&
           memcmp(&of_a, &of_b, n_a) == 0;
}

/* Of several sockets of one address each belongs to one worker, if there are enough of them. */
static bool is_share(const struct listen_set *set, size_t i, size_t worker, size_t workers)
{
    size_t place = 0;
    size_t group = 0;
    size_t j = 0;

    for (j = 0; j < set->n; j++) {
        if (same_address(set->fd[j], set->fd[i])) {
            place += j < i ? 1 : 0;
            group++;
        }
    }
    return group != 0 && (place % workers == worker || worker % group == place);
}

static size_t sharers(const struct listen_set *set, size_t i, size_t workers)
{
    size_t n = 0;
    size_t w = 0;

    for (w = 0; w < workers; w++) {
        n += is_share(set, i, w, workers) ? 1 : 0;
    }
    return n;
}

/* ---- accepting -------------------------------------------------------------------------------- */

/* No descriptor or memory is left: the listener would stay readable and the loop would spin. */
static void pause_accepting(struct proxy_listeners *all, size_t open)
{
    static _Thread_local struct log_limit limit;
    size_t i = 0;

    all->paused = true;
    for (i = 0; i < all->n; i++) {
        (void)event_del(all->v[i].accept);
    }
    if (log_limit_pass(&limit, 1)) {
        log_warn("connections.no-descriptor", KV_U64("open", open));
    }
}

/* True: there may be more. */
static bool accept_one(struct proxy_listener *l)
{
    struct sockaddr_storage address = { 0 };
    socklen_t size = sizeof(address);
    int client = accept4(l->fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (client >= 0) {
        proxy_worker_take(l->worker, client, (const struct sockaddr *)&address, l->to_https);
        return true;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        pause_accepting(&l->worker->listeners, l->worker->n_conns);
    }
    return errno == ECONNABORTED || errno == EINTR;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_listener *l = arg;
    int left = l->shared ? ACCEPTS_SHARED_MAX : ACCEPTS_MAX;

    (void)fd;
    (void)what;
    while (left > 0 && accept_one(l)) {
        left--;
    }
}

/* ---- life ------------------------------------------------------------------------------------- */

static enum err add_share(struct proxy_listeners *listeners, struct proxy_worker *worker,
                          const struct listen_set *set, size_t n, struct diag *d)
{
    size_t i = 0;

    for (i = 0; i < set->n; i++) {
        struct proxy_listener *l = &listeners->v[listeners->n];

        if (!is_share(set, i, worker->index, n)) {
            continue;
        }
        *l = (struct proxy_listener){ .worker = worker, .shared = sharers(set, i, n) > 1 };
        l->fd = fcntl(set->fd[i], F_DUPFD_CLOEXEC, 0);
        if (l->fd < 0) {
            diag_set(d, "no descriptor is left to listen with");
            return ERR_IO;
        }
        listeners->n++;
        l->accept = event_new(loop_base(worker->loop), l->fd, EV_READ | EV_PERSIST, on_accept, l);
        CHECK(l->accept != NULL);
    }
    return ERR_OK;
}

enum err proxy_listeners_init(struct proxy_listeners *listeners, struct proxy_worker *worker,
                              const struct proxy_sockets *sockets, size_t n, struct diag *d)
{
    enum err err = ERR_OK;
    size_t i = 0;

    *listeners = (struct proxy_listeners){ .passed = sockets->http.passed };
    listeners->v = mem_zalloc((sockets->http.n + sockets->redirect.n) * sizeof(*listeners->v));
    err = add_share(listeners, worker, &sockets->http, n, d);
    i = listeners->n;
    if (err == ERR_OK) {
        err = add_share(listeners, worker, &sockets->redirect, n, d);
    }
    for (; i < listeners->n; i++) {
        listeners->v[i].to_https = true;
    }
    return err;
}

void proxy_listeners_start(struct proxy_listeners *listeners)
{
    size_t i = 0;

    listeners->accepting = true;
    listeners->paused = false;
    for (i = 0; i < listeners->n; i++) {
        (void)event_add(listeners->v[i].accept, NULL);
    }
}

void proxy_listeners_deinit(struct proxy_listeners *listeners)
{
    while (listeners->n > 0) {
        struct proxy_listener *l = &listeners->v[--listeners->n];

        event_free(l->accept);
        (void)close(l->fd);
    }
    mem_free(&listeners->v);
    listeners->accepting = false;
}

void proxy_listeners_stop(struct proxy_listeners *listeners)
{
    size_t i = 0;
    int left = SWEEP_MAX;

    /* Sockets of a service manager keep those that wait for whoever comes after us. */
    for (i = 0; i < listeners->n && !listeners->passed; i++) {
        while (left > 0 && accept_one(&listeners->v[i])) {
            left--;
        }
    }
    proxy_listeners_deinit(listeners);
}

void proxy_listeners_tick(struct proxy_listeners *listeners)
{
    if (listeners->accepting && listeners->paused) {
        proxy_listeners_start(listeners);
    }
}
