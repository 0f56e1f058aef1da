/* b64: base64 (RFC 4648 §4, §5) by OpenSSL's codec, with a strict check of the text around it.
 * Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

/* Upper bound of what n characters decode to. */
size_t b64_decoded_max(size_t n);
/* Decodes either alphabet, padded or not; rejects anything else, also bits beyond the last byte.
 * ERR_LIMIT: room is less than b64_decoded_max(text.n). */
MUST_CHECK enum err b64_decode(struct sv text, void *out, size_t room, size_t *n_out);
/* Appends the URL alphabet without padding (b64_url_add) or the standard one with (b64_std_add). */
void b64_url_add(struct buf *b, struct sv bytes);
void b64_std_add(struct buf *b, struct sv bytes);
/* Lower-case hexadecimal, and back (either case; even length). */
void hex_add(struct buf *b, struct sv bytes);
MUST_CHECK enum err hex_decode(struct sv text, void *out, size_t room, size_t *n_out);
