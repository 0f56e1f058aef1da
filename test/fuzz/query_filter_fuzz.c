/* A Query's filter and the record that it is asked of. The first byte chooses the type of the data, the
 * next two say how long the request is; the rest is the data. */
#include "databroker.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "databroker/filter.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const types[] = {
    "type.googleapis.com/session.Session",        "type.googleapis.com/user.User",
    "type.googleapis.com/google.protobuf.Struct", "type.googleapis.com/google.protobuf.Value",
    "type.googleapis.com/pomerium.device.Type",   "unknown",
};

static enum err ask(const struct broker_filter *filter, const struct broker_record *record,
                    bool *match_out)
{
    CLEANUP(broker_filter_run_deinit) struct broker_filter_run run = { .steps = 0 };

    broker_filter_run_init(&run, clock_mono_ms() + 60000, NULL);
    return broker_filter_match(filter, record, &run, match_out);
}

/* If only some ids can match, a record that matches has one of them. */
static void check_ids(const struct broker_filter *filter, struct arena *arena,
                      const struct broker_record *record, bool match)
{
    const struct sv *ids = NULL;
    size_t n = 0;
    bool found = false;

    if (!broker_filter_ids(filter, arena, &ids, &n)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        CHECK(i == 0 || sv_cmp(ids[i - 1], ids[i]) < 0);
        found = found || sv_eq(ids[i], record->id);
    }
    CHECK(found || !match);
}

static void check_not(Google__Protobuf__Struct *message, struct arena *arena,
                      const struct broker_record *record, bool match)
{
    Google__Protobuf__Value inner = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Struct__FieldsEntry entry = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    Google__Protobuf__Struct__FieldsEntry *entries[] = { &entry };
    Google__Protobuf__Struct outer = GOOGLE__PROTOBUF__STRUCT__INIT;
    const struct broker_filter *filter = NULL;
    bool inverse = false;

    inner.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    inner.struct_value = message;
    entry.key = base_unconst("$not");
    entry.value = &inner;
    outer.n_fields = 1;
    outer.fields = entries;
    if (broker_filter_read(&outer, arena, &filter, NULL) == ERR_OK && /* it is a little deeper */
        ask(filter, record, &inverse) == ERR_OK) {
        CHECK(!(match && inverse)); /* where data is damaged, neither */
    }
}

static void look(Google__Protobuf__Struct *message, const struct broker_record *record)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    const struct broker_filter *filter = NULL;
    bool match = true;

    arena_init(&arena);
    if (broker_filter_read(message, &arena, &filter, NULL) != ERR_OK) {
        return;
    }
    if (ask(filter, record, &match) != ERR_OK) {
        CHECK(!match);
        return;
    }
    check_ids(filter, &arena, record, match);
    check_not(message, &arena, record, match);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct broker_record record = { .type = SV("t"), .id = SV("a") };
    ProtobufCMessage *message = NULL;
    size_t n = 0;

    if (size < 3) {
        return 0;
    }
    n = MIN((size_t)data[1] << 8U | data[2], size - 3);
    record.data_type = sv_from(types[data[0] % ARRAY_LEN(types)]);
    record.data = sv_of(data + 3 + n, size - 3 - n);
    if (rpc_unpack(&databroker__query_request__descriptor, sv_of(data + 3, n), NULL, &message) !=
        ERR_OK) {
        return 0;
    }
    if (((const Databroker__QueryRequest *)(const void *)message)->filter != NULL) {
        look(((const Databroker__QueryRequest *)(const void *)message)->filter, &record);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}
