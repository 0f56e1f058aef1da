/* proxy_snapshot: everything the data plane reads of one configuration: routes, upstreams, TLS,
 * header rules, key material. Made on the main thread, immutable, counted; each worker holds one
 * reference for all of its requests (proxy_epoch, which one thread counts without atomics). */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/assertion.h"
#include "common/diag.h"
#include "common/http/canon.h"
#include "common/http/cookie.h"
#include "common/http/head.h"
#include "common/http/name.h"
#include "proxy/route.h"

/* One upstream server, as a connection sees it. */
struct proxy_endpoint {
    struct sv key; /* equal keys may share connections; also across snapshots */
    const struct config_url *url;
    SSL_CTX *ctx;    /* TLS */
    struct sv name;  /* TLS: what the certificate must say; NUL behind it */
    bool verify;     /* TLS */
    struct sv host;  /* the Host field: host[:port] */
    uint32_t weight; /* at least 1 */
};

struct proxy_snapshot {
    int refs;
    uint64_t generation;
    struct config *config;
    struct proxy_route *routes; /* n_routes, then the authenticate host's */
    size_t n_routes;
    struct proxy_router *router;
    struct proxy_route *authenticate; /* NULL: no login configured */
    struct sv authenticate_authority; /* host[:port] as browsers write it */
    SSL_CTX *server;                  /* NULL: plaintext listener */
    void *certs;                      /* of server, by name: tls.c */
    SSL_CTX *client[2];               /* to upstreams without a CA of their own: [verify] */
    struct http_rules request_rules;
    struct http_rules response_rules;
    struct http_canon_rules canon;
    struct http_cookie_names cookies;
    char cookie_handle[96]; /* __Host-<cookie_name> */
    char cookie_login[96];  /* __Host-<cookie_name>_login */
    struct assertion_keys *assertion;
};

/* ERR_INVALID: with a sentence in d. */
MUST_CHECK enum err proxy_snapshot_new(const struct config *config, uint64_t generation,
                                       struct proxy_snapshot **snapshot_out, struct diag *d);
struct proxy_snapshot *proxy_snapshot_ref(struct proxy_snapshot *snapshot); /* any thread */
void proxy_snapshot_unref(struct proxy_snapshot **snapshot);                /* any thread */

/* A worker's view of a snapshot. */
struct proxy_epoch {
    struct proxy_snapshot *snapshot;
    uint64_t refs;
};

struct proxy_epoch *proxy_epoch_new(struct proxy_snapshot *snapshot); /* takes the reference */
struct proxy_epoch *proxy_epoch_ref(struct proxy_epoch *epoch);
void proxy_epoch_unref(struct proxy_epoch **epoch);
