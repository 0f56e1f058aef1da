/* explain: the document of an explanation (docs/explain.md) as text for a person in a hurry: the
 * verdict, why, what would change it, how good the facts are. One thread. */
#pragma once

#include <jansson.h>

#include "common/buf.h"

/* Appends whole lines. now_ms: what ages are counted to. Whatever the document holds: texts out of
 * it are tamed, members of another type are left out. */
void cli_explain_text(const json_t *document, int64_t now_ms, struct buf *out);
