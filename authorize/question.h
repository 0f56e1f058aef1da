/* authz_question: a check as it came in a CheckBatch, read without building the message. Pure. */
#pragma once

#include "authorize.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "common/sv.h"

/* Bytes of one CheckRequest. Its bytes fields are borrowed from there; session and idp_id lie in
 * arena. ERR_INVALID: the bytes break protobuf's rules, or common/rpc/scan.h's. */
MUST_CHECK enum err authz_question_read(struct sv bytes, struct arena *arena,
                                        Postern__CheckRequest *req_out);
