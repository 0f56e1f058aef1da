/* authz_check: one check from question to verdict. The ladder is common/policy's; here the question
 * gets its session, its route and, after an ALLOW, its identity. A verdict begins as DENY and only
 * authz_check_decide turns a policy's outcome into an ALLOW. On the check thread; no I/O. */
#pragma once

#include "authorize.pb-c.h"

#include "authorize/identity.h"
#include "authorize/replica.h"
#include "authorize/rules.h"
#include "authorize/sync.h"
#include "common/base.h"
#include "common/policy/policy.h"

enum {
    AUTHZ_HOST_MAX = 255,
    AUTHZ_PATH_MAX = 65536,
    AUTHZ_METHOD_MAX = 64,
    AUTHZ_ID_MAX = 256 /* request id, session id */
};

enum authz_decision { AUTHZ_DENY = 0, AUTHZ_ALLOW, AUTHZ_LOGIN, AUTHZ_UNAVAILABLE };

/* What a check is answered from. */
struct authz_facts {
    const struct authz_rules *rules;
    const struct authz_sync *sync;
    struct authz_identities *identities;
    int64_t wall_ms;
    int64_t mono_ms;
};

/* How patient the check is with a replica that is older than the handle. */
enum authz_patience {
    AUTHZ_MAY_WAIT = 0, /* authz_check_run may say that it wants to wait */
    AUTHZ_SETTLED,      /* the databroker itself was asked: the replica knows by now */
    AUTHZ_GIVEN_UP      /* it did not answer in time: no session-bearing verdict */
};

/* All borrowed: valid until the replica, the rules or the identities are next touched. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): by meaning, not by size */
struct authz_outcome {
    enum authz_decision decision;
    struct policy_verdict verdict;
    policy_reason_set reasons; /* set of enum policy_reason */
    bool has_shadow;           /* the route's shadow policy was asked, too: what it would say */
    enum authz_decision shadow;
    policy_reason_set shadow_reasons;
    uint16_t status; /* HTTP for DENY and UNAVAILABLE */
    int64_t valid_until_s;
    uint64_t data_epoch; /* of the external data it was decided by; 0: none was looked at */
    const struct config_route *route;      /* NULL: unknown, or internal */
    const struct authz_replica *replica;   /* whose the next two are */
    const struct authz_session *session;   /* the live one; NULL: none */
    const struct authz_session *effective; /* who the visitor is; NULL: nobody */
    const struct authz_identity *identity; /* NULL: none to send */
};

/* Where policies find the external data of person and, if not NULL, session. room is borrowed by in. */
void authz_check_records(const struct authz_facts *facts, const struct authz_person *person,
                         const struct authz_session *session, struct authz_data_ask *room,
                         struct policy_input *in);

/* What a check was decided by, shown while it is there. */
typedef void (*authz_shown_fn)(void *arg, const struct policy_input *in,
                               const struct authz_outcome *outcome);
/* Decides req as authz_check_run does, without waiting, and shows what it was decided by: in is
 * empty where the question was refused before any policy was asked. */
void authz_check_show(const struct authz_facts *facts, const Postern__CheckRequest *req,
                      authz_shown_fn shown, void *arg);
/* True: *outcome_out is filled. False: the replica is older than the handle, ask again when it has
 * reached req->record_version (only with AUTHZ_MAY_WAIT). */
bool authz_check_run(const struct authz_facts *facts, const Postern__CheckRequest *req,
                     enum authz_patience patience, struct authz_outcome *outcome_out);
/* A request that was refused before any policy could be asked. */
void authz_check_refused(struct authz_outcome *outcome, unsigned status);
/* Takes the verdict back: its audit line cannot be written. */
void authz_check_unaudited(struct authz_outcome *outcome);
