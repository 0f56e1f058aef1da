#include "databroker/wire.h"

#include <string.h>

#include "common/mem.h"
#include "common/rpc/scan.h"

/* protobuf-c's structs have no const, not even where they are only read. */
static uint8_t *bytes_of(struct sv s)
{
    uint8_t *p = NULL;

    memcpy(&p, &s.p, sizeof(p));
    return p;
}

char *broker_wire_text(struct arena *arena, struct sv text)
{
    return arena_str(arena, text);
}

static Google__Protobuf__Timestamp *time_of(struct arena *arena, int64_t us)
{
    Google__Protobuf__Timestamp *t = arena_alloc(arena, sizeof(*t));

    google__protobuf__timestamp__init(t);
    t->seconds = us / 1000000;
    t->nanos = (int32_t)(us % 1000000) * 1000;
    return t;
}

void broker_wire_record(struct arena *arena, const struct broker_record *record,
                        Databroker__Record *message_out)
{
    databroker__record__init(message_out);
    message_out->version = record->version;
    message_out->type = arena_str(arena, record->type);
    message_out->id = arena_str(arena, record->id);
    if (record->data_type.n > 0) {
        Google__Protobuf__Any *any = arena_alloc(arena, sizeof(*any));

        google__protobuf__any__init(any);
        any->type_url = arena_str(arena, record->data_type);
        any->value.data = bytes_of(record->data);
        any->value.len = record->data.n;
        message_out->data = any;
    }
    message_out->modified_at = time_of(arena, record->modified_us);
    if (record->deleted_us != 0) {
        message_out->deleted_at = time_of(arena, record->deleted_us);
    }
}

Databroker__Record **broker_wire_records(struct arena *arena, const struct broker_records *list)
{
    Databroker__Record **all = arena_alloc(arena, list->count * sizeof(Databroker__Record *));
    size_t i = 0;

    for (i = 0; i < list->count; i++) {
        all[i] = arena_alloc(arena, sizeof(*all[i]));
        broker_wire_record(arena, &list->items[i], all[i]);
    }
    return all;
}

/* Borrows from message; checked. ERR_INVALID, ERR_LIMIT. */
static enum err record_read(const Databroker__Record *message, struct broker_record *record_out,
                            struct diag *d)
{
    *record_out = (struct broker_record){
        .type = sv_from(message->type),
        .id = sv_from(message->id),
        .deleted_us = message->deleted_at != NULL ? 1 : 0, /* when is for the store to say */
    };
    if (message->data != NULL) {
        record_out->data_type = sv_from(message->data->type_url);
        record_out->data = sv_of(message->data->value.data, message->data->value.len);
    }
    return broker_record_check(record_out, d);
}

enum err broker_wire_read_all(Databroker__Record *const *messages, size_t n,
                              struct broker_records *list, struct diag *d)
{
    size_t i = 0;

    if (n > BROKER_BATCH_RECORDS) {
        diag_set(d, "more than %d records at once", BROKER_BATCH_RECORDS);
        return ERR_LIMIT;
    }
    for (i = 0; i < n; i++) {
        struct broker_record record = { .version = 0 };
        enum err err = record_read(messages[i], &record, d);

        if (err != ERR_OK) {
            return err;
        }
        if (!broker_records_fit(list, &record, BROKER_BATCH_RECORDS)) {
            diag_set(d, "more than %d bytes of records at once", BROKER_BATCH_BYTES);
            return ERR_LIMIT;
        }
        broker_records_add(list, &record);
    }
    return ERR_OK;
}

enum err broker_wire_duration(const Google__Protobuf__Duration *message, int64_t max_s,
                              int64_t *ms_out, struct diag *d)
{
    if (message == NULL || message->seconds < 0 || message->nanos < 0 ||
        message->nanos > 999999999) {
        diag_set(d, "the duration is missing or not positive");
        return ERR_INVALID;
    }
    if (message->seconds > max_s) {
        diag_set(d, "the duration is longer than %lld s", (long long)max_s);
        return ERR_LIMIT;
    }
    *ms_out = message->seconds * 1000 + message->nanos / 1000000;
    if (*ms_out == 0) {
        diag_set(d, "the duration is shorter than a millisecond");
        return ERR_INVALID;
    }
    return ERR_OK;
}

Databroker__Options *broker_wire_options(struct arena *arena, struct sv bytes)
{
    ProtobufCMessage *message = NULL;

    if (rpc_unpack(&databroker__options__descriptor, bytes, arena, &message) != ERR_OK) {
        return NULL;
    }
    return (Databroker__Options *)(void *)message;
}
