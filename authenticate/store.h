/* authn_store: what authenticate asks of the databroker. Every call returns its pending handle; done
 * is called on the loop's thread with the raw answer, which authn_store_session and
 * authn_store_version read. Message memory comes from the caller's arena. */
#pragma once

#include "authenticate/claims.h"
#include "common/arena.h"
#include "common/base.h"
#include "common/crypto/seal.h"
#include "common/rpc/client.h"
#include "common/sv.h"

struct authn_store;

#define AUTHN_TYPE_SESSION   "type.googleapis.com/session.Session"
#define AUTHN_TYPE_USER      "type.googleapis.com/user.User"
#define AUTHN_TYPE_DIRECTORY "pomerium.io/DirectoryUser"
#define AUTHN_TYPE_PROVIDER  "postern.io/ProviderCopy"

/* identity and keys outlive it. */
struct authn_store *authn_store_new(struct rpc *rpc, const struct rpc_identity *identity,
                                    const char *target, int64_t timeout_ms);
void authn_store_free(struct authn_store **store);

struct rpc_pending *authn_store_get(struct authn_store *store, const char *type, struct sv id,
                                    rpc_done_fn done, void *arg);
/* Whether a Get's answer holds a record, whatever is in it. */
bool authn_store_has(enum rpc_status status, const ProtobufCMessage *response);
/* The session of a Get's answer, in arena. ERR_NOT_FOUND: none, deleted or over at now_s;
 * ERR_UNAVAILABLE: the databroker did not answer; ERR_INVALID: not a session. */
MUST_CHECK enum err authn_store_session(enum rpc_status status, const ProtobufCMessage *response,
                                        int64_t now_s, struct arena *arena,
                                        Session__Session **session_out, uint64_t *version_out);

/* When the record of a Get's answer was written; 0: there is none. */
int64_t authn_store_written_ms(enum rpc_status status, const ProtobufCMessage *response);

struct authn_store_login {
    const struct authn_identity *identity;
    struct sv session_id;
    struct sv address; /* of the client; "": not known */
    int64_t now_s;
    int64_t expires_at_s;
    struct sealer *rest; /* KEYS_TOKEN_AT_REST: seals the provider's tokens, with the session id */
    bool session_only;   /* the person is known already, and better */
};

/* Puts the user, their groups unless they are not all known, and the session, in that order. */
struct rpc_pending *authn_store_login(struct authn_store *store,
                                      const struct authn_store_login *login, struct arena *arena,
                                      rpc_done_fn done, void *arg);
/* Version of the last record of a Put's answer; 0: none. */
uint64_t authn_store_version(const ProtobufCMessage *response);
/* Ends a session: the record is put as deleted. */
struct rpc_pending *authn_store_end(struct authn_store *store, const Session__Session *session,
                                    int64_t now_s, rpc_done_fn done, void *arg);
/* RPC_ALREADY_EXISTS: somebody has it. */
struct rpc_pending *authn_store_lease(struct authn_store *store, const char *name,
                                      int64_t duration_s, rpc_done_fn done, void *arg);
/* The id of the lease that an answer of authn_store_lease brings, in arena. */
struct sv authn_store_lease_id(const ProtobufCMessage *response, struct arena *arena);
struct rpc_pending *authn_store_release(struct authn_store *store, const char *name, struct sv id,
                                        rpc_done_fn done, void *arg);

/* --- what a refresh of the provider's tokens changes: these fields, and no others ---------------- */

struct authn_store_renewal {
    const Session__Session *session; /* as it was read */
    const struct authn_identity *who;
    struct sealer *rest;
};

/* The refresh token of who, and nothing else yet: the one in the record is used up. */
struct rpc_pending *authn_store_renew_refresh_token(struct authn_store *store,
                                                    const struct authn_store_renewal *renewal,
                                                    rpc_done_fn done, void *arg);
/* The person's groups. */
struct rpc_pending *authn_store_renew_groups(struct authn_store *store,
                                             const struct authn_store_renewal *renewal,
                                             rpc_done_fn done, void *arg);
/* The person's name, address and claims. */
struct rpc_pending *authn_store_renew_user(struct authn_store *store,
                                           const struct authn_store_renewal *renewal,
                                           rpc_done_fn done, void *arg);
/* The session's tokens, and its claims where who has any. */
struct rpc_pending *authn_store_renew_session(struct authn_store *store,
                                              const struct authn_store_renewal *renewal,
                                              rpc_done_fn done, void *arg);
/* Whether the answer of such a call says that the record is gone. */
bool authn_store_renew_missed(const ProtobufCMessage *response);

/* --- following the sessions ----------------------------------------------------------------------- */

/* Every session, then their versions. */
struct rpc_pending *authn_store_snapshot(struct authn_store *store,
                                         const struct rpc_follow_ops *ops, void *arg);
/* What changes after that. */
struct rpc_pending *authn_store_follow(struct authn_store *store, uint64_t server_version,
                                       uint64_t record_version, const struct rpc_follow_ops *ops,
                                       void *arg);

/* A text kept under an id of AUTHN_TYPE_PROVIDER. */
struct rpc_pending *authn_store_keep(struct authn_store *store, struct sv id, struct sv text,
                                     rpc_done_fn done, void *arg);
/* The text of a Get's answer, in arena; "" none. */
struct sv authn_store_kept(enum rpc_status status, const ProtobufCMessage *response,
                           struct arena *arena);
/* Asks whether the databroker is there. */
struct rpc_pending *authn_store_probe(struct authn_store *store, rpc_done_fn done, void *arg);
