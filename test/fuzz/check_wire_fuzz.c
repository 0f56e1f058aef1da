/* What is read off CheckStream field by field, beside what protobuf-c makes of the same bytes: what
 * we take, it takes, and finds the same. (It takes some numbers in types that are not theirs; we do
 * not.) The first byte chooses the message. */
#include <string.h>

#include "authorize/question.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "proxy/authz_wire.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same_bytes(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    size_t n = protobuf_c_message_get_packed_size(a);
    uint8_t *bytes[2] = { mem_alloc(n + 1), mem_alloc(n + 1) };

    must(protobuf_c_message_get_packed_size(b) == n);
    (void)protobuf_c_message_pack(a, bytes[0]);
    (void)protobuf_c_message_pack(b, bytes[1]);
    must(memcmp(bytes[0], bytes[1], n) == 0);
    mem_free(&bytes[0]);
    mem_free(&bytes[1]);
}

static void check_question(struct sv bytes, struct arena *arena)
{
    ProtobufCMessage *theirs = NULL;
    Postern__CheckRequest ours;
    struct buf again;
    Postern__CheckRequest back;

    if (authz_question_read(bytes, arena, &ours) != ERR_OK) {
        return;
    }
    must(rpc_unpack(&postern__check_request__descriptor, bytes, arena, &theirs) == ERR_OK);
    theirs->n_unknown_fields = 0;
    same_bytes(theirs, &ours.base);
    buf_init(&again, 1 << 24);
    proxy_authz_wire_check(&again, &ours);
    must(authz_question_read(buf_sv(&again), arena, &back) == ERR_OK);
    same_bytes(&ours.base, &back.base);
    buf_deinit(&again);
}

static void check_reply(struct sv bytes, struct arena *arena)
{
    ProtobufCMessage *m = NULL;
    const Postern__Reply *theirs = NULL;
    struct proxy_authz_reply ours;

    if (proxy_authz_wire_reply(bytes, &ours) != ERR_OK) {
        return;
    }
    must(rpc_unpack(&postern__reply__descriptor, bytes, arena, &m) == ERR_OK);
    theirs = (const Postern__Reply *)(const void *)m;
    must(ours.id == theirs->id && (uint32_t)ours.decision == (uint32_t)theirs->decision);
    must((uint32_t)ours.status == theirs->status && ours.block == theirs->block);
    must(ours.valid_until_s == theirs->valid_until_s);
    must(sv_eq(ours.user, sv_from(theirs->user)) && sv_eq(ours.email, sv_from(theirs->email)));
    must(ours.n_reasons == theirs->n_reasons);
    for (size_t i = 0; i < ours.n_reasons; i++) {
        must(ours.reasons[i] == theirs->reasons[i]);
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;

    if (size == 0) {
        return 0;
    }
    arena_init(&arena);
    if (data[0] % 2 == 0) {
        check_question(sv_of(data + 1, size - 1), &arena);
    } else {
        check_reply(sv_of(data + 1, size - 1), &arena);
    }
    arena_deinit(&arena);
    return 0;
}
