/* http/form: application/x-www-form-urlencoded text: queries and small POST bodies. Keys that the
 * caller asks for must be there at most once, in any spelling: two readers of a duplicate would
 * pick different ones. Results live in arena. Pure functions. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

enum { HTTP_FORM_BYTES_MAX = 65536, HTTP_FORM_PAIRS_MAX = 256 };

struct http_form_value {
    struct sv key;   /* set by the caller */
    struct sv value; /* decoded; "" where absent */
    bool present;
};

/* Reads every wanted key in one pass; other keys are skipped unread, but count.
 * ERR_EXISTS: a wanted key twice. ERR_INVALID: a broken escape, NUL or invalid UTF-8 in a wanted
 * key's value, or in any key. ERR_LIMIT: too many bytes or pairs. Nothing is present on error. */
MUST_CHECK enum err http_form_read(struct sv text, struct http_form_value *wanted, size_t n,
                                   struct arena *arena);
/* One key. ERR_NOT_FOUND, and the errors of http_form_read. */
MUST_CHECK enum err http_form_get(struct sv text, struct sv key, struct arena *arena,
                                  struct sv *value_out);
/* Appends [&]key=value, percent-encoded; '&' unless b ends in '?' or is empty. */
void http_form_add(struct buf *b, struct sv key, struct sv value);
/* Percent-decoding of one component; plus_is_space for forms. ERR_INVALID: broken escape or NUL. */
MUST_CHECK enum err http_form_decode(struct sv text, bool plus_is_space, struct arena *arena,
                                     struct sv *out);
