/* proxy_upstream: a connection to an upstream: resolved, connected, TLS done, pooled. HTTP/1: one
 * exchange at a time; its owner (an exchange) gets events through hooks. Idle ones wait in a pool of
 * their worker, newest first, and are closed when the upstream speaks or leaves. HTTP/2 (by ALPN, or
 * h2c://): shared by many exchanges, each with a stream (proxy/h2.h). Owned by one worker. */
#pragma once

#include "common/base.h"
#include "common/list.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"

struct proxy_worker;
struct proxy_upstream;
struct proxy_h2;
struct proxy_h2_hooks;

enum { PROXY_CONNECT_MS = 10000, PROXY_IDLE_MS = 60000, PROXY_IDLE_MAX = 512 };

struct proxy_upstream_hooks {
    void (*ready)(void *owner);                   /* connected */
    void (*failed)(void *owner, const char *why); /* could not be; up is gone */
    void (*readable)(void *owner);
    void (*writable)(void *owner);
    const struct proxy_h2_hooks *h2; /* for the streams of HTTP/2 */
};

enum {                           /* what kind of connection is wanted */
       PROXY_UPSTREAM_FRESH = 1, /* not from the pool */
       PROXY_UPSTREAM_H1 = 2     /* an upgrade: HTTP/1 only */
};

struct proxy_upstream {
    struct list in_pool;
    struct proxy_worker *worker;
    struct pool *pool; /* where it idles; lives as long as the worker */
    struct proxy_io io;
    struct proxy_h2 *h2; /* NULL: HTTP/1, or not connected yet */
    bool h1_only;
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

/* A pooled connection of HTTP/1, or a new one that may turn out to speak HTTP/2 (its h2 is set then).
 * hooks->ready comes later, never from within. flags: PROXY_UPSTREAM_*. */
struct proxy_upstream *proxy_upstream_get(struct proxy_worker *worker,
                                          struct proxy_snapshot *snapshot,
                                          struct proxy_target *target, unsigned flags,
                                          const struct proxy_upstream_hooks *hooks, void *owner);
/* A connection of HTTP/2 to target that has room for a stream; the pool's. NULL: none. */
struct proxy_h2 *proxy_upstream_shared(struct proxy_worker *worker,
                                       const struct proxy_target *target);
/* A new connection turned out to speak HTTP/2: its first owner leaves it to everyone. */
struct proxy_h2 *proxy_upstream_share(struct proxy_upstream **up);
/* Back to the pool, if it is clean and there is room. */
void proxy_upstream_put(struct proxy_upstream **up);
void proxy_upstream_close(struct proxy_upstream **up);
void proxy_upstream_want(struct proxy_upstream *up, bool read, bool write);
/* Closes what took too long to connect or idled too long. */
void proxy_upstream_tick(struct proxy_worker *worker, int64_t now_ms);

/* The connection's part of hooks.h2. */
void proxy_upstream_h2_want(void *up, bool write);
void proxy_upstream_h2_quiet(void *up);
void proxy_upstream_h2_broken(void *up);
