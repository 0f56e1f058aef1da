/* proxy_forward_auth: verdicts for other proxies, that forward what is allowed themselves: nginx's
 * auth_request, ingress-nginx's auth-url, Traefik's ForwardAuth, Caddy's forward_auth.
 *
 *   GET /.pomerium/auth/nginx?host=$host   X-Original-URL, X-Original-Method
 *   GET /.pomerium/auth/traefik, …/caddy   X-Forwarded-Method, -Proto, -Host, -Uri
 *
 * The path names who asks and so which fields tell the client's request; they are never mixed, none is
 * missing, none comes twice. From then on the exchange is that request: its route, session, check and
 * audit line are those of a request that came to us. The answer is a verdict and never anything else:
 * only an ALLOW becomes a 2xx. Owned by one worker. User's view: docs/migrate-forward-auth.md. */
#pragma once

#include "proxy/exchange.h"

/* Whether a request target begins like one of them: x is PROXY_FOR_VERDICT then. */
bool proxy_forward_auth_path(struct sv target);
/* True: x is the client's request now and is to be judged. False: it was refused,
 * because of who asked or of what was asked. */
MUST_CHECK bool proxy_forward_auth_take(struct proxy_exchange *x);
/* After an ALLOW: 200 with the identity headers, and the Cookie and Authorization of the application. */
void proxy_forward_auth_allow(struct proxy_exchange *x);
/* After a LOGIN: where to, in the way that the asking proxy understands. */
void proxy_forward_auth_login(struct proxy_exchange *x);
/* The status of a DENY that would have this one: auth_request knows 401 and 403, and takes others for a
 * failure of ours. */
unsigned proxy_forward_auth_denied(const struct proxy_exchange *x, unsigned status);
