/* proxy_watch: the main thread's side of a cluster: where its endpoints come from, how they fare, and
 * the tables that follow from it. Main thread. */
#pragma once

#include "common/base.h"
#include "proxy/cluster.h"
#include "proxy/probe.h"
#include "proxy/resolve.h"

struct proxy_watch;

/* What all watches share; owned by proxy_clusters. */
struct proxy_watch_room {
    struct loop *loop;
    struct proxy_resolver *resolver;
    struct proxy_prober *prober;
    struct proxy_worker **workers; /* NULL: none runs yet */
    unsigned n_workers;
    struct list dirty; /* watches whose table no longer fits */
    struct event *rebuild;
};

/* One entry of `to`. */
struct proxy_source_opts {
    struct proxy_target *target; /* its reference is taken over */
    uint32_t weight;
};

/* Endpoints, and what is known of them, are those of before where it has them; before may be NULL. The
 * first table is put into the cluster's views at once: no worker knows it yet. */
struct proxy_watch *proxy_watch_new(struct proxy_cluster *cluster,
                                    const struct proxy_source_opts *sources, size_t n,
                                    const struct proxy_watch *before, unsigned n_workers);
/* Looks names up, checks health. */
void proxy_watch_start(struct proxy_watch *watch, struct proxy_watch_room *room);
void proxy_watch_stop(struct proxy_watch *watch);
void proxy_watch_free(struct proxy_watch **watch);
/* Entries of `to`, and whether entry i leads to the target of key with weight. */
size_t proxy_watch_sources(const struct proxy_watch *watch);
bool proxy_watch_has(const struct proxy_watch *watch, size_t i, const char *key, uint32_t weight);
/* A target of this key, or NULL; borrowed. */
struct proxy_target *proxy_watch_target(const struct proxy_watch *watch, const char *key);
void proxy_watch_eject(struct proxy_watch *watch, struct proxy_endpoint *endpoint,
                       enum proxy_outlier_rule rule);
/* The room's event: makes the tables that are due. */
void proxy_watch_rebuild(struct proxy_watch_room *room);
