/* http_query: a query as a log may have it. Pure function; any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

/* Appends query with "…" for the values of parameters that may let somebody in (our own, codes, tokens,
 * keys, signatures of links), and of those whose name is not written plainly. */
void http_query_tame(struct sv query, struct buf *out);
