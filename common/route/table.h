/* route_table: which route a request belongs to: the host by hash, its path by an index, so that
 * 10,000 routes cost what ten do. The first route that fits wins: in the order of the file, where
 * regex routes of one `from` that have a regex_priority_order stand in each other's places, the
 * highest first. Hosts with routes of their own are served by those alone, others by the routes whose
 * host holds '*'. Routes of tunnels are found by what CONNECT names, and never by a request. Immutable after it is built; any thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/sv.h"

struct route_table;

/* Borrows a configuration's routes, all n of them. */
struct route_table *route_table_new(const struct config_route *routes, size_t n);
void route_table_free(struct route_table **table);

/* NULL: none fits. host is lower case, path canonical and decoded.
 * *unclear_out (then NULL, too): the path has two readings, of a server that cuts off ";parameters"
 * and of one that does not, and they belong to two routes; or a pattern hit its bounds. */
const struct config_route *route_table_find(const struct route_table *table, struct sv host,
                                            uint16_t port, struct sv path, bool *unclear_out);
/* The tcp route of a tunnel to host:port. NULL: none; tunnels lead nowhere else. */
const struct config_route *route_table_tunnel(const struct route_table *table, struct sv host,
                                              uint16_t port);
/* Those of tunnels count, by the name that clients come to. */
bool route_table_has_host(const struct route_table *table, struct sv host);
/* Where a route stands among those that fit a request: the lowest wins. */
size_t route_table_rank(const struct route_table *table, const struct config_route *route);
/* Calls fn for every route of host, those with '*' too, in no order. */
typedef void (*route_table_each_fn)(const struct config_route *route, void *arg);
void route_table_each(const struct route_table *table, struct sv host, route_table_each_fn fn,
                      void *arg);
