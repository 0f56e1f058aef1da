#include "common/diag.h"

#include <stdio.h>
#include <string.h>

void diag_vset(struct diag *d, const char *fmt, va_list ap)
{
    size_t i = 0;

    if (d == NULL || d->text[0] != '\0') {
        return;
    }
    (void)vsnprintf(d->text, sizeof(d->text), fmt, ap);
    for (i = 0; d->text[i] != '\0'; i++) {
        if ((unsigned char)d->text[i] < 0x20 || d->text[i] == 0x7f) {
            d->text[i] = ' '; /* foreign bytes must not break the line */
        }
    }
}

void diag_set(struct diag *d, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    diag_vset(d, fmt, ap);
    va_end(ap);
}

void diag_at(struct diag *d, const char *file, int line, int column)
{
    if (d == NULL) {
        return;
    }
    if (d->file[0] == '\0' && file != NULL) {
        (void)snprintf(d->file, sizeof(d->file), "%s", file);
    }
    if (d->line == 0) {
        d->line = line;
        d->column = column;
    }
}

const char *diag_format(const struct diag *d, char out[DIAG_LINE])
{
    const char *file = d->file[0] == '\0' ? "input" : d->file;

    if (d->line != 0 && d->column != 0) {
        (void)snprintf(out, DIAG_LINE, "%s:%d:%d: %s", file, d->line, d->column, d->text);
    } else if (d->line != 0) {
        (void)snprintf(out, DIAG_LINE, "%s:%d: %s", file, d->line, d->text);
    } else if (d->file[0] != '\0') {
        (void)snprintf(out, DIAG_LINE, "%s: %s", file, d->text);
    } else {
        (void)snprintf(out, DIAG_LINE, "%s", d->text);
    }
    return out;
}
