/* authz_answers: the way of an outcome back to its caller, by way of the audit. With audit.required
 *
 *   denials   a DENY or LOGIN is answered when its line is written (sink.h says what that means), and
 *             as UNAVAILABLE where it cannot be. An ALLOW waits for nothing
 *   all       likewise, and an ALLOW is one only while there is room for its line and writing works
 *   none      nobody waits
 *
 * What is asked again for an open connection (recheck) is answered at once: no audit must keep a
 * connection open that may be no more. Check thread, but for authz_answers_set. */
#pragma once

#include "authorize/audit.h"
#include "authorize/foreign.h"
#include "authorize/hold.h"
#include "authorize/reply.h"
#include "common/audit/ready.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/rpc/rpc.h"
#include "common/rpc/server.h"

struct authz_answers;

struct authz_answers_opts {
    struct rpc *rpc;
    const struct config *config;
    /* Answers that had waited were added to replies. */
    void (*on_more)(void *arg, struct authz_replies *replies);
    void *arg;
    struct audit_ready *ready; /* hears whether lines can be written; NULL: nobody does */
};

/* Where an answer goes: to a stream or to a call, there in our own form or that of others. */
struct authz_to {
    struct authz_replies *replies;
    struct rpc_call *call;
    struct authz_foreign *foreign; /* NULL: ours */
};

/* ERR_IO, ERR_INVALID, ERR_EXISTS and a sentence: the audit's place cannot be had. */
MUST_CHECK enum err authz_answers_new(const struct authz_answers_opts *opts,
                                      struct authz_answers **answers_out, struct diag *d);
/* Writes what is left. After the last call, before the rpc is freed; any thread. */
void authz_answers_stop(struct authz_answers *answers);
/* After the rpc is freed: its last tasks may be ours. */
void authz_answers_free(struct authz_answers **answers);
/* Where lines go from now on; any thread. On an error nothing has changed. */
MUST_CHECK enum err authz_answers_set(struct authz_answers *answers, const struct config *config,
                                      struct diag *d);
/* What is required, and which fields lines have, from now on. */
void authz_answers_follow(struct authz_answers *answers, const struct config *config);
/* Writes the line and answers, now or when the line is written. outcome may become UNAVAILABLE. */
void authz_answers_give(struct authz_answers *answers, struct authz_to to,
                        const Postern__CheckRequest *req, struct authz_outcome *outcome,
                        int64_t wall_ms);
/* Writes the line of a call that was refused. */
void authz_answers_refused(struct authz_answers *answers, const struct rpc_refusal *refusal);
/* Hands the lines over, once a batch. */
void authz_answers_flush(struct authz_answers *answers);
/* The stream is gone. */
void authz_answers_forget(struct authz_answers *answers, const struct authz_replies *replies);
/* Answers all that wait, from now on nobody does: the service ends. */
void authz_answers_give_up(struct authz_answers *answers);
