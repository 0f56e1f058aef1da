/* authz_question: a check as it came in a CheckBatch, read without building the message. Pure. */
#pragma once

#include "authorize.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "common/rpc/wire.h"
#include "common/sv.h"

/* Bytes of one CheckRequest. Its bytes fields are borrowed from there; session and idp_id lie in
 * arena. ERR_INVALID: the bytes break protobuf's rules, or common/rpc/scan.h's. */
MUST_CHECK enum err authz_question_read(struct sv bytes, struct arena *arena,
                                        Postern__CheckRequest *req_out);
/* The next checks of the CheckBatch that w reads, max at most: fewer are the last ones, or those in front
 * of a fault. place: set where the field comes by. ERR_INVALID. */
MUST_CHECK enum err authz_questions_read(struct rpc_wire *w, struct arena *arena,
                                         Postern__CheckRequest *reqs_out, size_t max, size_t *n_out,
                                         unsigned *place);
