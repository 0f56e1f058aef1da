/* Between the readers of data_rows: each makes a json_t object of a row, and one function takes it. */
#pragma once

#include <jansson.h>

#include "common/data/rows.h"

struct data_reader {
    const struct data_source *source;
    struct data_rows *rows;
    struct diag *d;
};

/* Where a mistake is: by its line, or where lines are not known by its row. */
struct data_place {
    size_t row;  /* from 1 */
    size_t line; /* 0: not known */
};

/* Says what is wrong with a row; returns ERR_INVALID. */
enum err data_row_wrong(struct data_reader *r, struct data_place at, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
MUST_CHECK enum err data_row_take(struct data_reader *r, const json_t *fields,
                                  struct data_place at);
MUST_CHECK enum err data_csv_read(struct data_reader *r, struct sv text);
