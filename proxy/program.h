/* proxy_program: how a program gets a session without a browser of its own (docs/login.md): an address
 * for the person's browser, then a token for the code that comes back. */
#pragma once

#include "proxy/app.h"
#include "proxy/exchange.h"

/* GET /.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:PORT/…: the address, as text.
 * pomerium_tunnel=host:port: for a tunnel of this host. pomerium_binding: base64url of SHA-256 of a
 * verifier (RFC 7636, S256): a code comes back, else the token itself. */
void proxy_program_login(struct proxy_exchange *x);
/* GET /.pomerium/api/v1/token?pomerium_code=…&pomerium_verifier=…[&pomerium_tunnel=…]: the token. */
void proxy_program_token(struct proxy_exchange *x);
void proxy_program_redeemed(struct proxy_exchange *x, const struct proxy_redeem *redeem);
