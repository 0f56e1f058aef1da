/* Bytes of a peer, as each message that a daemon takes: scanned, unpacked, packed again. The first
 * byte chooses the message. */
#include <stdint.h>

#include "authenticate.pb-c.h"
#include "authorize.pb-c.h"
#include "databroker.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "reflection.pb-c.h"
#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/buf.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

static const ProtobufCMessageDescriptor *const types[] = {
    &postern__check_request__descriptor,
    &postern__check_batch__descriptor,
    &postern__reply_batch__descriptor,
    &postern__redeem_request__descriptor,
    &databroker__put_request__descriptor,
    &databroker__query_request__descriptor,
    &databroker__sync_response__descriptor,
    &databroker__set_options_request__descriptor,
    &session__session__descriptor,
    &user__user__descriptor,
    &google__protobuf__struct__descriptor,
    &databroker__patch_request__descriptor,
    &grpc__reflection__v1__server_reflection_request__descriptor,
};

static void check_again(const ProtobufCMessageDescriptor *type, const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = mem_alloc(n + 1);
    ProtobufCMessage *again = NULL;

    CHECK(protobuf_c_message_pack(message, bytes) == n);
    /* What we pack ourselves, we take. */
    CHECK(rpc_unpack(type, sv_of(bytes, n), NULL, &again) == ERR_OK);
    protobuf_c_message_free_unpacked(again, NULL);
    mem_free(&bytes);
}

/* NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    ProtobufCMessage *message = NULL;
    const ProtobufCMessageDescriptor *type = NULL;
    struct sv bytes = { 0 };

    if (size == 0) {
        return 0;
    }
    type = types[data[0] % ARRAY_LEN(types)];
    bytes = sv_of(data + 1, size - 1);
    arena_init(&arena);
    if (rpc_unpack(type, bytes, &arena, &message) == ERR_OK) {
        check_again(type, message);
    }
    arena_deinit(&arena);
    message = NULL;
    if (rpc_unpack(type, bytes, NULL, &message) == ERR_OK) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    return 0;
}
