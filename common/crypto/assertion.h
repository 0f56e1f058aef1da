/* assertion: the signed statement to an upstream who its visitor is: X-Pomerium-Jwt-Assertion.
 * A JWT (RFC 7519), ES256 with P-256 keys and RS256 with RSA keys (RFC 7518 §3.3, §3.4); header
 * {alg, typ, kid}, kid = hex SHA-256 of the JWK thumbprint (RFC 7638). The JOSE work is latchset
 * jose's. Authorize signs, the proxy publishes the keys, authenticate verifies.
 * A key set is immutable and may be read by any thread at once. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/keys.h"
#include "common/diag.h"
#include "common/sv.h"

enum {
    ASSERTION_KEYS_MAX = 8,
    ASSERTION_PEM_MAX = 64 * 1024,
    ASSERTION_TOKEN_MAX = 24 * 1024,
    ASSERTION_LIFE_S = 300,  /* exp - iat, for the maker of claims */
    ASSERTION_LEEWAY_S = 30, /* of assertion_verify for foreign clocks */
    ASSERTION_KID_SIZE = 65  /* with its NUL */
};

#define ASSERTION_HEADER "X-Pomerium-Jwt-Assertion"

struct assertion_keys;

/* pem: one or more PEM private keys, P-256 or RSA of 2048..8192 bits; the first signs, all are
 * published and verify. ERR_INVALID: none, or one of another kind; d has the reason, no key bytes. */
MUST_CHECK enum err assertion_keys_of_pem(struct sv pem, struct assertion_keys **keys_out,
                                          struct diag *d);
/* From the shared secrets: one P-256 key a secret (KEYS_ASSERTION), the first signs. */
MUST_CHECK enum err assertion_keys_of_shared(const struct keys *shared,
                                             struct assertion_keys **keys_out);
void assertion_keys_free(struct assertion_keys **keys);

/* {"keys":[…]} with kty, crv, x, y (or n, e), alg, use, kid; the text lives as long as keys. */
struct sv assertion_jwks(const struct assertion_keys *keys);
/* kid of the key that signs. */
const char *assertion_kid(const struct assertion_keys *keys);

/* Signs claims (a JSON object) and appends the compact token. ERR_INVALID: no object; ERR_LIMIT:
 * the token would be longer than ASSERTION_TOKEN_MAX or out is full; ERR_CRYPTO: signing failed. */
MUST_CHECK enum err assertion_sign(const struct assertion_keys *keys, const json_t *claims,
                                   struct buf *out);
/* Verifies signature, typ, alg of the key (never the token's choice), exp, nbf, iat (with leeway)
 * and aud (a text or a list that holds it). audience: the request's host, lower case, no port.
 * *claims_out: one reference for the caller. ERR_CRYPTO: not one of ours, or changed; ERR_EXPIRED;
 * ERR_DENIED: for another audience; ERR_INVALID: no compact JWT; ERR_LIMIT: too long. */
MUST_CHECK enum err assertion_verify(const struct assertion_keys *keys, struct sv token,
                                     struct sv audience, json_t **claims_out);
