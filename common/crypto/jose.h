/* jose: verifies what an identity provider signed: compact JWS (RFC 7515) under a JWK set (RFC 7517)
 * with RS, PS or ES and SHA-256 to SHA-512, or EdDSA with Ed25519 (RFC 8037). What a key may verify
 * follows from the key alone: its type, curve and "alg"; "none" and HMAC do not exist here, keys in the
 * token's header are ignored. The cryptography is latchset jose's, for EdDSA OpenSSL's (ed25519.h). A key
 * set is immutable; any thread. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

enum {
    JOSE_KEYS_MAX = 64,
    JOSE_SET_MAX = 256 * 1024,
    JOSE_TOKEN_MAX = 64 * 1024,
    JOSE_KID_MAX = 256,
    JOSE_DEPTH_MAX = 16
};

struct jose_keys;

/* Reads {"keys":[…]}. Keys that we cannot use (other types or curves, encryption, RSA under 2048 or over 8192
 * bits, Ed25519 of small order, private or symmetric ones) are left out. ERR_INVALID: no such JSON, or none is left;
 * ERR_LIMIT: too large. */
MUST_CHECK enum err jose_keys_parse(struct sv json, struct jose_keys **keys_out, struct diag *d);
void jose_keys_free(struct jose_keys **keys);
size_t jose_keys_count(const struct jose_keys *keys);

/* Verifies token and appends its payload. *header_out (may be NULL): the protected header, one
 * reference. ERR_INVALID: no compact JWS of ours, or a "crit" header; ERR_UNSUPPORTED: its alg;
 * ERR_NOT_FOUND: no key of that kid and kind; ERR_CRYPTO: the signature does not fit. */
MUST_CHECK enum err jose_verify(const struct jose_keys *keys, struct sv token, struct buf *payload,
                                json_t **header_out, struct diag *d);
/* The kid a token asks for, "" for none; into room of JOSE_KID_MAX + 1. ERR_INVALID. */
MUST_CHECK enum err jose_token_kid(struct sv token, char kid[JOSE_KID_MAX + 1]);

/* The iss that a token claims, in issuer; nothing is verified: it tells whose keys to try, no more.
 * ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err jose_token_issuer(struct sv token, struct buf *issuer);

/* JSON from outside: an object, without duplicate members, NUL or nesting over JOSE_DEPTH_MAX.
 * *object_out: one reference. ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err jose_object_parse(struct sv text, size_t max, json_t **object_out);
