/* proxy_authz_names: where the authorizes are. Each target of authorize_service_url stands for all
 * addresses its name has; names are looked up on a thread of their own (there is none without names),
 * again every 30 s, after a failure every 5 s. A failed look-up changes nothing: the last good answer stays. Owned by one worker. */
#pragma once

#include "common/loop.h"
#include "proxy/dial.h"

enum { PROXY_AUTHZ_ADDRESSES_MAX = 16 }; /* for one worker; beyond it the first ones count */

struct proxy_authz_names;

struct proxy_authz_names_opts {
    const char *const *targets; /* "unix:/path" or "host:port"; copied */
    size_t n_targets;
    struct loop *loop;
    /* All addresses, each once; called from proxy_authz_names_tick, and after look-ups. */
    void (*on_addresses)(void *arg, const struct proxy_sockaddr *v, size_t n);
    void *arg;
};

struct proxy_authz_names *proxy_authz_names_new(const struct proxy_authz_names_opts *opts);
void proxy_authz_names_free(struct proxy_authz_names **names);
/* Begins the look-ups that are due; the first call gives what needs none. */
void proxy_authz_names_tick(struct proxy_authz_names *names, int64_t now_ms);
