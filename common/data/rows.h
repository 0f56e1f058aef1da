/* data_rows: the rows of a file of external data, all of them or none.
 *
 *   JSON  an array of objects. A field is a text, a number, true, false, null, or a list of those.
 *   CSV   RFC 4180, UTF-8, fields in a first line of names. A value is a text; one under `name:number`
 *         or `name:bool` is what it says. An empty value: the row has no such field.
 *
 * One field is the key: whom the row belongs to. It stays a field of the row. Pure; any thread. */
#pragma once

#include "common/base.h"
#include "common/data/form.h"
#include "common/diag.h"
#include "common/sv.h"

enum {
    DATA_BYTES_MAX = 32 * 1024 * 1024, /* of a file */
    DATA_ROWS_MAX = 100000,
    DATA_FIELDS_MAX = 64,    /* of a row */
    DATA_NAME_MAX = 64,      /* of a field's name */
    DATA_TEXT_MAX = 1024,    /* of a text */
    DATA_VALUES_MAX = 256,   /* of a list */
    DATA_ROW_MAX = 16 * 1024 /* as it is stored */
};

enum data_format { DATA_JSON = 0, DATA_CSV };

struct data_row {
    char *key;      /* an address in lower case */
    uint8_t *bytes; /* a google.protobuf.Struct; the same for the same fields in any order */
    size_t n;
    size_t number; /* of the row, from 1 */
    size_t line;   /* 0: not known */
};

struct data_rows {
    struct data_row *items;
    size_t count;
    size_t room;
    size_t weight; /* what they add up to for who made them, such as memberships; 0: nothing */
};

struct data_source {
    const char *name; /* of the file, for what is said about it */
    enum data_format format;
    enum data_key key;
    const char *key_field; /* NULL: data_key_name(key) */
    size_t values_max;     /* of a list; 0: DATA_VALUES_MAX */
    size_t row_max;        /* as it is stored; 0: DATA_ROW_MAX */
};

/* ERR_INVALID, ERR_LIMIT: d names the line or the row, and what is wrong. Two rows with one key are
 * refused: which of them counts would be a guess. */
MUST_CHECK enum err data_rows_read(struct sv text, const struct data_source *source,
                                   struct data_rows **rows_out, struct diag *d);
void data_rows_free(struct data_rows **rows);
