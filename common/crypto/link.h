/* link: a URL between proxy and authenticate that nobody else can make: issue and expiry time are
 * added, then HMAC-SHA-256 under KEYS_LINK over the whole URL, scheme and host included.
 * Parameters: pomerium_issued, pomerium_expiry (Unix seconds), pomerium_signature (last). */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum { LINK_LIFE_S = 300, LINK_LEEWAY_S = 60, LINK_MAX = 16384 };

/* url holds an absolute URL, with or without a query and without a fragment; the three parameters
 * are appended. */
MUST_CHECK enum err link_sign(const struct keys *keys, struct buf *url);
/* url: the absolute URL as the browser sent it (scheme and host as seen by the client).
 * ERR_CRYPTO: not ours or changed; ERR_EXPIRED: too old, or from the future. */
MUST_CHECK enum err link_verify(const struct keys *keys, struct sv url);
