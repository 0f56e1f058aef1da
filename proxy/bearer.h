/* proxy_bearer: what the token that a program shows is worth. Our own tokens open here, without I/O: a
 * session handle bound to this host or tunnel, the token of a service account. What opened is remembered
 * for a minute by its SHA-256, with what it was opened for; whether its session still lives is
 * authorize's word each time. Owned by one worker.
 *
 * A token that is shown must hold: a bad one is 401 whatever cookie came with it, and one that belongs
 * to another session than the cookie is 400, so that nobody has to guess who acts. */
#pragma once

#include "common/crypto/keys.h"
#include "proxy/exchange.h"

struct proxy_bearers;

struct proxy_bearers *proxy_bearers_new(const struct keys *keys); /* keys outlive it */
void proxy_bearers_free(struct proxy_bearers **bearers);
/* Opens what the request shows, cookie or token, into x->handle. False: x was answered. */
MUST_CHECK bool proxy_bearer_identify(struct proxy_exchange *x);
/* A field that is for us, never for an upstream. */
bool proxy_bearer_is_ours(struct proxy_exchange *x, const struct http_field *field);
