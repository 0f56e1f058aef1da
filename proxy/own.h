/* proxy_own: what the proxy answers by itself on every route's host: liveness, keys, sign-out, the
 * way back from a login; and routes that are redirects. */
#pragma once

#include "proxy/exchange.h"

/* True: answered. False: a page for somebody who is logged in. */
bool proxy_own_serve(struct proxy_exchange *x);
/* That page, after an ALLOW. True: answered. False: authenticate renders it. */
bool proxy_own_page(struct proxy_exchange *x);
/* A preflight, where the route's cors block says that we answer. */
void proxy_own_preflight(struct proxy_exchange *x);
/* True: it was /robots.txt, answered with "keep out": what nobody may see is nothing to index. */
bool proxy_own_robots(struct proxy_exchange *x);
/* For the plain listener beside the TLS one: where this is at https, if the host is one of ours. */
void proxy_own_to_https(struct proxy_exchange *x);
/* True: answered, as an open challenge of an ACME order. */
bool proxy_own_challenge(struct proxy_exchange *x);
/* The route's redirect. */
void proxy_own_redirect(struct proxy_exchange *x);
