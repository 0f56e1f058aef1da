#include "cli/import_set.h"

#include <stdio.h>
#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "cli/command.h"
#include "common/clock.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/scan.h"

enum {
    BATCH_RECORDS = 500, /* of one Put, half of what the databroker takes */
    BATCH_BYTES = 2 * 1024 * 1024,
    RECORD_BYTES = 1024, /* of a record beside its data, at most */
    RECORDS_MAX = 4 * DATA_ROWS_MAX,
    TYPE_ROOM = DATA_TYPE_MAX + 1,
    LEASE_ROOM = sizeof(DATA_LEASE) + DATA_TYPE_MAX
};

struct import_set {
    const struct cli_broker *broker;
    char type[TYPE_ROOM];
    Databroker__QueryResponse **pages;
    size_t n_pages;
    struct map *records; /* id: Databroker__Record of a page; not the set's own */
    enum data_key key;   /* NONE: no set is in force */
    char generation[DATA_GENERATION_MAX + 1];
    size_t rows; /* in force */
};

/* ---- reading ---------------------------------------------------------------------------------- */

/* What cannot be read is in force nowhere. */
static void take_own(struct import_set *set, const Databroker__Record *record)
{
    ProtobufCMessage *m = NULL;

    if (record->data == NULL ||
        rpc_unpack(&google__protobuf__struct__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), NULL, &m) != ERR_OK) {
        return;
    }
    const Google__Protobuf__Struct *fields = (const Google__Protobuf__Struct *)(const void *)m;
    const char *generation = data_set_text(fields, "generation");

    if (strlen(generation) <= DATA_GENERATION_MAX && generation[0] != '\0') {
        set->key = data_key_parse(sv_from(data_set_text(fields, "key")));
        (void)snprintf(set->generation, sizeof(set->generation), "%s", generation);
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

static bool in_force(const struct import_set *set, struct sv id)
{
    size_t n = strlen(set->generation);

    return set->key != DATA_KEY_NONE && sv_starts(id, sv_of(set->generation, n)) && id.n > n &&
           id.p[n] == '/';
}

static void count_row(struct sv id, void *value, void *arg)
{
    struct import_set *set = arg;

    (void)value;
    set->rows += in_force(set, id) ? 1 : 0;
}

static bool read_pages(struct import_set *set)
{
    int64_t offset = 0;
    int64_t total = 0;

    do {
        Databroker__QueryResponse *page = cli_broker_query(set->broker, set->type, offset);

        if (page == NULL) {
            return false;
        }
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        set->pages = mem_realloc(set->pages, set->n_pages + 1, sizeof(*set->pages));
        set->pages[set->n_pages++] = page;
        for (size_t i = 0; i < page->n_records; i++) {
            Databroker__Record *record = page->records[i];

            if (strcmp(record->id, DATA_SET_ID) == 0) {
                take_own(set, record);
            } else {
                (void)map_set(set->records, sv_from(record->id), record);
            }
        }
        total = page->n_records == 0 ? 0 : page->total_count;
        offset += (int64_t)page->n_records;
    } while (offset < total && offset < RECORDS_MAX);
    if (offset < total) {
        (void)cli_fail(1, "there are more than %d records of %s: they are not external data",
                       RECORDS_MAX, set->type);
    }
    return offset >= total;
}

struct import_set *import_set_read(const struct cli_broker *b, const char *type)
{
    struct import_set *set = MEM_NEW(struct import_set);

    set->broker = b;
    set->records = map_new();
    (void)snprintf(set->type, sizeof(set->type), "%s", type);
    if (!read_pages(set)) {
        import_set_free(&set);
        return NULL;
    }
    map_each(set->records, count_row, set);
    return set;
}

void import_set_free(struct import_set **set)
{
    struct import_set *s = TAKE(*set);

    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->n_pages; i++) {
        protobuf_c_message_free_unpacked(&s->pages[i]->base, NULL);
    }
    mem_free(&s->pages);
    map_free(&s->records);
    mem_free(&s);
}

bool import_set_is(const struct import_set *set, enum data_key key)
{
    return set->key == key;
}

size_t import_set_rows(const struct import_set *set)
{
    return set->rows;
}

/* ---- comparing -------------------------------------------------------------------------------- */

static Databroker__Record *record_of(const struct import_set *set, enum data_key key,
                                     const struct data_row *row)
{
    char room[DATA_ID_MAX];
    struct sv id = data_row_id(sv_from(set->generation), key, sv_from(row->key), room);

    return id.n == 0 || set->key != key ? NULL : map_get(set->records, id);
}

static bool is_same(const Databroker__Record *record, const struct data_row *row)
{
    return record->data != NULL && sv_eq(sv_of(record->data->value.data, record->data->value.len),
                                         sv_of(row->bytes, row->n));
}

struct import_counts import_set_compare(struct import_set *set, enum data_key key,
                                        const struct data_rows *rows)
{
    struct import_counts counts = { .leftovers = map_count(set->records) - set->rows };

    for (size_t i = 0; i < rows->count; i++) {
        const Databroker__Record *record = record_of(set, key, &rows->items[i]);

        counts.added += record == NULL ? 1 : 0;
        counts.changed += record != NULL && !is_same(record, &rows->items[i]) ? 1 : 0;
        counts.same += record != NULL && is_same(record, &rows->items[i]) ? 1 : 0;
    }
    counts.removed = set->rows - counts.changed - counts.same;
    return counts;
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* The records of one Put. */
struct batch {
    struct import_set *set;
    const char *lease;
    Databroker__Record records[BATCH_RECORDS + 1];
    Google__Protobuf__Any data[BATCH_RECORDS + 1];
    Databroker__Record *list[BATCH_RECORDS + 1];
    char ids[BATCH_RECORDS + 1][DATA_ID_MAX + 1];
    Google__Protobuf__Timestamp now;
    size_t n;
    size_t bytes;
};

static struct batch *batch_new(struct import_set *set, const char *lease)
{
    struct batch *batch = MEM_NEW(struct batch);

    batch->set = set;
    batch->lease = lease;
    batch->now = (Google__Protobuf__Timestamp)GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    batch->now.seconds = clock_wall_s();
    return batch;
}

static bool batch_is_full(const struct batch *batch)
{
    return batch->n >= BATCH_RECORDS || batch->bytes >= BATCH_BYTES;
}

static bool batch_flush(struct batch *batch)
{
    char lease[LEASE_ROOM];
    size_t n = batch->n;

    if (n == 0) {
        return true;
    }
    batch->n = 0;
    batch->bytes = 0;
    (void)snprintf(lease, sizeof(lease), "%s%s", DATA_LEASE, batch->set->type);
    return cli_broker_lease_keep(batch->set->broker, lease, batch->lease) &&
           cli_broker_put(batch->set->broker, batch->list, n);
}

/* data NULL: the record's end. */
static void batch_add(struct batch *batch, struct sv id, const struct sv *data)
{
    static char any_type[] = DATA_STRUCT_TYPE;
    Databroker__Record *record = &batch->records[batch->n];
    Google__Protobuf__Any *any = &batch->data[batch->n];

    *record = (Databroker__Record)DATABROKER__RECORD__INIT;
    *any = (Google__Protobuf__Any)GOOGLE__PROTOBUF__ANY__INIT;
    memcpy(batch->ids[batch->n], id.p, id.n);
    batch->ids[batch->n][id.n] = '\0';
    record->type = batch->set->type;
    record->id = batch->ids[batch->n];
    if (data == NULL) {
        record->deleted_at = &batch->now;
    } else {
        any->type_url = any_type;
        any->value.data = base_unconst(data->p);
        any->value.len = data->n;
        record->data = any;
    }
    batch->list[batch->n++] = record;
    batch->bytes += RECORD_BYTES + (data == NULL ? 0 : data->n);
}

static void row_add(struct batch *batch, const char *generation, enum data_key key,
                    const struct data_row *row)
{
    char room[DATA_ID_MAX];
    struct sv data = sv_of(row->bytes, row->n);

    batch_add(batch, data_row_id(sv_from(generation), key, sv_from(row->key), room), &data);
}

static void field_init(Google__Protobuf__Struct__FieldsEntry *entry, Google__Protobuf__Value *value,
                       const char *name)
{
    *entry = (Google__Protobuf__Struct__FieldsEntry)GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    *value = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
    entry->key = base_unconst(name);
    entry->value = value;
}

/* Adds the record that says what is in force; *bytes_out is the caller's, until the batch is written. */
static void own_add(struct batch *batch, const char *generation, enum data_key key, size_t rows,
                    uint8_t **bytes_out)
{
    Google__Protobuf__Struct m = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entries[3];
    Google__Protobuf__Value values[3];
    Google__Protobuf__Struct__FieldsEntry *list[] = { &entries[0], &entries[1], &entries[2] };

    field_init(&entries[0], &values[0], "generation");
    field_init(&entries[1], &values[1], "key");
    field_init(&entries[2], &values[2], "rows");
    values[0].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    values[0].string_value = base_unconst(generation);
    values[1].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    values[1].string_value = base_unconst(data_key_name(key));
    values[2].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    values[2].number_value = (double)rows;
    m.n_fields = ARRAY_LEN(list);
    m.fields = list;
    *bytes_out = mem_alloc(google__protobuf__struct__get_packed_size(&m) + 1);
    struct sv data = sv_of(*bytes_out, google__protobuf__struct__pack(&m, *bytes_out));

    batch_add(batch, SV(DATA_SET_ID), &data);
}

/* Takes from the map what rows still have: the rest are those that ended. */
static void forget_rows(struct import_set *set, enum data_key key, const struct data_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        const Databroker__Record *record = record_of(set, key, &rows->items[i]);

        if (record != NULL) {
            (void)map_take(set->records, sv_from(record->id));
        }
    }
}

struct ending {
    struct batch *batch;
    bool fine;
};

static void end_record(struct sv id, void *value, void *arg)
{
    struct ending *e = arg;

    (void)value;
    if (e->fine && id.n <= DATA_ID_MAX) {
        batch_add(e->batch, id, NULL);
        e->fine = !batch_is_full(e->batch) || batch_flush(e->batch);
    }
}

/* Ends every record that is left in the map. */
static bool end_rest(struct batch *batch)
{
    struct ending e = { .batch = batch, .fine = true };

    map_each(batch->set->records, end_record, &e);
    return e.fine;
}

/* One transaction: all of it or nothing. */
static bool write_in_place(struct batch *batch, enum data_key key, const struct data_rows *rows)
{
    struct import_set *set = batch->set;
    CLEANUP(mem_free) uint8_t *own = NULL;

    for (size_t i = 0; i < rows->count; i++) {
        const Databroker__Record *record = record_of(set, key, &rows->items[i]);

        if (record == NULL || !is_same(record, &rows->items[i])) {
            row_add(batch, set->generation, key, &rows->items[i]);
        }
    }
    forget_rows(set, key, rows);
    if (rows->count != set->rows) {
        own_add(batch, set->generation, key, rows->count, &own);
    }
    return end_rest(batch) && batch_flush(batch);
}

static bool write_beside(struct batch *batch, enum data_key key, const struct data_rows *rows)
{
    char generation[DATA_GENERATION_MAX + 1];
    CLEANUP(mem_free) uint8_t *own = NULL;

    (void)snprintf(generation, sizeof(generation), "%016llx", (unsigned long long)rand_u64());
    for (size_t i = 0; i < rows->count; i++) {
        row_add(batch, generation, key, &rows->items[i]);
        if (batch_is_full(batch) && !batch_flush(batch)) {
            return false;
        }
    }
    own_add(batch, generation, key, rows->count, &own);
    if (!batch_flush(batch)) {
        return false;
    }
    /* What is left over is in force no more: the next import ends it if this cannot. */
    if (!end_rest(batch) || !batch_flush(batch)) {
        (void)fprintf(stderr,
                      "postern: the new rows are in force; old ones could not be cleared away, "
                      "the next import does that\n");
    }
    return true;
}

static bool fits_in_one(const struct import_set *set, enum data_key key,
                        const struct data_rows *rows, const struct import_counts *counts)
{
    size_t bytes = 0;
    size_t n = counts->added + counts->changed + counts->removed + counts->leftovers + 1;

    for (size_t i = 0; i < rows->count; i++) {
        const Databroker__Record *record = record_of(set, key, &rows->items[i]);
        bool is_written = record == NULL || !is_same(record, &rows->items[i]);

        bytes += is_written ? rows->items[i].n : 0;
    }
    return set->key == key && n < BATCH_RECORDS && bytes + n * RECORD_BYTES < BATCH_BYTES;
}

bool import_set_write(struct import_set *set, enum data_key key, const struct data_rows *rows,
                      const char *lease)
{
    struct import_counts counts = import_set_compare(set, key, rows);
    struct batch *batch = batch_new(set, lease);
    bool fine = fits_in_one(set, key, rows, &counts) ? write_in_place(batch, key, rows)
                                                     : write_beside(batch, key, rows);

    mem_free(&batch);
    return fine;
}
