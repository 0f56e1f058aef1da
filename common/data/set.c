#include "common/data/set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "common/arena.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/scan.h"

enum {
    BATCH_RECORDS = DATA_SET_BATCH - 1, /* half of what the databroker takes; one more for "set" */
    BATCH_BYTES = 2 * 1024 * 1024,
    RECORD_BYTES = 1024, /* of a record beside its data, at most */
    RECORDS_MAX = 4 * DATA_ROWS_MAX
};

/* The records of a type, as they were read. */
struct set {
    const struct data_store *store;
    const struct data_change *change;
    struct arena arena;
    struct map *records; /* id: struct sv, its data; neither "set" nor "source" */
    enum data_key key;   /* NONE: no set is in force */
    char generation[DATA_GENERATION_MAX + 1];
    size_t rows;   /* in force */
    size_t weight; /* theirs */
    size_t leftovers;
    struct data_counts counts;
};

/* ---- reading ---------------------------------------------------------------------------------- */

/* What cannot be read is in force nowhere. */
static void take_own(struct set *set, struct sv data)
{
    ProtobufCMessage *m = NULL;

    if (rpc_unpack(&google__protobuf__struct__descriptor, data, NULL, &m) != ERR_OK) {
        return;
    }
    const Google__Protobuf__Struct *fields = (const Google__Protobuf__Struct *)(const void *)m;
    const char *generation = data_set_text(fields, "generation");

    if (strlen(generation) <= DATA_GENERATION_MAX && generation[0] != '\0') {
        set->key = data_key_parse(sv_from(data_set_text(fields, "key")));
        set->weight = (size_t)data_set_number(fields, "weight");
        (void)snprintf(set->generation, sizeof(set->generation), "%s", generation);
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

static void take_record(struct sv id, struct sv data, void *arg)
{
    struct set *set = arg;

    if (sv_eq(id, SV(DATA_SET_ID))) {
        take_own(set, data);
    } else if (!sv_eq(id, SV(DATA_SOURCE_ID)) && map_count(set->records) <= RECORDS_MAX) {
        struct sv *copy = arena_alloc(&set->arena, sizeof(*copy));

        *copy = arena_sv(&set->arena, data);
        (void)map_set(set->records, id, copy);
    }
}

static bool in_force(const struct set *set, struct sv id)
{
    size_t n = strlen(set->generation);

    return set->key != DATA_KEY_NONE && sv_starts(id, sv_of(set->generation, n)) && id.n > n &&
           id.p[n] == '/';
}

static void count_row(struct sv id, void *value, void *arg)
{
    struct set *set = arg;

    (void)value;
    set->rows += in_force(set, id) ? 1 : 0;
}

static enum err set_read(struct set *set, struct diag *d)
{
    enum err err = set->store->read(set->store->arg, set->change->type, take_record, set, d);

    if (err == ERR_OK && map_count(set->records) > RECORDS_MAX) {
        diag_set(d, "there are more than %d records of %s: they are not external data", RECORDS_MAX,
                 set->change->type);
        err = ERR_LIMIT;
    }
    if (err == ERR_OK) {
        map_each(set->records, count_row, set);
        set->leftovers = map_count(set->records) - set->rows;
    }
    return err;
}

/* ---- comparing -------------------------------------------------------------------------------- */

/* The id of the row's record in force; {NULL, 0}: none can be. */
static struct sv id_of(const struct set *set, const struct data_row *row, char room[DATA_ID_MAX])
{
    return set->key != set->change->key
               ? (struct sv){ .p = NULL }
               : data_row_id(sv_from(set->generation), set->key, sv_from(row->key), room);
}

static const struct sv *record_of(const struct set *set, const struct data_row *row)
{
    char room[DATA_ID_MAX];
    struct sv id = id_of(set, row, room);

    return id.n == 0 ? NULL : map_get(set->records, id);
}

static bool is_same(const struct sv *record, const struct data_row *row)
{
    return sv_eq(*record, sv_of(row->bytes, row->n));
}

static void compare(struct set *set)
{
    const struct data_rows *rows = set->change->rows;
    struct data_counts *counts = &set->counts;

    for (size_t i = 0; i < rows->count; i++) {
        const struct sv *record = record_of(set, &rows->items[i]);

        counts->added += record == NULL ? 1 : 0;
        counts->changed += record != NULL && !is_same(record, &rows->items[i]) ? 1 : 0;
        counts->same += record != NULL && is_same(record, &rows->items[i]) ? 1 : 0;
    }
    counts->removed = set->rows - counts->changed - counts->same;
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* The records of one put. */
struct batch {
    struct set *set;
    struct data_record records[DATA_SET_BATCH];
    char ids[DATA_SET_BATCH][DATA_ID_MAX];
    size_t n;
    size_t bytes;
    uint8_t *own; /* the data of the record "set" */
    struct diag *d;
};

static void batch_free(struct batch **batch)
{
    if (*batch != NULL) {
        mem_free(&(*batch)->own);
        mem_free(batch);
    }
}

static bool batch_is_full(const struct batch *batch)
{
    return batch->n >= BATCH_RECORDS || batch->bytes >= BATCH_BYTES;
}

static enum err batch_flush(struct batch *batch)
{
    const struct set *set = batch->set;
    size_t n = batch->n;

    batch->n = 0;
    batch->bytes = 0;
    return n == 0
               ? ERR_OK
               : set->store->put(set->store->arg, set->change->type, batch->records, n, batch->d);
}

/* data {NULL, 0}: the record's end. */
static void batch_add(struct batch *batch, struct sv id, struct sv data)
{
    memcpy(batch->ids[batch->n], id.p, id.n);
    batch->records[batch->n] =
        (struct data_record){ .id = sv_of(batch->ids[batch->n], id.n), .data = data };
    batch->n++;
    batch->bytes += RECORD_BYTES + data.n;
}

static void row_add(struct batch *batch, const char *generation, const struct data_row *row)
{
    char room[DATA_ID_MAX];

    batch_add(batch,
              data_row_id(sv_from(generation), batch->set->change->key, sv_from(row->key), room),
              sv_of(row->bytes, row->n));
}

/* Adds the record that says what is in force. */
static void own_add(struct batch *batch, const char *generation)
{
    const struct data_change *change = batch->set->change;
    const struct data_member members[] = {
        { .name = "generation", .text = generation },
        { .name = "key", .text = data_key_name(change->key) },
        { .name = "rows", .number = (int64_t)change->rows->count },
        { .name = "weight", .number = (int64_t)change->rows->weight },
    };
    size_t n = 0;

    batch->own = data_set_pack(members, change->rows->weight != 0 ? 4 : 3, &n);
    batch_add(batch, SV(DATA_SET_ID), sv_of(batch->own, n));
}

/* Takes from the map what rows still have: the rest are those that ended. */
static void forget_rows(struct set *set)
{
    const struct data_rows *rows = set->change->rows;

    for (size_t i = 0; i < rows->count; i++) {
        char room[DATA_ID_MAX];
        struct sv id = id_of(set, &rows->items[i], room);

        if (id.n != 0) {
            (void)map_take(set->records, id);
        }
    }
}

/* Records are written in the order of their ids, in which a store keeps them: 500 that lie side by side are on
 * a few pages of it, 500 others on a page each. */
static int by_id(const void *a, const void *b)
{
    return sv_cmp(*(const struct sv *)a, *(const struct sv *)b);
}

struct ending {
    struct sv *ids;
    size_t n;
};

static void end_id(struct sv id, void *value, void *arg)
{
    struct ending *e = arg;

    (void)value;
    if (id.n <= DATA_ID_MAX) {
        e->ids[e->n++] = id;
    }
}

/* Ends every record that is left in the map, and writes what the batch still has. */
static enum err end_rest(struct batch *batch)
{
    const struct map *records = batch->set->records;
    CLEANUP(mem_free) struct sv *ids = mem_array(map_count(records) + 1, sizeof(*ids));
    struct ending e = { .ids = ids };
    enum err err = ERR_OK;

    map_each(records, end_id, &e);
    qsort(ids, e.n, sizeof(*ids), by_id);
    for (size_t i = 0; i < e.n && err == ERR_OK; i++) {
        batch_add(batch, ids[i], (struct sv){ .p = NULL });
        err = batch_is_full(batch) ? batch_flush(batch) : ERR_OK;
    }
    return err == ERR_OK ? batch_flush(batch) : err;
}

/* One transaction: all of it or nothing. */
static enum err write_in_place(struct batch *batch)
{
    struct set *set = batch->set;
    const struct data_rows *rows = set->change->rows;

    for (size_t i = 0; i < rows->count; i++) {
        const struct sv *record = record_of(set, &rows->items[i]);

        if (record == NULL || !is_same(record, &rows->items[i])) {
            row_add(batch, set->generation, &rows->items[i]);
        }
    }
    forget_rows(set);
    if (rows->count != set->rows || rows->weight != set->weight) {
        own_add(batch, set->generation);
    }
    return end_rest(batch);
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const struct data_row *const *)a)->key,
                  (*(const struct data_row *const *)b)->key);
}

/* Writes the rows of a generation. A key's order is that of its id. */
static enum err write_rows(struct batch *batch, const char *generation)
{
    const struct data_rows *rows = batch->set->change->rows;
    CLEANUP(mem_free)
    const struct data_row **order = mem_array(rows->count + 1, sizeof(struct data_row *));
    enum err err = ERR_OK;

    for (size_t i = 0; i < rows->count; i++) {
        order[i] = &rows->items[i];
    }
    qsort(order, rows->count, sizeof(struct data_row *), by_key);
    for (size_t i = 0; i < rows->count && err == ERR_OK; i++) {
        row_add(batch, generation, order[i]);
        err = batch_is_full(batch) ? batch_flush(batch) : ERR_OK;
    }
    return err;
}

static enum err write_beside(struct batch *batch)
{
    char generation[DATA_GENERATION_MAX + 1];
    enum err err = ERR_OK;

    (void)snprintf(generation, sizeof(generation), "%016llx", (unsigned long long)rand_u64());
    err = write_rows(batch, generation);
    if (err != ERR_OK) {
        return err;
    }
    own_add(batch, generation);
    err = batch_flush(batch);
    if (err == ERR_OK) {
        batch->d = NULL; /* what is left over is in force no more: the next one ends it */
        batch->set->counts.is_littered = end_rest(batch) != ERR_OK;
    }
    return err;
}

static bool fits_in_one(const struct set *set)
{
    const struct data_rows *rows = set->change->rows;
    const struct data_counts *counts = &set->counts;
    size_t bytes = 0;
    size_t n = counts->added + counts->changed + counts->removed + set->leftovers + 1;

    for (size_t i = 0; i < rows->count; i++) {
        const struct sv *record = record_of(set, &rows->items[i]);
        bool is_written = record == NULL || !is_same(record, &rows->items[i]);

        bytes += is_written ? rows->items[i].n : 0;
    }
    return set->key == set->change->key && n < BATCH_RECORDS &&
           bytes + n * RECORD_BYTES < BATCH_BYTES;
}

static enum err set_write(struct set *set, struct diag *d)
{
    CLEANUP(batch_free) struct batch *batch = MEM_NEW(struct batch);

    batch->set = set;
    batch->d = d;
    return fits_in_one(set) ? write_in_place(batch) : write_beside(batch);
}

/* ---- all of it -------------------------------------------------------------------------------- */

static bool is_needed(const struct set *set)
{
    const struct data_counts *counts = &set->counts;

    return counts->added + counts->changed + counts->removed + set->leftovers != 0 ||
           set->weight != set->change->rows->weight || set->key != set->change->key;
}

bool data_set_is_loss(size_t before, size_t lost)
{
    enum { FEW = 5, SHARE = 5 };

    return lost >= FEW && lost > before / SHARE;
}

/* Rows of another kind of key are no others' successors: all that are in force count as removed. */
static bool is_refused(const struct set *set)
{
    const struct data_change *change = set->change;
    size_t weight = change->rows->weight;

    if (change->rows->count == 0) {
        return set->rows != 0 && !change->may_be_empty;
    }
    return !change->may_shrink && set->weight != 0 &&
           (data_set_is_loss(set->rows, set->counts.removed) ||
            (weight < set->weight && data_set_is_loss(set->weight, set->weight - weight)));
}

static enum err set_apply(struct set *set, struct diag *d)
{
    const struct data_change *change = set->change;
    enum err err = set_read(set, d);

    if (err != ERR_OK) {
        return err;
    }
    compare(set);
    set->counts.weight_before = set->weight;
    if (is_refused(set)) {
        return ERR_DENIED;
    }
    return change->is_dry || !is_needed(set) ? ERR_OK : set_write(set, d);
}

enum err data_set_apply(const struct data_store *store, const struct data_change *change,
                        struct data_counts *counts_out, struct diag *d)
{
    struct set set = { .store = store, .change = change, .records = map_new() };

    arena_init(&set.arena);
    enum err err = set_apply(&set, d);

    *counts_out = set.counts;
    map_free(&set.records);
    arena_deinit(&set.arena);
    return err;
}
