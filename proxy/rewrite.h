/* proxy_rewrite: what a route makes of a request's path and host, and of its upstream's headers. The
 * check was about the path as it came; a rewritten one is taken only if it has one reading, climbs
 * nowhere and is a valid target. Pure functions; any thread, results in arena or in what they came
 * from. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/http/canon.h"
#include "common/sv.h"

enum { PROXY_REWRITE_MAX = 16384 };

/* path: canonical. ERR_LIMIT: too long, or a pattern at its bounds; ERR_INVALID: the result is no
 * plain path. rules: those that path was read by. */
MUST_CHECK enum err proxy_rewrite_path(const struct config_route *route,
                                       const struct http_canon_rules *rules, struct sv path,
                                       struct arena *arena, struct sv *path_out);
/* Host for the upstream; {NULL, 0}: its own. header: value of host_rewrite_header, {NULL, 0} where
 * there is none. ERR_INVALID: what came out is no host; ERR_LIMIT: as above. */
MUST_CHECK enum err proxy_rewrite_host(const struct config_route *route,
                                       const struct http_request *req, struct sv header,
                                       struct arena *arena, struct sv *host_out);
/* A value of the upstream's header name; itself where no rule fits. */
struct sv proxy_rewrite_header(const struct config_route *route, struct sv name, struct sv value,
                               struct arena *arena);
/* Appends where a redirect route sends a request. https: how the request came. */
void proxy_rewrite_location(const struct config_route *route, const struct http_request *req,
                            bool https, struct buf *out);
