/* authz_claims: the claims of a session or user record, in the form that policies read: each name
 * with its list of scalars, texts shared. Immutable once made; one thread. */
#pragma once

#include "google/protobuf/struct.pb-c.h"

#include "authorize/text.h"
#include "common/base.h"
#include "common/policy/input.h"

enum { AUTHZ_CLAIMS_MAX = 1024, AUTHZ_CLAIM_VALUES_MAX = 65536 };

struct authz_claims;

/* One entry of the map on the wire. */
struct authz_claim_entry {
    const char *name;                          /* NULL: "" */
    const Google__Protobuf__ListValue *values; /* NULL: empty */
};

/* NULL where there are none. The later of two entries of a name wins, as in any protobuf map.
 * What exceeds the bounds makes ERR_LIMIT: a record that is cut short would change decisions. */
MUST_CHECK enum err authz_claims_new(struct authz_texts *texts,
                                     const struct authz_claim_entry *entries, size_t n,
                                     struct authz_claims **claims_out);
void authz_claims_free(struct authz_texts *texts, struct authz_claims **claims);
/* Borrowed; of NULL: none. */
struct policy_claims authz_claims_view(const struct authz_claims *claims);
/* NULL: no claim of that name. */
const struct policy_claim *authz_claims_get(const struct authz_claims *claims, struct sv name);
