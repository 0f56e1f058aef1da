/* What a client puts: bytes of a PutRequest, read and checked. */
#include "databroker.pb-c.h"

#include "common/mem.h"
#include "common/rpc/scan.h"
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

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    put(sv_of(data, size));
    return 0;
}
