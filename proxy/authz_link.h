/* proxy_authz_link: one HTTP/2 connection with one CheckStream to one authorize. Internal to the
 * authz client. One thread. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "common/arena.h"
#include "common/authz_block.h"
#include "common/buf.h"
#include "proxy/authz_client.h"
#include "proxy/bytes.h"
#include "proxy/io.h"

struct proxy_link;

enum proxy_link_state {
    PROXY_LINK_DOWN = 0,   /* waits for its back-off */
    PROXY_LINK_CONNECTING, /* TCP, TLS, SETTINGS */
    PROXY_LINK_UP
};

struct proxy_link_opts {
    struct loop *loop;
    struct proxy_wheel *wheel;
    const struct config_target *target;
    bool insecure;
    const struct rpc_identity *identity;
    void (*on_state)(void *arg, struct proxy_link *link, bool up);
    /* One ReplyBatch, unscanned. ERR_OK, or the stream is broken. */
    enum err (*on_message)(void *arg, struct proxy_link *link, struct sv bytes);
    void *arg;
};

struct proxy_link *proxy_link_new(const struct proxy_link_opts *opts);
void proxy_link_free(struct proxy_link **link);
bool proxy_link_is_up(const struct proxy_link *link);
/* Appends one packed CheckRequest to the next message. ERR_LIMIT: the message is full. */
MUST_CHECK enum err proxy_link_add(struct proxy_link *link, struct sv packed);
void proxy_link_flush(struct proxy_link *link);

/* The table of blocks. */
struct proxy_blocktable {
    struct proxy_block **slots; /* AUTHZ_BLOCK_SLOTS, made with the first block */
    uint64_t last;              /* number of the newest block */
};

struct postern_identity_block;
/* Takes over a block. ERR_INVALID: number does not follow, or a field no header may hold. */
MUST_CHECK enum err proxy_blocktable_put(struct proxy_blocktable *table, struct proxy_block *block);
/* NULL: no such block, the stream is broken. */
struct proxy_block *proxy_blocktable_get(const struct proxy_blocktable *table, uint64_t number);
void proxy_blocktable_clear(struct proxy_blocktable *table);
struct proxy_blocktable *proxy_link_blocks(struct proxy_link *link);
struct list *proxy_link_sent(struct proxy_link *link); /* open checks on this stream */
