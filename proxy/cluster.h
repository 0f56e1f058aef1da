/* proxy_cluster: the upstreams of one route: their addresses, who of them is fit, what is under way.
 *
 *   main thread: names ─▶ endpoints ─▶ health checks, ejections ─▶ a new table ─▶ posted to every worker
 *   worker:      its view: the table it picks from, its connections, who waits for one
 *
 * The main thread alone watches and decides, once for all workers; a worker reads its own view and
 * writes only atomic counters, so no request takes a lock. A reload that leaves a route's upstreams as
 * they are keeps the cluster with all it knows; one that changes them keeps the endpoints that stay,
 * with their health, ejection and connections. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/list.h"
#include "common/loop.h"
#include "proxy/balance.h"
#include "proxy/endpoint.h"
#include "proxy/outlier.h"

struct proxy_clusters;
struct proxy_resolver;
struct proxy_watch;
struct proxy_worker;

/* A worker's side; no other thread looks at it once the worker runs. */
struct proxy_view {
    struct proxy_table *table;
    struct proxy_cursor cursor;
    struct list waiting;    /* struct proxy_upstream that want an endpoint or a connection */
    struct list idle;       /* idle connections, newest first */
    uint32_t n_connections; /* this worker's */
} __attribute__((aligned(PROXY_CACHE_LINE)));

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): the last group has its own line */
struct proxy_cluster {
    uint64_t id;
    uint64_t edition;  /* of the route it was made for; 0: of none */
    struct sv id_text; /* the route's, for logs */
    struct config_cluster conf;
    struct arena texts; /* of conf */
    struct loop *main;  /* NULL in tests without one */
    struct proxy_view *views;
    unsigned n_views;
    struct proxy_watch *watch; /* main thread */
    /* Written by all workers, hence on a line of their own; atomic. */
    int refs __attribute__((aligned(PROXY_CACHE_LINE)));
    uint32_t n_requests;
    uint32_t n_connections;
    uint32_t n_pending;
    uint32_t n_retries;
};

struct proxy_cluster *proxy_cluster_ref(struct proxy_cluster *cluster);
void proxy_cluster_unref(struct proxy_cluster **cluster);
/* A run of failures has reached its length; any thread. */
void proxy_cluster_report(struct proxy_cluster *cluster, struct proxy_endpoint *endpoint,
                          enum proxy_outlier_rule rule);

/* ---- all of a proxy; main thread ------------------------------------------------------------- */

struct proxy_clusters *proxy_clusters_new(struct loop *loop, unsigned n_workers,
                                          const struct config_dns *dns);
/* Where tables are posted; before the first commit. */
void proxy_clusters_attach(struct proxy_clusters *clusters, struct proxy_worker **workers);
/* For other names that have to be kept fresh; what was asked for ends before the clusters. */
struct proxy_resolver *proxy_clusters_resolver(struct proxy_clusters *clusters);
/* Stops looking after clusters; the workers' loops must no longer run or never have. */
void proxy_clusters_free(struct proxy_clusters **clusters);

struct proxy_cluster_opts {
    uint64_t id;
    struct sv id_text;
    const struct config_url *const *urls;
    const uint32_t *weights;
    size_t n;
    const struct config_cluster *conf;
    const struct config_route *route; /* NULL: authenticate */
};

/* The cluster in force if nothing about it has changed, or a new one, which does nothing yet. clusters
 * NULL: for tests; always a new one. *cluster_out: one reference for the caller. */
MUST_CHECK enum err proxy_clusters_make(struct proxy_clusters *clusters,
                                        const struct proxy_cluster_opts *opts,
                                        struct proxy_cluster **cluster_out, struct diag *d);
/* From now on these are in force, and no others: new ones begin, those left out end. */
void proxy_clusters_commit(struct proxy_clusters *clusters, struct proxy_cluster *const *list,
                           size_t n, const struct config_dns *dns);
