/* proxy_authz_wire: the messages of CheckStream as they travel, written and read without building
 * protobuf-c's structs on the way of a request. Pure. */
#pragma once

#include "authorize.pb-c.h"

#include "common/base.h"
#include "common/buf.h"
#include "common/rpc/wire.h"
#include "common/sv.h"

/* Appends the bytes of one CheckRequest. */
void proxy_authz_wire_check(struct buf *out, const Postern__CheckRequest *check);

enum { PROXY_AUTHZ_REASONS_MAX = 127 };

/* A Reply; texts are borrowed from its bytes. */
struct proxy_authz_reply {
    uint64_t id;
    uint64_t decision; /* enum Postern__Decision; anything else is none */
    uint64_t status;
    uint32_t reasons[PROXY_AUTHZ_REASONS_MAX];
    size_t n_reasons;
    uint64_t block;
    int64_t valid_until_s;
    struct sv user;
    struct sv email;
};

/* ERR_INVALID: the bytes break protobuf's rules, or common/rpc/scan.h's; more reasons than there
 * are. */
MUST_CHECK enum err proxy_authz_wire_reply(struct sv bytes, struct proxy_authz_reply *reply_out);
