#include "databroker/record.h"

#include "common/mem.h"

void broker_records_init(struct broker_records *list)
{
    *list = (struct broker_records){ .items = NULL };
    arena_init(&list->arena);
}

void broker_records_deinit(struct broker_records *list)
{
    arena_deinit(&list->arena);
    mem_free(&list->items);
    list->count = 0;
    list->room = 0;
}

static size_t record_bytes(const struct broker_record *record)
{
    return record->type.n + record->id.n + record->data_type.n + record->data.n;
}

void broker_records_add(struct broker_records *list, const struct broker_record *record)
{
    struct broker_record *copy = NULL;

    if (list->count == list->room) {
        list->room = list->room == 0 ? 8 : list->room * 2;
        list->items = mem_realloc(list->items, list->room, sizeof(*list->items));
    }
    copy = &list->items[list->count];
    list->count++;
    *copy = *record;
    copy->type = arena_sv(&list->arena, record->type);
    copy->id = arena_sv(&list->arena, record->id);
    copy->data_type = arena_sv(&list->arena, record->data_type);
    copy->data = arena_sv(&list->arena, record->data);
    list->bytes += record_bytes(record);
}

bool broker_records_fit(const struct broker_records *list, const struct broker_record *record,
                        size_t limit)
{
    if (list->count == 0) {
        return limit > 0;
    }
    return list->count < limit && list->bytes + record_bytes(record) <= BROKER_BATCH_BYTES;
}

enum err broker_name_check(struct sv name, const char *what, struct diag *d)
{
    size_t i = 0;

    if (name.n == 0) {
        diag_set(d, "%s is empty", what);
        return ERR_INVALID;
    }
    if (name.n > BROKER_NAME_MAX) {
        diag_set(d, "%s is longer than %d bytes", what, BROKER_NAME_MAX);
        return ERR_LIMIT;
    }
    for (i = 0; i < name.n; i++) {
        if ((unsigned char)name.p[i] < 0x20 || name.p[i] == 0x7f) {
            diag_set(d, "%s holds a control character", what);
            return ERR_INVALID;
        }
    }
    if (!sv_is_utf8(name)) {
        diag_set(d, "%s is not UTF-8", what);
        return ERR_INVALID;
    }
    return ERR_OK;
}

enum err broker_record_check(const struct broker_record *record, struct diag *d)
{
    enum err err = broker_name_check(record->type, "record.type", d);

    if (err == ERR_OK) {
        err = broker_name_check(record->id, "record.id", d);
    }
    if (err == ERR_OK && record->data_type.n > 0) {
        err = broker_name_check(record->data_type, "record.data.type_url", d);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (record->data.n > BROKER_DATA_MAX) {
        diag_set(d, "record.data is larger than %d bytes", BROKER_DATA_MAX);
        return ERR_LIMIT;
    }
    if (record->deleted_us == 0 && record->data_type.n == 0) {
        diag_set(d, "record.data is missing; a deletion has deleted_at");
        return ERR_INVALID;
    }
    return ERR_OK;
}
