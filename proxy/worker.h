/* proxy_worker: one thread with its own loop, listener, connections, pools, check stream and access
 * log buffer. Nothing of it is shared on the way of a request but immutable snapshots. The main
 * thread hands it new snapshots and takes its log-ins to authenticate (redeem). */
#pragma once

#include <pthread.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/home.h"
#include "common/http/date.h"
#include "common/list.h"
#include "common/loop.h"
#include "common/pace.h"
#include "common/rpc/client.h"
#include "proxy/acme.h"
#include "proxy/authz_client.h"
#include "proxy/handles.h"
#include "proxy/listener.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"

struct proxy_app;
struct proxy_bearers;
struct proxy_conn;
struct sockaddr;

/* From so many exchanges that ended in one turn on, streams of HTTP/2 are read no further in it: who
 * begins and resets them by the thousand gets one batch at a time. */
enum { PROXY_SPENT_MAX = 128 };

struct proxy_worker {
    struct proxy_app *app;
    unsigned index;
    pthread_t thread;
    struct loop *loop;
    struct pace pace;
    struct home home;
    unsigned place; /* home's, for the other workers; atomic */
    struct proxy_snapshot *snapshot;
    struct proxy_acme *acme; /* open challenges; NULL: none yet */
    struct proxy_authz *authz;
    struct proxy_handles *handles;
    struct proxy_bearers *bearers;
    struct proxy_listeners listeners;
    struct loop_tick *tick;
    unsigned ticks;
    struct list conns;
    size_t n_conns;
    size_t n_old;          /* those that were open when the worker was told to stop */
    struct list exchanges; /* under way */
    struct list spare;     /* exchanges to be used again; proxy/exchange.c */
    size_t n_spare;
    struct list spent; /* those that ended since the last flush */
    size_t n_spent;
    struct proxy_spares spares;
    struct list upstreams;
    struct list h2_dirty; /* connections of HTTP/2 that have something to send */
    struct list late;     /* connections whose turn comes when nobody else waits; one at a time */
    struct buf access;    /* lines not written yet */
    struct http_date date;
    bool stopping;
    int64_t stop_at_ms;
    char scratch[PROXY_IO_SCRATCH];
};

/* At most one exchange is under way. */
static inline bool proxy_worker_is_alone(const struct proxy_worker *worker)
{
    return worker->exchanges.next == worker->exchanges.prev;
}

struct proxy_worker *proxy_worker_new(struct proxy_app *app, unsigned index,
                                      struct proxy_snapshot *snapshot);
/* Accepts from its share of the sockets, as one of n workers, once it runs. ERR_IO. */
MUST_CHECK enum err proxy_worker_listen(struct proxy_worker *worker,
                                        const struct proxy_sockets *sockets, size_t n,
                                        struct diag *d);
/* A connection to be taken, or closed where there are too many; one that has ended. */
void proxy_worker_take(struct proxy_worker *worker, int client, const struct sockaddr *address,
                       bool to_https);
void proxy_worker_gone(struct proxy_worker *worker, const struct proxy_conn *conn);
/* With each request that is to be checked: whether it came in a crowd, and the client's socket. */
void proxy_worker_pace(struct proxy_worker *worker, bool crowd, int fd);
/* Main thread. */
void proxy_worker_start(struct proxy_worker *worker);
void proxy_worker_set(struct proxy_worker *worker, struct proxy_snapshot *snapshot);
void proxy_worker_set_authorizes(struct proxy_worker *worker, const struct proxy_sockaddr *v,
                                 size_t n);
void proxy_worker_set_acme(struct proxy_worker *worker, struct proxy_acme *acme);
/* Takes no more connections, lets the open requests end, for shutdown_grace_period at most, then
 * calls proxy_app_worker_stopped. Sockets of a service manager are accepted from as long as an old
 * connection is open: until we have ended, nobody else does. */
void proxy_worker_stop(struct proxy_worker *worker);
void proxy_worker_free(struct proxy_worker **worker); /* after its thread ended */
