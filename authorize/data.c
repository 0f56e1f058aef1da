#include "authorize/data.h"

#include <string.h>

#include "authorize/claims.h"
#include "common/buf.h"
#include "common/data/form.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

enum { LISTS_MAX = 16 << 20 };

struct row {
    uint64_t version;
    struct authz_claims *fields; /* NULL: it has none */
};

/* The records of one type. */
struct set {
    uint64_t version; /* of the record that says what is in force; 0: none */
    enum data_key key;
    char generation[DATA_GENERATION_MAX + 1];
    struct map *rows; /* record id: row, of every generation */
    /* Of a source that is polled, for who explains. */
    uint64_t source_version; /* 0: none */
    int64_t checked_s;
    char *error;
};

struct authz_data {
    struct authz_texts *texts;
    struct map *sets;      /* type: set */
    struct set *directory; /* NULL: no record of it */
    uint64_t epoch;
    uint64_t directory_epoch;
    size_t rows;
    struct authz_claim_room room;
    struct authz_claim_room directory_room;
};

/* --- rows ------------------------------------------------------------------------------------- */

static void row_free(struct authz_data *data, struct row *row)
{
    if (row != NULL) {
        authz_claims_free(data->texts, &row->fields);
        mem_free(&row);
    }
}

static bool in_force(const struct set *set, struct sv id)
{
    struct sv generation = sv_from(set->generation);

    return generation.n != 0 && sv_starts(id, generation) && id.n > generation.n &&
           id.p[generation.n] == '/';
}

static void row_drop(struct authz_data *data, struct set *set, struct sv id)
{
    struct row *row = map_take(set->rows, id);

    if (row != NULL) {
        data->rows--;
        data->epoch += in_force(set, id) ? 1 : 0;
        row_free(data, row);
    }
}

/* One field's value as the list that claims are. */
static void list_add(struct buf *out, Google__Protobuf__Value *value)
{
    Google__Protobuf__ListValue room = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    const Google__Protobuf__ListValue *list = &room;

    room.n_values = value != NULL ? 1 : 0;
    room.values = &value;
    if (value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        list = value->list_value;
    }
    size_t n = google__protobuf__list_value__get_packed_size(list);
    uint8_t *at = (uint8_t *)buf_room(out, n);

    if (at != NULL) {
        buf_grew(out, google__protobuf__list_value__pack(list, at));
    }
}

static enum err fields_of(struct authz_data *data, const Google__Protobuf__Struct *m,
                          struct authz_claims **fields_out)
{
    struct authz_claim_entry *entries = mem_array(m->n_fields + 1, sizeof(*entries));
    size_t *ends = mem_array(m->n_fields + 1, sizeof(*ends));
    struct buf lists;

    buf_init(&lists, LISTS_MAX);
    for (size_t i = 0; i < m->n_fields; i++) {
        list_add(&lists, m->fields[i]->value);
        ends[i + 1] = lists.n;
    }
    for (size_t i = 0; i < m->n_fields; i++) {
        entries[i] =
            (struct authz_claim_entry){ .name = sv_from(m->fields[i]->key),
                                        .values = sv_of(lists.p + ends[i], ends[i + 1] - ends[i]) };
    }
    enum err err = lists.err != ERR_OK
                       ? lists.err
                       : authz_claims_new(data->texts, entries, m->n_fields, fields_out);
    buf_deinit(&lists);
    mem_free(&entries);
    mem_free(&ends);
    return err;
}

static bool row_put(struct authz_data *data, struct set *set, const Databroker__Record *record,
                    const Google__Protobuf__Struct *m)
{
    struct authz_claims *fields = NULL;

    if (fields_of(data, m, &fields) != ERR_OK) {
        return false;
    }
    struct row *row = MEM_NEW(struct row);

    *row = (struct row){ .version = record->version, .fields = fields };
    struct row *old = map_set(set->rows, sv_from(record->id), row);

    data->rows += old == NULL ? 1 : 0;
    data->epoch += in_force(set, sv_from(record->id)) ? 1 : 0;
    row_free(data, old);
    return true;
}

/* --- sets ------------------------------------------------------------------------------------- */

static void set_drop(struct authz_data *data, struct set *set)
{
    data->epoch += set->version != 0 ? 1 : 0;
    set->version = 0;
    set->key = DATA_KEY_NONE;
    set->generation[0] = '\0';
}

static bool set_put(struct authz_data *data, struct set *set, const Databroker__Record *record,
                    const Google__Protobuf__Struct *m)
{
    enum data_key key = data_key_parse(sv_from(data_set_text(m, "key")));
    struct sv generation = sv_from(data_set_text(m, "generation"));

    if (key == DATA_KEY_NONE || generation.n == 0 || generation.n > DATA_GENERATION_MAX ||
        sv_find(generation, '/') != SIZE_MAX) {
        return false;
    }
    /* The number of rows changes together with rows: they count themselves. */
    data->epoch += set->key != key || !sv_eq(generation, sv_from(set->generation)) ? 1 : 0;
    set->version = record->version;
    set->key = key;
    memcpy(set->generation, generation.p, generation.n);
    set->generation[generation.n] = '\0';
    return true;
}

static void source_drop(struct set *set)
{
    set->source_version = 0;
    set->checked_s = 0;
    mem_free(&set->error);
}

static bool source_put(struct set *set, const Databroker__Record *record,
                       const Google__Protobuf__Struct *m)
{
    struct sv error = sv_from(data_set_text(m, "error"));

    source_drop(set);
    set->source_version = record->version;
    set->checked_s = data_set_number(m, "checked");
    set->error = mem_svdup(sv_head(error, MIN(error.n, (size_t)DATA_ERROR_MAX)));
    return true;
}

static struct set *set_take(struct authz_data *data, struct sv type)
{
    struct set *set = map_get(data->sets, type);

    if (set == NULL) {
        set = MEM_NEW(struct set);
        set->rows = map_new();
        (void)map_set(data->sets, type, set);
        data->directory = sv_eq(type, SV(DATA_DIRECTORY_TYPE)) ? set : data->directory;
    }
    return set;
}

static void set_free_if_empty(struct authz_data *data, struct sv type)
{
    struct set *set = map_get(data->sets, type);

    if (set != NULL && set->version == 0 && set->source_version == 0 && map_count(set->rows) == 0) {
        data->directory = set == data->directory ? NULL : data->directory;
        (void)map_take(data->sets, type);
        map_free(&set->rows);
        mem_free(&set);
    }
}

/* --- records ---------------------------------------------------------------------------------- */

static bool is_set(const Databroker__Record *record)
{
    return strcmp(record->id, DATA_SET_ID) == 0;
}

static bool is_source(const Databroker__Record *record)
{
    return strcmp(record->id, DATA_SOURCE_ID) == 0;
}

static uint64_t version_held(const struct set *set, const Databroker__Record *record)
{
    if (is_set(record)) {
        return set->version;
    }
    if (is_source(record)) {
        return set->source_version;
    }
    const struct row *row = map_get(set->rows, sv_from(record->id));

    return row != NULL ? row->version : 0;
}

static void drop(struct authz_data *data, struct set *set, const Databroker__Record *record)
{
    if (is_set(record)) {
        set_drop(data, set);
    } else if (is_source(record)) {
        source_drop(set);
    } else {
        row_drop(data, set, sv_from(record->id));
    }
}

static bool put(struct authz_data *data, struct set *set, const Databroker__Record *record)
{
    ProtobufCMessage *m = NULL;

    if (record->data == NULL ||
        rpc_unpack(&google__protobuf__struct__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), NULL, &m) != ERR_OK) {
        return false;
    }
    const Google__Protobuf__Struct *fields = (const Google__Protobuf__Struct *)(const void *)m;
    bool fine = is_set(record)      ? set_put(data, set, record, fields)
                : is_source(record) ? source_put(set, record, fields)
                                    : row_put(data, set, record, fields);

    protobuf_c_message_free_unpacked(m, NULL);
    return fine;
}

bool authz_data_apply(struct authz_data *data, const Databroker__Record *record)
{
    struct sv type = sv_from(record->type);
    uint64_t epoch = data->epoch;
    bool fine = true;

    if (!data_type_is_set(type) ||
        (record->deleted_at != NULL && map_get(data->sets, type) == NULL)) {
        return true;
    }
    struct set *set = set_take(data, type);

    if (record->version > version_held(set, record)) {
        fine = record->deleted_at != NULL || put(data, set, record);
        if (record->deleted_at != NULL || !fine) {
            drop(data, set, record);
        }
    }
    data->directory_epoch += set == data->directory ? data->epoch - epoch : 0;
    set_free_if_empty(data, type);
    return fine;
}

/* --- lookups ---------------------------------------------------------------------------------- */

static struct sv key_of(const struct authz_data_ask *ask, enum data_key key)
{
    switch (key) {
    case DATA_KEY_USER:
        return ask->user_id;
    case DATA_KEY_EMAIL:
        return ask->email;
    case DATA_KEY_SESSION:
        return ask->session_id;
    case DATA_KEY_NONE:
        break;
    }
    return (struct sv){ 0 };
}

static const struct row *row_of(const struct authz_data_ask *ask, const struct set *set)
{
    char room[DATA_ID_MAX];
    struct sv id = data_row_id(sv_from(set->generation), set->key, key_of(ask, set->key), room);

    return id.n == 0 ? NULL : map_get(set->rows, id);
}

bool authz_data_has_directory(const struct authz_data *data)
{
    return data->directory != NULL && data->directory->version != 0;
}

uint64_t authz_data_directory_epoch(const struct authz_data *data)
{
    return data->directory_epoch;
}

bool authz_data_is_listed(const struct authz_data_ask *ask)
{
    return row_of(ask, ask->data->directory) != NULL;
}

const struct policy_claim *authz_data_groups(const struct authz_data_ask *ask)
{
    const struct row *row = row_of(ask, ask->data->directory);

    return row == NULL ? NULL
                       : authz_claims_get(ask->data->texts, row->fields, SV("group_ids"),
                                          &ask->data->directory_room);
}

void authz_data_field(void *arg, struct sv type, struct sv field, struct policy_field *field_out)
{
    const struct authz_data_ask *ask = arg;
    const struct set *set = map_get(ask->data->sets, type);
    const struct row *row = set == NULL ? NULL : row_of(ask, set);

    if (row == NULL) {
        return;
    }
    const struct policy_claim *claim =
        field.n == 0 ? NULL
                     : authz_claims_get(ask->data->texts, row->fields, field, &ask->data->room);

    field_out->record = true;
    field_out->present = field.n == 0 || claim != NULL;
    if (claim != NULL) {
        field_out->values = claim->values;
        field_out->count = claim->count;
    }
}

bool authz_data_source(const struct authz_data *data, struct sv type,
                       struct authz_data_source *source_out)
{
    const struct set *set = map_get(data->sets, type);

    if (set == NULL || set->source_version == 0) {
        return false;
    }
    *source_out = (struct authz_data_source){ .checked_s = set->checked_s, .error = set->error };
    return true;
}

/* --- the whole -------------------------------------------------------------------------------- */

uint64_t authz_data_epoch(const struct authz_data *data)
{
    return data->epoch;
}

size_t authz_data_rows(const struct authz_data *data)
{
    return data->rows;
}

struct authz_data *authz_data_new(struct authz_texts *texts)
{
    struct authz_data *data = MEM_NEW(struct authz_data);

    data->texts = texts;
    data->sets = map_new();
    return data;
}

static void free_row(struct sv key, void *value, void *arg)
{
    (void)key;
    row_free(arg, value);
}

static void free_set(struct sv key, void *value, void *arg)
{
    struct set *set = value;

    (void)key;
    map_each(set->rows, free_row, arg);
    map_free(&set->rows);
    source_drop(set);
    mem_free(&set);
}

void authz_data_free(struct authz_data **data)
{
    struct authz_data *d = TAKE(*data);

    if (d != NULL) {
        map_each(d->sets, free_set, d);
        authz_claim_room_deinit(&d->room);
        authz_claim_room_deinit(&d->directory_room);
        map_free(&d->sets);
        mem_free(&d);
    }
}
