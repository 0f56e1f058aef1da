/* A PatchRequest: the mask, the data of its first record as what is stored, of its second as what is
 * given. */
#include "databroker.pb-c.h"

#include "common/mem.h"
#include "common/rpc/scan.h"
#include "databroker/mask.h"
#include "databroker/record.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sv data_of(const Databroker__Record *record)
{
    return record->data == NULL ? SV("") : sv_of(record->data->value.data, record->data->value.len);
}

/* What is merged is a message, and the same patch once more changes nothing. */
static void apply(const struct broker_mask *mask, struct sv stored, struct sv given)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    CLEANUP(buf_deinit) struct buf again = { 0 };
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    ProtobufCMessage *message = NULL;

    arena_init(&arena);
    buf_init(&out, BROKER_DATA_MAX);
    buf_init(&again, BROKER_DATA_MAX);
    if (broker_mask_apply(mask, stored, given, &out) != ERR_OK) {
        return;
    }
    CHECK(rpc_unpack(mask->type, buf_sv(&out), &arena, &message) == ERR_OK);
    CHECK(broker_mask_apply(mask, buf_sv(&out), given, &again) == ERR_OK);
    CHECK(sv_eq(buf_sv(&out), buf_sv(&again)));
}

static void patch(const Databroker__PatchRequest *request)
{
    const Google__Protobuf__Any *any = request->records[0]->data;
    struct broker_mask mask;

    if (any != NULL && broker_mask_init(&mask, sv_from(any->type_url), request->field_mask->paths,
                                        request->field_mask->n_paths, NULL) == ERR_OK) {
        CHECK(mask.count > 1 && mask.count <= BROKER_MASK_NODES);
        apply(&mask, data_of(request->records[0]), data_of(request->records[1]));
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ProtobufCMessage *message = NULL;
    const Databroker__PatchRequest *request = NULL;

    if (rpc_unpack(&databroker__patch_request__descriptor, sv_of(data, size), NULL, &message) !=
        ERR_OK) {
        return 0;
    }
    request = (const Databroker__PatchRequest *)(const void *)message;
    if (request->n_records == 2 && request->field_mask != NULL) {
        patch(request);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}
