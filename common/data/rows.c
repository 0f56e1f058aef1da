#include "common/data/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "common/data/row_int.h"
#include "common/mem.h"

/* Whole numbers beyond it are not what a double holds of them. */
static const json_int_t exact_max = INT64_C(9007199254740992);

enum err data_row_wrong(struct data_reader *r, struct data_place at, const char *fmt, ...)
{
    char text[DIAG_TEXT];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    diag_at(r->d, r->source->name, (int)at.line, 0);
    if (at.line == 0) {
        diag_set(r->d, "row %zu: %s", at.row, text);
    } else {
        diag_set(r->d, "%s", text);
    }
    return ERR_INVALID;
}

/* --- what may stand in a row -------------------------------------------------------------------- */

static bool is_text(struct sv s, size_t max)
{
    return s.n <= max && sv_is_plain(s) && sv_is_utf8(s);
}

static struct sv string_of(const json_t *v)
{
    return sv_of(json_string_value(v), json_string_length(v));
}

/* NULL: nothing is wrong with it. */
static const char *scalar_mistake(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return is_text(string_of(v), DATA_TEXT_MAX)
                   ? NULL
                   : "is no text of up to 1024 bytes without control characters";
    case JSON_INTEGER:
        return json_integer_value(v) <= exact_max && json_integer_value(v) >= -exact_max
                   ? NULL
                   : "is a number too large to be kept exactly: write it as a text";
    case JSON_REAL:
    case JSON_TRUE:
    case JSON_FALSE:
    case JSON_NULL:
        return NULL;
    case JSON_OBJECT:
    case JSON_ARRAY:
        break;
    }
    return "is neither a text, a number, true, false, null nor a list of those";
}

static size_t or_default(size_t given, size_t otherwise)
{
    return given != 0 ? given : otherwise;
}

/* values_max of 0: as it is by default. */
static const char *value_mistake(const json_t *v, size_t values_max)
{
    const char *mistake = NULL;
    const json_t *one = NULL;
    size_t i = 0;

    if (!json_is_array(v)) {
        return scalar_mistake(v);
    }
    if (json_array_size(v) > or_default(values_max, DATA_VALUES_MAX)) {
        return values_max == 0 ? "is a list of more than 256 values" : "is too long a list";
    }
    json_array_foreach(v, i, one)
    {
        mistake = mistake == NULL ? scalar_mistake(one) : mistake;
    }
    return mistake;
}

static enum err fields_check(struct data_reader *r, const json_t *fields, struct data_place at)
{
    const char *name = NULL;
    json_t *value = NULL;

    if (json_object_size(fields) > DATA_FIELDS_MAX) {
        return data_row_wrong(r, at, "more than %d fields", DATA_FIELDS_MAX);
    }
    json_object_foreach(base_unconst(fields), name, value)
    {
        const char *mistake = value_mistake(value, r->source->values_max);

        if (name[0] == '\0' || !is_text(sv_from(name), DATA_NAME_MAX)) {
            return data_row_wrong(r, at, "the name of a field is no text of 1 to %d bytes",
                                  DATA_NAME_MAX);
        }
        if (mistake != NULL) {
            return data_row_wrong(r, at, "%s %s", name, mistake);
        }
    }
    return ERR_OK;
}

/* --- as it is stored ---------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const Google__Protobuf__Struct__FieldsEntry *const *left = a;
    const Google__Protobuf__Struct__FieldsEntry *const *right = b;

    return strcmp((*left)->key, (*right)->key);
}

static void value_fill(Google__Protobuf__Value *out, const json_t *v)
{
    *out = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
    switch (json_typeof(v)) {
    case JSON_STRING:
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        out->string_value = base_unconst(json_string_value(v));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        out->number_value = json_number_value(v);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
        out->bool_value = json_is_true(v);
        break;
    case JSON_NULL:
    case JSON_OBJECT: /* refused before */
    case JSON_ARRAY:
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
        break;
    }
}

/* One field, and where it is a list its values. */
struct cell {
    Google__Protobuf__Struct__FieldsEntry entry;
    Google__Protobuf__Value value;
    Google__Protobuf__ListValue list;
    Google__Protobuf__Value *items;
    Google__Protobuf__Value **places;
};

static void cell_fill(struct cell *cell, const char *name, const json_t *v)
{
    const json_t *one = NULL;
    size_t i = 0;

    cell->entry =
        (Google__Protobuf__Struct__FieldsEntry)GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    cell->entry.key = base_unconst(name);
    cell->entry.value = &cell->value;
    if (!json_is_array(v)) {
        value_fill(&cell->value, v);
        return;
    }
    cell->value = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
    cell->list = (Google__Protobuf__ListValue)GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    cell->items = mem_array(json_array_size(v) + 1, sizeof(*cell->items));
    cell->places = mem_array(json_array_size(v) + 1, sizeof(Google__Protobuf__Value *));
    json_array_foreach(v, i, one)
    {
        value_fill(&cell->items[i], one);
        cell->places[i] = &cell->items[i];
    }
    cell->list.n_values = i;
    cell->list.values = cell->places;
    cell->value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    cell->value.list_value = &cell->list;
}

static void row_pack(struct data_row *row, const json_t *fields)
{
    Google__Protobuf__Struct m = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry *entries[DATA_FIELDS_MAX];
    struct cell *cells = mem_array(json_object_size(fields) + 1, sizeof(*cells));
    const char *name = NULL;
    json_t *value = NULL;
    size_t n = 0;

    json_object_foreach(base_unconst(fields), name, value)
    {
        cell_fill(&cells[n], name, value);
        entries[n] = &cells[n].entry;
        n++;
    }
    if (n != 0) {
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        qsort(entries, n, sizeof(entries[0]), by_name);
    }
    m.fields = entries;
    m.n_fields = n;
    row->n = google__protobuf__struct__get_packed_size(&m);
    row->bytes = mem_alloc(row->n + 1);
    (void)google__protobuf__struct__pack(&m, row->bytes);
    for (size_t i = 0; i < n; i++) {
        mem_free(&cells[i].items);
        mem_free(&cells[i].places);
    }
    mem_free(&cells);
}

/* --- rows --------------------------------------------------------------------------------------- */

static void row_deinit(struct data_row *row)
{
    mem_free(&row->key);
    mem_free(&row->bytes);
}

void data_rows_free(struct data_rows **rows)
{
    struct data_rows *r = TAKE(*rows);

    for (size_t i = 0; r != NULL && i < r->count; i++) {
        row_deinit(&r->items[i]);
    }
    if (r != NULL) {
        mem_free(&r->items);
        mem_free(&r);
    }
}

/* Through the same function as those who read: what is equal there is equal here. */
static char *key_as_stored(enum data_key kind, struct sv key)
{
    char room[DATA_ID_MAX];
    struct sv id = data_row_id(SV("g"), kind, key, room);

    return id.n == 0 ? NULL : mem_svdup(sv_from_at(id, 2));
}

static struct data_row *row_new(struct data_rows *rows)
{
    if (rows->count == rows->room) {
        rows->room = MAX(rows->room * 2, (size_t)64);
        rows->items = mem_realloc(rows->items, rows->room, sizeof(*rows->items));
    }
    struct data_row *row = &rows->items[rows->count++];

    *row = (struct data_row){ .key = NULL };
    return row;
}

static const char *key_field(const struct data_source *source)
{
    return source->key_field != NULL ? source->key_field : data_key_name(source->key);
}

enum err data_row_take(struct data_reader *r, const json_t *fields, struct data_place at)
{
    const char *field = key_field(r->source);
    enum err err = fields_check(r, fields, at);

    if (err != ERR_OK) {
        return err;
    }
    if (r->rows->count >= DATA_ROWS_MAX) {
        (void)data_row_wrong(r, at, "more than %d rows", DATA_ROWS_MAX);
        return ERR_LIMIT;
    }
    const json_t *key = json_object_get(fields, field);

    if (!json_is_string(key) || string_of(key).n == 0 || string_of(key).n > DATA_KEY_MAX) {
        return data_row_wrong(r, at, "%s, the key, is no text of 1 to %d bytes", field,
                              DATA_KEY_MAX);
    }
    struct data_row *row = row_new(r->rows);

    row->key = key_as_stored(r->source->key, string_of(key));
    row->number = at.row;
    row->line = at.line;
    row_pack(row, fields);

    size_t max = or_default(r->source->row_max, DATA_ROW_MAX);

    return row->n <= max ? ERR_OK : data_row_wrong(r, at, "larger than %zu bytes", max);
}

static int by_key(const void *a, const void *b)
{
    const struct data_row *left = a;
    const struct data_row *right = b;
    int order = strcmp(left->key, right->key);

    return order != 0 ? order : (left->number > right->number) - (left->number < right->number);
}

enum err data_rows_check(struct data_reader *r)
{
    struct data_rows *rows = r->rows;

    if (rows->count != 0) {
        qsort(rows->items, rows->count, sizeof(*rows->items), by_key);
    }
    for (size_t i = 1; i < rows->count; i++) {
        const struct data_row *row = &rows->items[i];

        if (strcmp(row->key, row[-1].key) == 0) {
            return data_row_wrong(r, (struct data_place){ .row = row->number, .line = row->line },
                                  "%s %.*s stands in row %zu, too", key_field(r->source), 200,
                                  row->key, row[-1].number);
        }
    }
    return ERR_OK;
}

static enum err json_read(struct data_reader *r, struct sv text)
{
    json_error_t error;
    json_t *root = json_loadb(text.n == 0 ? "" : text.p, text.n, JSON_REJECT_DUPLICATES, &error);
    const json_t *row = NULL;
    enum err err = ERR_OK;
    size_t i = 0;

    if (root == NULL) {
        diag_at(r->d, r->source->name, error.line, error.column);
        diag_set(r->d, "no JSON: %s", error.text);
        return ERR_INVALID;
    }
    if (!json_is_array(root)) {
        diag_at(r->d, r->source->name, 1, 1);
        diag_set(r->d, "no JSON array of objects");
        err = ERR_INVALID;
    }
    json_array_foreach(root, i, row)
    {
        const struct data_place at = { .row = i + 1 };

        err = json_is_object(row) ? data_row_take(r, row, at)
                                  : data_row_wrong(r, at, "no JSON object");
        if (err != ERR_OK) {
            break;
        }
    }
    json_decref(root);
    return err;
}

enum err data_rows_read(struct sv text, const struct data_source *source,
                        struct data_rows **rows_out, struct diag *d)
{
    CLEANUP(data_rows_free) struct data_rows *rows = MEM_NEW(struct data_rows);
    struct data_reader reader = { .source = source, .rows = rows, .d = d };
    enum err err = ERR_OK;

    CHECK(source->key != DATA_KEY_NONE);
    if (text.n > DATA_BYTES_MAX) {
        diag_at(d, source->name, 0, 0);
        diag_set(d, "larger than %d bytes", DATA_BYTES_MAX);
        return ERR_LIMIT;
    }
    err = source->format == DATA_CSV ? data_csv_read(&reader, text) : json_read(&reader, text);
    if (err == ERR_OK) {
        err = data_rows_check(&reader);
    }
    if (err == ERR_OK) {
        *rows_out = TAKE(rows);
    }
    return err;
}
