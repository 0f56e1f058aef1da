/* proxy_listener: where clients come in: a worker's share of the listening sockets, and when it
 * accepts from them. Sockets of ours: one a worker, the kernel spreads connections (SO_REUSEPORT).
 * Sockets of a service manager, which passes one for each address, and unix sockets: all workers
 * accept from the same ones, whoever comes first. Owned by one worker. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/listen.h"

struct event;
struct proxy_worker;

/* Of all workers. */
struct proxy_sockets {
    struct listen_set http;     /* address */
    struct listen_set redirect; /* http_redirect_addr */
};

struct proxy_listener {
    struct proxy_worker *worker;
    int fd;
    bool shared;   /* other workers accept from it, too */
    bool to_https; /* it is one of http_redirect_addr */
    struct event *accept;
};

struct proxy_listeners {
    struct proxy_listener *v;
    size_t n;
    bool passed;
    bool accepting;
    bool paused; /* out of descriptors: the next tick tries again */
};

/* Main thread: the sockets of n workers. ERR_IO. */
MUST_CHECK enum err proxy_listeners_open(const struct config *config, size_t n,
                                         struct proxy_sockets *sockets_out, struct diag *d);
/* The share of worker, which is one of n; in descriptors of its own. ERR_IO. */
MUST_CHECK enum err proxy_listeners_init(struct proxy_listeners *listeners,
                                         struct proxy_worker *worker,
                                         const struct proxy_sockets *sockets, size_t n,
                                         struct diag *d);
void proxy_listeners_deinit(struct proxy_listeners *listeners);
void proxy_listeners_start(struct proxy_listeners *listeners);
/* What has connected is taken, then no more; sockets of ours refuse from now on. */
void proxy_listeners_stop(struct proxy_listeners *listeners);
void proxy_listeners_tick(struct proxy_listeners *listeners);
