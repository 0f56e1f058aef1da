/* proxy_upstream: a connection to an endpoint: connected, TLS done, kept for the next request. HTTP/1: one
 * exchange at a time; its owner (an exchange) gets events through hooks. Idle ones wait in the
 * endpoint's slot of their worker, newest first, and are closed when the upstream speaks or leaves.
 * HTTP/2 (by ALPN, or h2c://): shared by many exchanges, each with a stream (proxy/h2.h). Of many that
 * come at once to an endpoint that may speak it one connects, and the others wait to see: until it has
 * said how many streams it takes, or turns out to speak HTTP/1. Owned by one worker.
 *
 *   WAITING ──an address, a free place──▶ CONNECTING ──▶ HANDSHAKE ──▶ READY ⇄ IDLE ──▶ closed
 *      ▲                                      │ failed       │ failed
 *      └───────── the next endpoint ◀─────────┴──────────────┘
 */
#pragma once

#include "common/base.h"
#include "common/list.h"
#include "proxy/claim.h"
#include "proxy/pipe.h"

struct proxy_worker;
struct proxy_upstream;
struct proxy_h2;
struct proxy_h2_hooks;

/* PROXY_CONNECT_MS: for all attempts. PROXY_ATTEMPT_MS: for one while there are others to try. */
enum {
    PROXY_CONNECT_MS = 10000,
    PROXY_ATTEMPT_MS = 3000,
    PROXY_ATTEMPTS_MAX = 4,
    PROXY_IDLE_MS = 60000,
    PROXY_IDLE_MAX = 512
};

struct proxy_upstream_hooks {
    void (*ready)(void *owner); /* connected to the claim's endpoint */
    /* Another's connection has room for a stream: that is the one; up is gone. */
    void (*shared)(void *owner, struct proxy_h2 *h2);
    /* Could not be; up is gone. status: 502, 503. */
    void (*failed)(void *owner, unsigned status, const char *why);
    void (*readable)(void *owner);
    void (*writable)(void *owner);
    const struct proxy_h2_hooks *h2; /* for the streams of HTTP/2 */
};

enum {                           /* what kind of connection is wanted */
       PROXY_UPSTREAM_FRESH = 1, /* none that was kept */
       PROXY_UPSTREAM_H1 = 2     /* an upgrade: HTTP/1 only */
};

struct proxy_upstream {
    struct list in_slot;   /* idle: the endpoint's */
    struct list in_view;   /* idle, or waiting: the view's */
    struct list in_worker; /* all of the worker's, for the clock */
    struct proxy_worker *worker;
    struct proxy_cluster *cluster;   /* that it counts for */
    struct proxy_endpoint *endpoint; /* NULL: none tried yet */
    struct proxy_claim *claim;       /* the owner's, until ready */
    struct proxy_io io;
    struct proxy_h2 *h2; /* NULL: HTTP/1, or not connected yet */
    unsigned flags;      /* as it was asked for */
    struct event *rd;
    struct event *wr;
    bool rd_on;
    bool wr_on;
    bool follows; /* waits for what becomes of the endpoint's first connection */
    bool pending; /* counted as a request that waits for a connection */
    bool counted; /* as a connection */
    bool connected;
    bool handshaking;
    bool reused;         /* it served another request before: it may have died since */
    unsigned attempts;   /* so far */
    int64_t deadline_ms; /* connecting or idle */
    int64_t attempt_ms;  /* this attempt */
    const struct proxy_upstream_hooks *hooks;
    void *owner; /* NULL: idle */
    struct proxy_window in;
    struct proxy_out out;
};

/* A kept connection of HTTP/1 for claim, or a new one that may turn out to speak HTTP/2 (its h2 is set
 * then). hooks->ready or another comes later, never from within. claim lives as long as its owner has
 * up. flags: PROXY_UPSTREAM_*. */
struct proxy_upstream *proxy_upstream_get(struct proxy_worker *worker, struct proxy_claim *claim,
                                          unsigned flags, const struct proxy_upstream_hooks *hooks,
                                          void *owner);
/* A connection of HTTP/2 to the claim's endpoint that has room for a stream. NULL: none. */
struct proxy_h2 *proxy_upstream_shared(struct proxy_worker *worker,
                                       const struct proxy_claim *claim);
/* A new connection turned out to speak HTTP/2: its first owner leaves it to everyone. */
struct proxy_h2 *proxy_upstream_share(struct proxy_upstream **up);
/* To the next who waits or the idle ones, if it is clean and there is room. */
void proxy_upstream_put(struct proxy_upstream **up);
void proxy_upstream_close(struct proxy_upstream **up);
void proxy_upstream_want(struct proxy_upstream *up, bool read, bool write);
/* Closes what took too long to connect or idled too long. */
void proxy_upstream_tick(struct proxy_worker *worker, int64_t now_ms);
/* The view has a new table: who waits looks again, connections to what is gone are closed. */
void proxy_upstream_changed(struct proxy_view *view);

/* The connection's part of hooks.h2. */
void proxy_upstream_h2_want(void *up, bool write);
void proxy_upstream_h2_settled(void *up);
void proxy_upstream_h2_quiet(void *up);
void proxy_upstream_h2_freed(void *up);
void proxy_upstream_h2_broken(void *up);
