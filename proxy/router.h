/* proxy_router: which route a request belongs to: the host by hash, its path by an index, so that
 * 10,000 routes cost what ten do. The first route that fits wins: in the order of the file, where
 * regex routes of one `from` that have a regex_priority_order stand in each other's places, the
 * highest first. Hosts with routes of their own are served by those alone, others by the routes whose
 * host holds '*'. Routes of tunnels are found by what CONNECT names, and never by a request. Immutable after it is built; any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct proxy_route;
struct proxy_router;

/* Borrows routes, whose configuration and patterns are set, and sets their ranks. */
struct proxy_router *proxy_router_new(struct proxy_route *routes, size_t n);
void proxy_router_free(struct proxy_router **router);

/* NULL: none fits. host is lower case, path canonical and decoded.
 * *unclear_out (then NULL, too): the path has two readings, of a server that cuts off ";parameters"
 * and of one that does not, and they belong to two routes; or a pattern hit its bounds. */
struct proxy_route *proxy_router_find(const struct proxy_router *router, struct sv host,
                                      uint16_t port, struct sv path, bool *unclear_out);
/* The tcp route of a tunnel to host:port. NULL: none; tunnels lead nowhere else. */
struct proxy_route *proxy_router_tunnel(const struct proxy_router *router, struct sv host,
                                        uint16_t port);
/* Those of tunnels count, by the name that clients come to. */
bool proxy_router_has_host(const struct proxy_router *router, struct sv host);
/* Calls fn for every route of host, those with '*' too, in no order. */
typedef void (*proxy_router_each_fn)(struct proxy_route *route, void *arg);
void proxy_router_each(const struct proxy_router *router, struct sv host, proxy_router_each_fn fn,
                       void *arg);
