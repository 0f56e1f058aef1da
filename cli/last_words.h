/* last_words: what a program said last in its log that somebody must act on. One thread. */
#pragma once

#include <sys/types.h>

#include "common/base.h"
#include "common/buf.h"

/* Looks at the log from byte from on, at its last 64 KiB at most: lines of level error, of which the
 * sentence counts, and what a program says that cannot begin ("postern-…: sentence"). The last such
 * sentence is added to out, tamed for a terminal. False: there is none. */
bool cli_last_words(const char *log, off_t from, struct buf *out);
