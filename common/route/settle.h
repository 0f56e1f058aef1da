/* route_settle: what could not be decided before the route was known: a request is read in the
 * strictest way that tells its route, and the route's own settings then say what to make of the rest.
 *
 *   - Names of fields with '_' play no part in finding a route: they are marked, and refused, dropped
 *     or passed afterwards.
 *   - An escaped slash is read as an ordinary character of its segment. A path that holds one must
 *     belong to the same route when it is read as '/', too: two servers may read it differently, but
 *     never into two routes.
 * Pure functions; any thread. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/http/canon.h"
#include "common/http/head.h"
#include "common/route/table.h"

/* Whether a path is one of Postern's own, on every host: canonical and decoded. */
bool route_own_path(struct sv path);
/* How to read before the route is known. */
void route_settle_rules(const struct config *config, struct http_canon_rules *canon_out,
                        struct http_rules *head_out);
/* HTTP_FAULT_NONE, or why it is refused. */
MUST_CHECK enum http_fault route_settle_names(struct http_head *head,
                                              enum config_underscores action);
/* True: the path holds an escaped slash, so that route_settle_path has something to say. */
bool route_settle_needed(const struct http_request *req);
/* route: found for req as it is read now; NULL: none of the configuration's, the request is refused.
 * Changes req's path to the other reading where the route wants that. */
MUST_CHECK enum http_fault route_settle_path(const struct route_table *table,
                                             const struct config_route *route,
                                             const struct http_canon_rules *rules,
                                             struct arena *arena, struct http_request *req);
