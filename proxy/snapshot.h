/* proxy_snapshot: one configuration, made ready for requests: routes by host, compiled patterns,
 * TLS contexts, header rules, keys. Built whole or not at all on the main thread, immutable after,
 * shared by the workers, refcounted: a request keeps the one it began with. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/crypto/assertion.h"
#include "common/diag.h"
#include "common/http/canon.h"
#include "common/http/cookie.h"
#include "common/http/name.h"
#include "common/loop.h"
#include "common/route/table.h"
#include "proxy/cluster.h"
#include "proxy/trust.h"

/* What a configuration says in the answers of its routes, in one place for all that say the same. */
struct proxy_answer_rules {
    const struct config_pairs *set; /* fields that every answer gets */
    struct buf lines;               /* the same, as lines of HTTP/1 */
    struct http_name_set *drop;     /* fields of an upstream that they replace */
};

struct proxy_route {
    const struct config_route *config;  /* NULL: an internal route of ours */
    struct proxy_cluster *cluster;      /* NULL: nothing is forwarded */
    struct proxy_trust *trust;          /* for client certificates, borrowed; NULL: none applies */
    struct http_name_set *drop;         /* request fields that it sets or removes; NULL: none */
    struct proxy_answer_rules *answers; /* in answers */
};

struct proxy_snapshot {
    struct config *config;
    struct route_table *table;
    struct proxy_route *routes;
    size_t n_routes;
    struct proxy_route authenticate; /* the login host; cluster NULL: none */
    char authenticate_host[PROXY_HOST_MAX];
    SSL_CTX *tls;                /* of the listener; NULL: insecure_server */
    struct map *certs;           /* name or *.name → struct shown of tls.c: its certificates */
    struct shown *nameless;      /* of visitors who name no host, or an unknown one */
    struct proxy_trust **trusts; /* for client certificates, each once; none: not asked for */
    size_t n_trusts;
    struct proxy_trust *trust; /* of routes that have no CA of their own; NULL: none applies */
    struct proxy_answer_rules *answers; /* of routes that set no answer fields of their own */
    struct http_name_set *ours;         /* request fields that nobody may bring along */
    struct http_session_cookies cookies;
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
/* Whether host is one of ours, a route's or the login host, and where it listens for https: the port
 * that its first route or authenticate_service_url names; 0: none is named. */
bool proxy_snapshot_https_port(const struct proxy_snapshot *snapshot, struct sv host,
                               uint16_t *port_out);
/* Which of trusts (bit i for trusts[i], modulo 64) the routes of host ask by. */
uint64_t proxy_snapshot_trusts_of(const struct proxy_snapshot *snapshot, struct sv host);

/* Its part here; of NULL: NULL. */
static inline struct proxy_route *proxy_snapshot_route(const struct proxy_snapshot *snapshot,
                                                       const struct config_route *route)
{
    return route == NULL ? NULL : &snapshot->routes[route->index];
}

/* The same route in a newer snapshot; NULL: gone. */
const struct proxy_route *proxy_snapshot_same_route(const struct proxy_snapshot *snapshot,
                                                    const struct proxy_route *route);
