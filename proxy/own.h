/* proxy_own: what the proxy answers by itself on every route's host: liveness, keys, sign-out, the
 * way back from a login; and routes that are redirects. */
#pragma once

#include "proxy/exchange.h"

/* True: answered. False: a page that authenticate renders for somebody who is logged in. */
bool proxy_own_serve(struct proxy_exchange *x);
/* The route's redirect. */
void proxy_own_redirect(struct proxy_exchange *x);
/* Whether the certificate of this connection covers the host that is asked for, or none does. */
bool proxy_own_covers(const struct proxy_exchange *x);
