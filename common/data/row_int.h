/* For who makes data_rows: each reader makes a json_t object of a row, and one function takes it. */
#pragma once

#include <jansson.h>

#include "common/data/rows.h"

/* Where a mistake is: by its line, or where lines are not known by its row. */
struct data_place {
    size_t row;  /* from 1 */
    size_t line; /* 0: not known */
};

struct data_reader {
    const struct data_source *source;
    struct data_rows *rows;
    /* What is done with a row; NULL: data_row_take. */
    enum err (*take)(struct data_reader *r, const json_t *fields, struct data_place at);
    struct diag *d;
};

/* Says what is wrong with a row; returns ERR_INVALID. */
enum err data_row_wrong(struct data_reader *r, struct data_place at, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
MUST_CHECK enum err data_row_take(struct data_reader *r, const json_t *fields,
                                  struct data_place at);
/* After the last row: sorts them, so that equal keys are neighbours, and refuses those. */
MUST_CHECK enum err data_rows_check(struct data_reader *r);
MUST_CHECK enum err data_csv_read(struct data_reader *r, struct sv text);
