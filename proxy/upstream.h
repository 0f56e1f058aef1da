/* proxy_upstream: a connection to an upstream: resolved, connected, TLS done, pooled. One exchange
 * at a time; its owner (an exchange of a client's connection) gets events through hooks. Idle ones
 * wait in a pool of their worker, newest first, and are closed when the upstream speaks or leaves.
 * Owned by one worker. */
#pragma once

#include "common/base.h"
#include "common/list.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"

struct proxy_worker;
struct proxy_upstream;

enum { PROXY_CONNECT_MS = 10000, PROXY_IDLE_MS = 60000, PROXY_IDLE_MAX = 512 };

struct proxy_upstream_hooks {
    void (*ready)(void *owner);                   /* connected */
    void (*failed)(void *owner, const char *why); /* could not be; up is gone */
    void (*readable)(void *owner);
    void (*writable)(void *owner);
};

struct proxy_upstream {
    struct list in_pool;
    struct proxy_worker *worker;
    struct pool *pool; /* where it idles; lives as long as the worker */
    struct proxy_io io;
    struct event *rd;
    struct event *wr;
    bool rd_on;
    bool wr_on;
    bool connected;
    bool handshaking;
    bool reused;         /* it came out of the pool: it may have died there */
    int64_t deadline_ms; /* connecting or idle */
    const struct proxy_upstream_hooks *hooks;
    void *owner; /* NULL: idle or resolving for nobody */
    struct proxy_window in;
    struct proxy_out out;
    struct list in_worker; /* all of the worker's, for the clock */
    struct resolve *resolve;
    struct proxy_snapshot *snapshot; /* while connecting */
    struct proxy_target *target;
};

/* A pooled connection, or a new one. hooks->ready comes later, never from within; fresh: not from
 * the pool. */
struct proxy_upstream *proxy_upstream_get(struct proxy_worker *worker,
                                          struct proxy_snapshot *snapshot,
                                          struct proxy_target *target, bool fresh,
                                          const struct proxy_upstream_hooks *hooks, void *owner);
/* Back to the pool, if it is clean and there is room. */
void proxy_upstream_put(struct proxy_upstream **up);
void proxy_upstream_close(struct proxy_upstream **up);
void proxy_upstream_want(struct proxy_upstream *up, bool read, bool write);
/* Closes what took too long to connect or idled too long. */
void proxy_upstream_tick(struct proxy_worker *worker, int64_t now_ms);
