/* proxy_snapshot: one configuration, made ready for requests: routes by host, compiled patterns,
 * TLS contexts, header rules, keys. Built whole or not at all on the main thread, immutable after,
 * shared by the workers, refcounted: a request keeps the one it began with. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/assertion.h"
#include "common/diag.h"
#include "common/http/canon.h"
#include "common/http/cookie.h"
#include "common/http/name.h"
#include "common/loop.h"
#include "proxy/cluster.h"
#include "proxy/router.h"

struct proxy_route {
    const struct config_route *config; /* NULL: an internal route of ours */
    size_t rank;                       /* set by the router */
    struct proxy_cluster *cluster;     /* NULL: nothing is forwarded */
    struct http_name_set *drop;        /* request fields that the route removes or sets */
    struct http_name_set *drop_answer; /* response fields that it sets */
};

struct proxy_snapshot {
    struct config *config;
    struct proxy_router *router;
    struct proxy_route *routes;
    size_t n_routes;
    struct proxy_route authenticate; /* the login host; cluster NULL: none */
    char authenticate_host[PROXY_HOST_MAX];
    SSL_CTX *tls;      /* of the listener; NULL: insecure_server */
    struct map *certs; /* name or *.name → SSL_CTX */
    SSL_CTX **contexts;
    size_t n_contexts;
    struct http_name_set *ours; /* request fields that nobody may bring along */
    struct http_cookie_names cookies;
    char cookie_name[128]; /* __Host-… */
    char login_name[136];  /* __Host-…_login */
    struct http_canon_rules canon;
    struct http_rules head;
    struct assertion_keys *assertion;
    struct loop *home; /* the last reference frees it there; NULL: where it is let go */
    int refs;          /* atomic */
};

/* clusters: those in force, to go on with what stays; NULL in tests. Main thread. */
MUST_CHECK enum err proxy_snapshot_new(const struct config *config, struct proxy_clusters *clusters,
                                       struct proxy_snapshot **snapshot_out, struct diag *d);
/* It is the one in force from now on: its upstreams are looked after, others no more. Main thread. */
void proxy_snapshot_commit(const struct proxy_snapshot *snapshot, struct proxy_clusters *clusters);
struct proxy_snapshot *proxy_snapshot_ref(struct proxy_snapshot *snapshot);
void proxy_snapshot_unref(struct proxy_snapshot **snapshot);
