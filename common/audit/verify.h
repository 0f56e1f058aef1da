/* audit_verify: reads lines of an audit, oldest first, and says what does not fit: a line that was
 * changed, taken out, put in or moved. Lines of several chains may stand mixed.
 *
 * What cannot be known from the lines alone: whether lines are missing behind the last one. A chain
 * that was ended in order says so in its last line; else only what was noted down elsewhere helps: the
 * head (chain, number, sum) that each verification prints, and that a later one must find again. One
 * thread. */
#pragma once

#include "common/audit/chain.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum { AUDIT_CHAINS_MAX = 1024, AUDIT_HEADS_MAX = 64, AUDIT_FINDINGS_MAX = 50 };

struct audit_verify;

struct audit_verify_opts {
    const struct keys *keys; /* of HMAC chains; NULL: plain ones are expected */
    bool mixed;              /* other lines may stand in between */
    void (*say)(void *arg, const char *sentence); /* one thing that does not fit */
    void *arg;
};

struct audit_verify *audit_verify_new(const struct audit_verify_opts *opts);
void audit_verify_free(struct audit_verify **verify);
/* "chain:seq:sum", as audit_verify_end prints it: must be among the lines. ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err audit_verify_expect(struct audit_verify *verify, struct sv head);
/* A line without its line break, with its place. ends: the break was there. */
void audit_verify_line(struct audit_verify *verify, const char *file, uint64_t number,
                       struct sv line, bool ends);
/* True: everything fits. Appends what was seen, for people. */
bool audit_verify_end(struct audit_verify *verify, struct buf *out);
