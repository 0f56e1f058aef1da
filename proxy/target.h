/* proxy_target: one entry of a route's `to`: what is spoken there and to whom, without an address yet.
 * Owns all it needs, so that it outlives the configuration it came from. Immutable but for warned_day;
 * refcounted; any thread. */
#pragma once

#include <openssl/ssl.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "proxy/sockaddr.h"

enum { PROXY_HOST_MAX = 300, PROXY_TARGET_KEY_MAX = 1024 };

struct proxy_upstream_tls;

struct proxy_target {
    char *key;             /* everything that decides whether a connection may be shared */
    struct config_url url; /* a copy of its own */
    struct proxy_upstream_tls *tls_settings;
    SSL_CTX *tls;      /* theirs; NULL: plain */
    char *server_name; /* what its certificate must say */
    bool verify;
    char *host_header; /* host[:port] for the Host field */
    struct arena texts;
    uint32_t warned_day; /* of its certificate's end; atomic */
    int refs;            /* atomic */
};

/* Equal keys, equal targets. route NULL: authenticate, inside. */
void proxy_target_key(const struct config_url *url, const struct config_route *route,
                      char key[PROXY_TARGET_KEY_MAX]);
/* ERR_INVALID with a sentence. */
MUST_CHECK enum err proxy_target_new(const struct config_url *url, const struct config_route *route,
                                     struct proxy_target **target_out, struct diag *d);
struct proxy_target *proxy_target_ref(struct proxy_target *target);
void proxy_target_unref(struct proxy_target **target);
/* True: the target names its address itself: a socket, an IP address, localhost. */
bool proxy_target_literal(const struct proxy_target *target, struct proxy_sockaddr *address_out);
/* The host to look up, without brackets. */
void proxy_target_host(const struct proxy_target *target, char host[PROXY_HOST_MAX]);
