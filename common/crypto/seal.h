/* seal: authenticated encryption of small things that travel through a browser.
 * Text form, base64url without padding:  0x01 | key id (1) | nonce (12) | ciphertext | tag (16)
 * AES-256-GCM, key by keys_derive, random nonce; the first two bytes and the caller's aad are
 * associated data. Any change anywhere gives the same ERR_CRYPTO.
 * A sealer holds cipher contexts and belongs to one thread: make one for each. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum { SEAL_OVERHEAD = 30, SEAL_MAX = 65536 };

struct sealer;

struct sealer *sealer_new(const struct keys *keys, enum keys_purpose purpose);
void sealer_free(struct sealer **sealer);
/* Appends the text form of plain to out. ERR_LIMIT: plain is over SEAL_MAX, or out is full. */
MUST_CHECK enum err seal_make(struct sealer *sealer, struct sv plain, struct sv aad,
                              struct buf *out);
/* Appends the opened bytes to out. ERR_CRYPTO: not ours, changed, or for another aad. */
MUST_CHECK enum err seal_open(struct sealer *sealer, struct sv text, struct sv aad,
                              struct buf *out);
