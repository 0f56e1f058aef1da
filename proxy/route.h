/* proxy_route: which route a request belongs to. The router is made once a configuration and then
 * immutable; any thread may ask, each with a match scratch of its own.
 * Host: exact by hash, else the longest "*suffix" by hash, else other patterns in file order. Within
 * a host the first route in file order that fits; exact paths and prefixes are found by hash. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/http/canon.h"
#include "common/http/name.h"
#include "common/sv.h"

struct proxy_endpoint;

/* A route, ready for use. */
struct proxy_route {
    const struct config_route *config; /* NULL: the authenticate host's implicit route */
    size_t index;                      /* file order */
    void *regex;                       /* pcre2_code, REGEX only */
    struct http_name_set *strip;       /* request fields that never come from the client here */
    struct http_name_set *replace;     /* response fields that set_response_headers speaks for */
    struct proxy_endpoint **endpoints;
    size_t n_endpoints;
    bool authenticate; /* pages of authenticate: no check, cookies pass */
};

struct proxy_router;

/* routes: n of them in file order, all with config; they must outlive the router. ERR_INVALID: a
 * pattern does not compile. */
MUST_CHECK enum err proxy_router_new(struct proxy_route *routes, size_t n,
                                     struct proxy_router **router_out, struct diag *d);
void proxy_router_free(struct proxy_router **router);

enum proxy_route_result {
    PROXY_ROUTE_ERROR = 0, /* the pattern matcher gave up, or a path parameter hides in a prefix */
    PROXY_ROUTE_NO_HOST,
    PROXY_ROUTE_NO_PATH,
    PROXY_ROUTE_FOUND
};

/* host: canonical; port: the request's, never 0 (the scheme's where none was given); path: the
 * canonical path, decoded. *route_out only with FOUND. */
enum proxy_route_result proxy_router_find(const struct proxy_router *router, struct sv host,
                                          uint16_t port, struct sv decoded,
                                          const struct proxy_route **route_out);
/* The request target for the upstream, with the route's rewrite: path as in http_request.path.
 * Appends to out, without query. */
struct buf;
void proxy_route_rewrite(const struct proxy_route *route, const struct http_request *req,
                         struct buf *out);
/* Location of a redirect route. */
void proxy_route_location(const struct proxy_route *route, const struct http_request *req,
                          struct buf *out);
