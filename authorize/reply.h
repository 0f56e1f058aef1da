/* authz_reply: what leaves on one CheckStream: items in order, gathered while a message is on its
 * way, handed out in messages of at most AUTHZ_MESSAGE_MAX. One thread. */
#pragma once

#include "authorize.pb-c.h"

#include "authorize/blocks.h"
#include "authorize/check.h"
#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"

enum { AUTHZ_REPLY_MAX = 16 * 1024 * 1024, AUTHZ_REASONS_MAX = 127 };

struct authz_replies {
    struct buf out; /* packed ReplyItems, each as a field of ReplyBatch; sticky ERR_LIMIT */
    struct buf one; /* the Reply that is being written */
    struct authz_blocks *blocks; /* NULL until the first identity */
};

void authz_replies_init(struct authz_replies *replies);
void authz_replies_deinit(struct authz_replies *replies);
/* Adds the answer to check id, before it the identity block if the other end lacks it. */
void authz_replies_add(struct authz_replies *replies, uint64_t id,
                       const struct authz_outcome *outcome);
/* Adds word that these must be checked again: one session, or with "" everything. */
void authz_replies_changed(struct authz_replies *replies, struct sv session_id);
/* The bytes of the next message, empty when there is nothing to send; then authz_replies_sent. */
struct sv authz_replies_next(const struct authz_replies *replies);
void authz_replies_sent(struct authz_replies *replies, size_t n);

/* The answer in the wire's struct; texts are borrowed from outcome, the reasons lie in room. */
struct authz_reply_room {
    uint32_t reasons[AUTHZ_REASONS_MAX];
};

void authz_reply_fill(Postern__Reply *reply, struct authz_reply_room *room, uint64_t id,
                      const struct authz_outcome *outcome);
/* A header in the wire's struct, borrowed. */
void authz_reply_header(Postern__IdentityBlock__Header *out,
                        const struct authz_identity_header *header);
