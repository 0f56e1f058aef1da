/* CSV by libcsv in its strict mode: a quote in the middle of a value, or one that never ends, is an
 * error and no guess. It is fed line by line, so that mistakes have a line. */
#include <csv.h>
#include <string.h>

#include "common/data/row_int.h"
#include "common/mem.h"

#define BOM "\xEF\xBB\xBF" /* what spreadsheets put in front */

enum kind { KIND_TEXT = 0, KIND_NUMBER, KIND_BOOL };

struct column {
    char *name;
    enum kind kind;
};

struct csv {
    struct data_reader *reader;
    struct column columns[DATA_FIELDS_MAX];
    size_t n_columns;
    bool has_names; /* the first line is over */
    size_t n;       /* values of the row so far */
    json_t *row;
    size_t rows; /* begun */
    size_t line;
    enum err err; /* sticky */
};

static struct data_place place(const struct csv *csv)
{
    return (struct data_place){ .row = csv->rows, .line = csv->line };
}

/* --- the first line ------------------------------------------------------------------------------ */

static void take_name(struct csv *csv, struct sv text)
{
    static const struct {
        struct sv suffix;
        enum kind kind;
    } kinds[] = { { { ":number", 7 }, KIND_NUMBER }, { { ":bool", 5 }, KIND_BOOL } };
    struct column column = { .kind = KIND_TEXT };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (sv_ends(text, kinds[i].suffix)) {
            column.kind = kinds[i].kind;
            text = sv_head(text, text.n - kinds[i].suffix.n);
        }
    }
    if (sv_find(text, ':') !=
        SIZE_MAX) { /* a mistake would make texts of numbers, without a word */
        csv->err = data_row_wrong(csv->reader, place(csv),
                                  "behind the colon of %.*s stands neither number nor bool",
                                  (int)MIN(text.n, (size_t)DATA_NAME_MAX), text.p);
        return;
    }
    if (csv->n_columns == DATA_FIELDS_MAX || text.n == 0 || text.n > DATA_NAME_MAX ||
        !sv_is_plain(text) || !sv_is_utf8(text)) {
        csv->err = data_row_wrong(csv->reader, place(csv),
                                  "the first line has up to %d names of 1 to %d bytes",
                                  DATA_FIELDS_MAX, DATA_NAME_MAX);
        return;
    }
    for (size_t i = 0; i < csv->n_columns; i++) {
        if (sv_eq(text, sv_from(csv->columns[i].name))) {
            csv->err = data_row_wrong(csv->reader, place(csv), "two columns are named %s",
                                      csv->columns[i].name);
            return;
        }
    }
    column.name = mem_svdup(text);
    csv->columns[csv->n_columns++] = column;
}

/* --- values -------------------------------------------------------------------------------------- */

/* What JSON calls a number, read by the library that reads JSON. */
static json_t *number_of(struct sv text)
{
    json_t *v = json_loadb(text.p, text.n, JSON_DECODE_ANY, NULL);

    if (!json_is_number(v)) {
        json_decref(v);
        return NULL;
    }
    return v;
}

static json_t *value_of(enum kind kind, struct sv text)
{
    switch (kind) {
    case KIND_NUMBER:
        return number_of(text);
    case KIND_BOOL:
        if (sv_ieq(text, SV("true")) || sv_ieq(text, SV("false"))) {
            return json_boolean(sv_ieq(text, SV("true")));
        }
        return NULL;
    case KIND_TEXT:
        break;
    }
    return json_stringn(text.p, text.n); /* NULL: no UTF-8 */
}

static void take_value(struct csv *csv, struct sv text)
{
    static const char *const wanted[] = { "UTF-8 text", "number", "true or false" };

    if (csv->n >= csv->n_columns) {
        csv->err = data_row_wrong(csv->reader, place(csv), "more values than the first line names");
        return;
    }
    const struct column *column = &csv->columns[csv->n++];

    if (text.n == 0) {
        return;
    }
    json_t *v = value_of(column->kind, text);

    if (v == NULL || json_object_set_new(csv->row, column->name, v) != 0) {
        csv->err = data_row_wrong(csv->reader, place(csv), "%s is no %s", column->name,
                                  wanted[column->kind]);
    }
}

static void on_field(void *bytes, size_t n, void *arg)
{
    struct csv *csv = arg;
    struct sv text = sv_of(bytes, n);

    if (csv->err != ERR_OK) {
        return;
    }
    if (csv->has_names) {
        take_value(csv, text);
    } else {
        take_name(csv, text);
    }
}

static void on_row(int end, void *arg)
{
    struct csv *csv = arg;

    (void)end;
    if (csv->err == ERR_OK && csv->has_names && csv->n < csv->n_columns) {
        csv->err =
            data_row_wrong(csv->reader, place(csv), "%zu values, and the first line names %zu",
                           csv->n, csv->n_columns);
    }
    if (csv->err == ERR_OK && csv->has_names) {
        csv->err = (csv->reader->take != NULL ? csv->reader->take
                                              : data_row_take)(csv->reader, csv->row, place(csv));
    }
    csv->has_names = true;
    csv->n = 0;
    csv->rows++;
    (void)json_object_clear(csv->row);
}

/* --- the whole ----------------------------------------------------------------------------------- */

static void feed(struct csv *csv, struct csv_parser *parser, struct sv text)
{
    while (text.n > 0 && csv->err == ERR_OK) {
        size_t end = sv_find(text, '\n');
        struct sv line = end == SIZE_MAX ? text : sv_head(text, end + 1);

        text = sv_from_at(text, line.n);
        csv->line++;
        if (csv_parse(parser, line.p, line.n, on_field, on_row, csv) != line.n) {
            csv->err =
                data_row_wrong(csv->reader, place(csv),
                               "a quote stands where none may; one inside quotes is doubled");
        }
    }
    if (csv->err == ERR_OK && csv_fini(parser, on_field, on_row, csv) != 0) {
        csv->err = data_row_wrong(csv->reader, place(csv), "a quoted value does not end");
    }
    if (csv->err == ERR_OK && !csv->has_names) {
        csv->err = data_row_wrong(csv->reader, (struct data_place){ .line = 1 },
                                  "no first line with the names of the fields");
    }
}

enum err data_csv_read(struct data_reader *r, struct sv text)
{
    struct csv csv = { .reader = r, .row = json_object() };
    struct csv_parser parser;

    CHECK(csv.row != NULL && csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI) == 0);
    if (sv_starts(text, SV(BOM))) {
        text = sv_from_at(text, sizeof(BOM) - 1);
    }
    feed(&csv, &parser, text);
    csv_free(&parser);
    for (size_t i = 0; i < csv.n_columns; i++) {
        mem_free(&csv.columns[i].name);
    }
    json_decref(csv.row);
    return csv.err;
}
