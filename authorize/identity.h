/* authz_identity: the headers that tell an upstream who the visitor is: X-Pomerium-Jwt-Assertion
 * and the claim headers of jwt_claims_headers. Made when first needed for a session, host and
 * profile, and again after AUTHZ_IDENTITY_SLICE_S: an assertion that is sent lives at least four
 * minutes more. Kept in a cache with bounds on number and bytes. One thread. */
#pragma once

#include "authorize/replica.h"
#include "authorize/rules.h"
#include "common/authz_block.h"
#include "common/base.h"
#include "common/policy/reason.h"
#include "common/sv.h"

enum {
    AUTHZ_IDENTITY_SLICE_S = 60,
    AUTHZ_IDENTITIES_MAX = 16384,
    AUTHZ_IDENTITIES_BYTES = 64 * 1024 * 1024
};

struct authz_identity_header {
    struct sv name; /* a NUL follows */
    struct sv value;
};

struct authz_identity {
    uint64_t serial;           /* unique in the process, never 0 */
    enum policy_reason reason; /* not NONE: there is none to send, and why */
    struct authz_identity_header *headers;
    size_t n_headers;
    struct authz_identity_header *facts; /* what the route's own headers are made of */
    size_t n_facts;
    struct sv user; /* the visitor's, as in a reply; a NUL follows */
    struct sv email;
};

struct authz_identities;

struct authz_identity_ask {
    const struct authz_rules *rules;
    const struct authz_replica *replica;   /* whose the sessions are */
    const struct authz_session *session;   /* its epoch names the state of all below */
    const struct authz_session *effective; /* who the visitor is */
    struct sv host;                        /* lower case, without port */
    size_t profile;
    int64_t now_s;
};

struct authz_identities *authz_identities_new(void);
void authz_identities_free(struct authz_identities **identities);
/* After another replica or other rules: everything kept is void. */
void authz_identities_clear(struct authz_identities *ids);
/* Valid until the next call. Never NULL. */
const struct authz_identity *authz_identity_get(struct authz_identities *ids,
                                                const struct authz_identity_ask *ask);
