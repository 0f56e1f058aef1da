#include "databroker/record.h"

#include "access.pb-c.h"
#include "session.pb-c.h"
#include "token.pb-c.h"
#include "user.pb-c.h"

#include "common/mem.h"
#include "common/rpc/scan.h"

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

void broker_records_match(struct broker_records *list, const struct broker_record *record,
                          uint64_t offset, size_t limit)
{
    if (list->total >= offset && !list->more) {
        list->more = !broker_records_fit(list, record, limit);
        if (!list->more) {
            broker_records_add(list, record);
        }
    }
    list->total++;
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

static const Google__Protobuf__Timestamp *end_of_session(const ProtobufCMessage *m)
{
    return ((const Session__Session *)(const void *)m)->expires_at;
}

static const Google__Protobuf__Timestamp *end_of_account(const ProtobufCMessage *m)
{
    return ((const User__ServiceAccount *)(const void *)m)->expires_at;
}

static const Google__Protobuf__Timestamp *end_of_access(const ProtobufCMessage *m)
{
    return ((const Postern__SessionAccess *)(const void *)m)->expires_at;
}

static const Google__Protobuf__Timestamp *end_of_token(const ProtobufCMessage *m)
{
    return ((const Postern__TokenState *)(const void *)m)->expires_at;
}

struct ending {
    struct sv name;
    const ProtobufCMessageDescriptor *type;
    const Google__Protobuf__Timestamp *(*end)(const ProtobufCMessage *m);
};

static const struct ending *ending_of(struct sv data_type)
{
    static const struct ending endings[] = {
        { { "session.Session", 15 }, &session__session__descriptor, end_of_session },
        { { "user.ServiceAccount", 19 }, &user__service_account__descriptor, end_of_account },
        { { "postern.SessionAccess", 21 }, &postern__session_access__descriptor, end_of_access },
        { { "postern.TokenState", 18 }, &postern__token_state__descriptor, end_of_token },
    };
    size_t slash = sv_rfind(data_type, '/');
    struct sv name = slash == SIZE_MAX ? data_type : sv_from_at(data_type, slash + 1);

    for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
        if (sv_eq(name, endings[i].name)) {
            return &endings[i];
        }
    }
    return NULL;
}

int64_t broker_record_end_us(const struct broker_record *record)
{
    static const int64_t max_s = INT64_MAX / 1000000;
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    const struct ending *ending = ending_of(record->data_type);
    const Google__Protobuf__Timestamp *end = NULL;
    ProtobufCMessage *m = NULL;

    arena_init(&arena);
    if (ending == NULL || rpc_unpack(ending->type, record->data, &arena, &m) != ERR_OK) {
        return 0;
    }
    end = ending->end(m);
    if (end == NULL || end->seconds >= max_s) {
        return 0;
    }
    return end->seconds <= 0 ? 1 : end->seconds * 1000000;
}
