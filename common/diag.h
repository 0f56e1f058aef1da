/* diag: one sentence about what is wrong with an input, and where. The lowest function that knows
 * fills it, nobody on the way logs it, the edge shows it. Parsers take it last and accept NULL. */
#pragma once

#include <stdarg.h>

#include "common/base.h"
#include "common/sv.h"

enum { DIAG_TEXT = 512, DIAG_FILE = 256 };

struct diag {
    char file[DIAG_FILE]; /* "" where the input is no file */
    int line;             /* from 1; 0: unknown */
    int column;           /* from 1; 0: unknown */
    char text[DIAG_TEXT]; /* no secrets, no line breaks; "" while nothing is wrong */
};

/* The first sentence stays: the deepest cause is the one to show. */
void diag_set(struct diag *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
void diag_vset(struct diag *d, const char *fmt, va_list ap);
void diag_at(struct diag *d, const char *file, int line, int column); /* keeps an earlier place */

/* "file:line:column: sentence", as much of it as is known, into out with its NUL; returns out. */
enum { DIAG_LINE = DIAG_TEXT + DIAG_FILE + 32 };

const char *diag_format(const struct diag *d, char out[DIAG_LINE]);
