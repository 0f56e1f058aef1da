/* What a client puts: bytes of a PutRequest, read and checked, then patched into one another. The
 * first byte chooses. */
#include "databroker.pb-c.h"

#include "common/mem.h"
#include "common/rpc/scan.h"
#include "databroker/patch.h"
#include "databroker/wire.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_back(struct broker_records *list)
{
    size_t i = 0;

    for (i = 0; i < list->count; i++) {
        Databroker__Record again;

        CHECK(broker_record_check(&list->items[i], NULL) == ERR_OK);
        broker_wire_record(&list->arena, &list->items[i], &again);
        CHECK(databroker__record__get_packed_size(&again) > 0);
    }
}

static void put(struct sv bytes)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    ProtobufCMessage *message = NULL;
    const Databroker__PutRequest *request = NULL;

    broker_records_init(&list);
    if (rpc_unpack(&databroker__put_request__descriptor, bytes, NULL, &message) != ERR_OK) {
        return;
    }
    request = (const Databroker__PutRequest *)(const void *)message;
    if (broker_wire_read_all(request->records, request->n_records, &list, NULL) == ERR_OK) {
        write_back(&list);
    }
    protobuf_c_message_free_unpacked(message, NULL);
}

static void query(struct sv bytes)
{
    struct sv ids[BROKER_QUERY_IDS];
    ProtobufCMessage *message = NULL;
    const Databroker__QueryRequest *request = NULL;
    size_t n = 0;

    if (rpc_unpack(&databroker__query_request__descriptor, bytes, NULL, &message) != ERR_OK) {
        return;
    }
    request = (const Databroker__QueryRequest *)(const void *)message;
    if (request->filter != NULL && broker_wire_filter(request->filter, ids, &n, NULL) == ERR_OK) {
        CHECK(n <= BROKER_QUERY_IDS);
    }
    protobuf_c_message_free_unpacked(message, NULL);
}

static void patch(struct sv bytes)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    CLEANUP(buf_deinit) struct buf again = { 0 };
    struct broker_patch mask = { .numbers = { 3, 9 }, .count = 2 };
    struct sv stored = sv_head(bytes, bytes.n / 2);
    struct sv given = sv_from_at(bytes, bytes.n / 2);

    buf_init(&out, BROKER_DATA_MAX);
    buf_init(&again, BROKER_DATA_MAX);
    if (broker_patch_apply(&mask, stored, given, &out) != ERR_OK) {
        return;
    }
    /* the same patch once more changes nothing */
    CHECK(broker_patch_apply(&mask, buf_sv(&out), given, &again) == ERR_OK);
    CHECK(sv_eq(buf_sv(&out), buf_sv(&again)));
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        put(sv_of(data + 1, size - 1));
        break;
    case 1:
        query(sv_of(data + 1, size - 1));
        break;
    default:
        patch(sv_of(data + 1, size - 1));
        break;
    }
    return 0;
}
