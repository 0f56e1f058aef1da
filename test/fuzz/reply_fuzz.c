/* What authorize answers, up to the header lines that the proxy would add to a request: nothing in
 * them may end a line, and a number stands for the block that was sent under it. */
#include "common/arena.h"
#include "common/authz_block.h"
#include "common/http/name.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "proxy/identity.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_identity(const struct proxy_identity *id)
{
    size_t i = 0;

    must(id->n <= AUTHZ_BLOCK_HEADERS_MAX);
    for (i = 0; i < id->n; i++) {
        must(http_is_token(id->headers[i].name));
        must(sv_find(id->headers[i].value, '\n') == SIZE_MAX);
        must(sv_find(id->headers[i].value, '\r') == SIZE_MAX);
        must(sv_find(id->headers[i].value, '\0') == SIZE_MAX);
    }
}

static void take(struct proxy_identity_table *table, const Postern__ReplyItem *item)
{
    struct proxy_identity *id = NULL;

    if (item->item_case == POSTERN__REPLY_ITEM__ITEM_BLOCK) {
        if (!proxy_identity_put(table, item->block)) {
            return;
        }
        id = proxy_identity_get(table, item->block->number);
        must(id != NULL && id->n == item->block->n_headers);
        must(sv_eq(id->user, sv_from(item->block->user)));
        must(sv_eq(id->email, sv_from(item->block->email)));
    } else if (item->item_case == POSTERN__REPLY_ITEM__ITEM_REPLY) {
        id = proxy_identity_get(table, item->reply->block);
    }
    if (id != NULL) {
        check_identity(id);
        proxy_identity_unref(&id);
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_identity_table *table = MEM_NEW(struct proxy_identity_table);
    struct arena arena;
    ProtobufCMessage *message = NULL;
    const Postern__ReplyBatch *batch = NULL;
    size_t i = 0;

    arena_init(&arena);
    if (rpc_unpack(&postern__reply_batch__descriptor, sv_of(data, size), &arena, &message) ==
        ERR_OK) {
        batch = (const Postern__ReplyBatch *)(const void *)message;
        for (i = 0; i < batch->n_items; i++) {
            take(table, batch->items[i]);
        }
    }
    proxy_identity_clear(table);
    mem_free(&table);
    arena_deinit(&arena);
    return 0;
}
