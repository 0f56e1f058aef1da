/* authz_sync: keeps the replica at the databroker's state.
 *
 *            +--- ABORTED, other server, stuck ---+
 *            v                                    |
 *   WAIT --> SNAPSHOT --versions, end--> FOLLOW --+
 *    ^         |                           |
 *    +--error--+                           +--error--> WAIT --> FOLLOW (same place)
 *
 * SNAPSHOT (SyncLatest) fills a fresh replica beside the one that serves and swaps it in when it is
 * whole; FOLLOW (Sync) goes on from its version. Both ask for every type, so that one version tells
 * how far the replica is. How old the replica may be is not guessed from a silent stream: ServerInfo
 * is asked for again and again, and the replica is as fresh as the last question whose answer it
 * has reached. A deletion that was taken in is confirmed to the databroker, which acknowledges it to its
 * author only then. Everything runs on the rpc's thread, where not said otherwise. */
#pragma once

#include "authorize/replica.h"
#include "common/base.h"
#include "common/rpc/client.h"
#include "common/rpc/rpc.h"

struct authz_sync;

struct authz_sync_ops {
    /* These sessions ended or changed: see authz_changed_fn. */
    void (*on_session)(void *arg, struct sv session_id);
    /* Another replica serves: pointers into the old one are gone. */
    void (*on_swap)(void *arg);
    /* External data that policies may read changed: any open connection may be concerned. */
    void (*on_data)(void *arg);
    /* The replica's version grew. */
    void (*on_progress)(void *arg);
    /* Whether session-bearing checks can be answered; when it changes. */
    void (*on_ready)(void *arg, bool ready);
};

struct authz_sync_opts {
    struct rpc *rpc;
    struct rpc_client *client; /* of the databroker; outlives the sync's stop */
    int64_t max_staleness_ms;
    struct authz_sync_ops ops;
    void *arg;
};

struct authz_sync *authz_sync_new(const struct authz_sync_opts *opts);
/* Begins; from then on callbacks come. */
void authz_sync_start(struct authz_sync *sync);
/* Cancels everything; afterwards no callback comes. */
void authz_sync_stop(struct authz_sync *sync);
/* After rpc_free: timers may hold it until then. Any thread. */
void authz_sync_free(struct authz_sync **sync);
/* Whether the replica holds the provider's tokens; turning it on begins a snapshot. */
void authz_sync_keep_tokens(struct authz_sync *sync, bool keep);
void authz_sync_set_staleness(struct authz_sync *sync, int64_t max_staleness_ms);

/* The one that serves; empty before the first snapshot. Valid until on_swap. */
const struct authz_replica *authz_sync_replica(const struct authz_sync *sync);
/* Whether the replica is known to be no older than max_staleness. */
bool authz_sync_fresh(const struct authz_sync *sync, int64_t mono_ms);
/* How old the replica may be; INT64_MAX: nothing is known. */
int64_t authz_sync_age_ms(const struct authz_sync *sync, int64_t mono_ms);

/* Asks the databroker itself for a session and its user, beside the stream, and takes them into the
 * replica. done: settled is true if the databroker answered: the replica now knows the session, or
 * there is none. Called later, never from within. ERR_LIMIT: too many are on their way. */
typedef void (*authz_fetched_fn)(void *arg, struct sv session_id, bool settled);
MUST_CHECK enum err authz_sync_fetch(struct authz_sync *sync, struct sv session_id,
                                     authz_fetched_fn done, void *arg);
