/* authz_hold: answers that wait until their audit line is written: those that are no ALLOW. In the
 * order of their lines, at most AUTHZ_HOLD_MAX, none longer than AUTHZ_HOLD_MS. Check thread. */
#pragma once

#include "authorize/reply.h"
#include "common/base.h"
#include "common/list.h"
#include "common/rpc/server.h"

/* Well inside the proxy's authorize_timeout. */
enum { AUTHZ_HOLD_MAX = 65536, AUTHZ_HOLD_MS = 1000 };

struct authz_foreign;

struct authz_held {
    struct list in_hold;
    void *stream;                  /* NULL: unary */
    struct rpc_call *call;         /* unary */
    struct authz_foreign *foreign; /* unary, of somebody else's form */
    uint64_t id;                   /* of the check */
    uint64_t line;
    int64_t since_ms;
    size_t n;
    char bytes[]; /* the answer: items for a stream, a message for a call */
};

struct authz_hold {
    struct list list;
    size_t n;
};

void authz_hold_init(struct authz_hold *hold);
/* Keeps the answer, made by the caller; the rest of the struct is the caller's to fill in. */
struct authz_held *authz_hold_add(struct authz_hold *hold, struct sv bytes);
/* The first whose wait is over: its line is among those written, or failing, or it waits too long;
 * NULL: none. */
struct authz_held *authz_hold_due(const struct authz_hold *hold, uint64_t written, bool failing,
                                  int64_t now_ms);
void authz_held_free(struct authz_hold *hold, struct authz_held **held);
/* The stream is gone: nobody waits. */
void authz_hold_forget(struct authz_hold *hold, const void *stream);
