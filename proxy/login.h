/* proxy_login: the proxy's part of a login: the redirect to authenticate, the way back with a
 * one-time code, the session handle's cookie, signing out. Sequence: docs/login.md.
 *
 * The login cookie (__Host-…_login) binds the code to the browser that began. Its value is
 * <22 random>.<rounds>.<since>: rounds counts logins that ended without being let in, within a
 * minute; three of them end in a page that says so instead of a loop. */
#pragma once

#include "proxy/app.h"
#include "proxy/exchange.h"

/* The verdict wants a login: 302 for a navigation without a token, 401 for the rest. */
void proxy_login_needed(struct proxy_exchange *x);
/* GET /.pomerium/sign_in?pomerium_redirect_uri=…: a login for this host, for those who got a verdict
 * about it elsewhere. The way back leads to this host alone. */
void proxy_login_sign_in(struct proxy_exchange *x);
/* GET /.pomerium/callback/?pomerium_code=… */
void proxy_login_callback(struct proxy_exchange *x);
void proxy_login_redeemed(struct proxy_exchange *x, const struct proxy_redeem *redeem);
void proxy_login_sign_out(struct proxy_exchange *x);
/* The handle of a redeemed code, for holder. False: it cannot be made. */
MUST_CHECK bool proxy_login_make_handle(struct proxy_exchange *x, const struct proxy_redeem *redeem,
                                        struct sv holder, struct buf *out);
/* What handles for the tunnel to authority are bound to; in the exchange's arena. */
struct sv proxy_login_tunnel_holder(struct proxy_exchange *x, struct sv authority);
/* What the handles of this request are bound to: its host, or its tunnel; in the arena. */
struct sv proxy_login_holder(struct proxy_exchange *x);
/* Opens the session handle in the request's cookie into x->handle, if there is one. */
void proxy_login_identify(struct proxy_exchange *x);
