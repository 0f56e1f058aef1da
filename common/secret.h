/* secret: bytes that must not leak. No function prints them; the logger has no type for them.
 * Wiped on free, compared in constant time, kept out of core files. Owned by its holder. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct secret;

/* Copies the bytes; the caller wipes its own copy (secret_wipe). n <= 64 KiB. */
struct secret *secret_new(struct sv bytes);
/* From base64 text (standard or URL alphabet, padded or not). ERR_INVALID: not base64. */
MUST_CHECK enum err secret_from_b64(struct sv text, struct secret **secret_out);
void secret_free(struct secret **secret);
/* The bytes, borrowed: hand them to a cipher, never to a formatter. */
struct sv secret_bytes(const struct secret *secret);
bool secret_eq(const struct secret *a, struct sv b);
void secret_wipe(void *p, size_t n);
/* Constant-time comparison of two texts of foreign origin. */
bool secret_same(struct sv a, struct sv b);
