/* service_jwt: the token by which Pomerium's own parts, and clients written for it, call its databroker: a
 * compact JWS (RFC 7515), HS256 under the shared secret itself, whose one claim is `exp`, an hour away. It
 * says that somebody had the secret, not who; whoever accepts it decides for what. A token of Pomerium's for
 * anything else has more claims and is none. Nothing of ours is made so. Pure; any thread. */
#pragma once

#include "common/base.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum { SERVICE_JWT_MAX = 512, SERVICE_JWT_LIFE_S = 3600, SERVICE_JWT_LEEWAY_S = 60 };

/* ERR_CRYPTO: not signed with a secret of keys; the others are told of such alone: ERR_INVALID: it has
 * another algorithm or type, or says more or less than exp; ERR_EXPIRED: it is over; ERR_LIMIT: it lives
 * longer than SERVICE_JWT_LIFE_S. All with SERVICE_JWT_LEEWAY_S for clocks that differ. */
MUST_CHECK enum err service_jwt_verify(const struct keys *keys, struct sv text);
