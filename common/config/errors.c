#include <stdlib.h>
#include <string.h>

#include "common/config/reader.h"
#include "common/mem.h"

struct entry {
    size_t order;
    struct diag diag;
    char text[DIAG_LINE];
};

struct config_errors {
    struct entry *v;
    size_t n;
};

struct config_errors *config_errors_new(void)
{
    return MEM_NEW(struct config_errors);
}

void config_errors_free(struct config_errors **errors)
{
    struct config_errors *e = TAKE(*errors);

    if (e == NULL) {
        return;
    }
    mem_free(&e->v);
    mem_free(&e);
}

size_t config_errors_count(const struct config_errors *errors)
{
    return errors == NULL ? 0 : errors->n;
}

const char *config_errors_text(const struct config_errors *errors, size_t i)
{
    CHECK(i < errors->n);
    return errors->v[i].text;
}

static struct entry *entry_new(struct config_errors *errors)
{
    if (errors->v == NULL) {
        errors->v = mem_array(CONFIG_ERRORS_MAX, sizeof(struct entry));
    }
    if (errors->n == CONFIG_ERRORS_MAX) {
        return NULL;
    }
    errors->v[errors->n].order = errors->n;
    return &errors->v[errors->n++];
}

void config_error_diag(struct config_reader *r, struct config_place place, const struct diag *d)
{
    struct entry *e = entry_new(r->errors);

    if (e == NULL) {
        return;
    }
    e->diag = *d;
    diag_at(&e->diag, place.file, place.line, place.column);
    (void)diag_format(&e->diag, e->text);
}

void config_error(struct config_reader *r, struct config_place place, const char *fmt, ...)
{
    struct diag d = { 0 };
    va_list ap;

    va_start(ap, fmt);
    diag_vset(&d, fmt, ap);
    va_end(ap);
    config_error_diag(r, place, &d);
}

static int entry_compare(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    int by_file = strcmp(x->diag.file, y->diag.file);

    if (by_file != 0) {
        return by_file;
    }
    if (x->diag.line != y->diag.line) {
        return x->diag.line < y->diag.line ? -1 : 1;
    }
    if (x->diag.column != y->diag.column) {
        return x->diag.column < y->diag.column ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

void config_errors_sort(struct config_errors *errors)
{
    if (errors->n > 1) {
        qsort(errors->v, errors->n, sizeof(struct entry), entry_compare);
    }
}
