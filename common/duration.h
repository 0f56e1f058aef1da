/* duration: a span of time as people write it, in Go's form: 1h30m, 1.5s, 300ms, 0. Pure; any
 * thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

/* To the nearest millisecond. ERR_INVALID; ERR_LIMIT: thousands of years. */
MUST_CHECK enum err duration_parse(struct sv text, int64_t *ms_out);
