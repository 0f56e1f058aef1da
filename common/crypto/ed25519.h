/* ed25519: the signature algorithm EdDSA of JOSE (RFC 8037) with the one curve that OpenSSL and everybody
 * else has, Ed25519 (RFC 8032 §5.1). latchset jose does not know it, and its registry of algorithms is no
 * published interface. The arithmetic is OpenSSL's. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum { ED25519_KEY_SIZE = 32, ED25519_SIGNATURE_SIZE = 64 };

/* False: no key, or one of small order, under which some signature fits every message. */
bool ed25519_is_key(struct sv key);
/* False for whatever is wrong; an S that is not below the group's order has two forms and is wrong, too. */
MUST_CHECK bool ed25519_verify(struct sv key, struct sv message, struct sv signature);
