/* authz_access: tells the databroker when sessions are used, so that every authorize knows, also the next
 * one after a restart. A session is told of once in AUTHZ_ACCESS_EVERY_MS at most, by whichever authorize
 * comes first, and many at once; what cannot be told is told later, and nobody waits for it. On the check
 * thread. */
#pragma once

#include "authorize/replica.h"
#include "common/base.h"
#include "common/rpc/client.h"
#include "common/rpc/rpc.h"

enum {
    AUTHZ_ACCESS_GATHER_MS = 5000,
    AUTHZ_ACCESS_BATCH = 500, /* records of one Put */
    AUTHZ_ACCESS_WAITING = 65536,
    /* By how much a use elsewhere may be unknown here. */
    AUTHZ_ACCESS_LAG_MS = AUTHZ_ACCESS_EVERY_MS + AUTHZ_ACCESS_GATHER_MS + 10000
};

struct authz_access;

struct authz_access *authz_access_new(struct rpc *rpc, struct rpc_client *client);
/* Afterwards nothing is told any more. */
void authz_access_stop(struct authz_access *access);
/* After rpc_free: a timer may hold it until then. Any thread. */
void authz_access_free(struct authz_access **access);
/* session was used now. */
void authz_access_note(struct authz_access *access, const struct authz_session *session,
                       int64_t wall_ms, int64_t mono_ms);
