/* proxy_worker: one thread with its own loop, listener, connections, pools, check stream and access
 * log buffer. Nothing of it is shared on the way of a request but immutable snapshots. The main
 * thread hands it new snapshots and takes its log-ins to authenticate (redeem). */
#pragma once

#include <pthread.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/http/date.h"
#include "common/list.h"
#include "common/loop.h"
#include "common/rpc/client.h"
#include "proxy/acme.h"
#include "proxy/authz_client.h"
#include "proxy/handles.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"

struct proxy_app;

struct proxy_worker {
    struct proxy_app *app;
    unsigned index;
    pthread_t thread;
    struct loop *loop;
    struct proxy_snapshot *snapshot;
    struct proxy_acme *acme; /* open challenges; NULL: none yet */
    struct proxy_authz *authz;
    struct proxy_handles *handles;
    int listener;
    int redirect_listener; /* http_redirect_addr; -1: none */
    struct event *accept;
    struct event *accept_redirect; /* NULL: none */
    struct event *tick;
    struct list conns;
    size_t n_conns;
    struct list exchanges; /* under way */
    struct list spare;     /* exchanges to be used again; proxy/exchange.c */
    size_t n_spare;
    struct list spent; /* those that ended in this turn */
    struct proxy_spares spares;
    struct list upstreams;
    struct list h2_dirty; /* connections of HTTP/2 that have something to send */
    struct buf access;    /* lines of this turn */
    struct http_date date;
    bool stopping;
    bool accept_paused; /* out of descriptors: the next tick tries again */
    int64_t stop_at_ms;
    char scratch[PROXY_IO_SCRATCH];
};

enum { PROXY_CONNS_MAX = 50000 };

/* ERR_IO: the address cannot be listened on. */
MUST_CHECK enum err proxy_worker_new(struct proxy_app *app, unsigned index,
                                     struct proxy_snapshot *snapshot,
                                     struct proxy_worker **worker_out, struct diag *d);
/* Main thread. */
void proxy_worker_start(struct proxy_worker *worker);
void proxy_worker_set(struct proxy_worker *worker, struct proxy_snapshot *snapshot);
void proxy_worker_set_acme(struct proxy_worker *worker, struct proxy_acme *acme);
/* Takes no more connections, lets the open requests end, then calls proxy_app_worker_stopped. */
void proxy_worker_stop(struct proxy_worker *worker);
void proxy_worker_free(struct proxy_worker **worker); /* after its thread ended */
