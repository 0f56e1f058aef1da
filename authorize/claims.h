/* authz_claims: the claims of a session or user record, or the fields of a row: names with their lists
 * of scalars, packed, since a replica holds millions. Texts that repeat are numbers of authz_text, the
 * others stand in it. Immutable once made, refcounted, freed with its texts at the latest; one thread. */
#pragma once

#include "authorize/record.h"
#include "authorize/text.h"
#include "common/base.h"
#include "common/policy/input.h"

enum { AUTHZ_CLAIM_VALUES_MAX = 65536 };

struct authz_claims;

/* NULL where there are none. The later of two entries of a name wins, as in any protobuf map.
 * What exceeds the bounds makes ERR_LIMIT: a record that is cut short would change decisions.
 * ERR_INVALID: a list of values cannot be read. */
MUST_CHECK enum err authz_claims_new(struct authz_texts *texts,
                                     const struct authz_claim_entry *entries, size_t n,
                                     struct authz_claims **claims_out);
/* Gives a reference back. */
void authz_claims_free(struct authz_texts *texts, struct authz_claims **claims);
/* If other says the same, byte for byte, *claims becomes a reference to it. True: they are one now. */
bool authz_claims_share(struct authz_texts *texts, struct authz_claims **claims,
                        struct authz_claims *other);

/* Where the bytes of text with a NUL behind them stand in claims; SIZE_MAX: nowhere. */
size_t authz_claims_place(const struct authz_claims *claims, struct sv text);
/* The bytes at a place that was found there; claims are not looked at. */
const char *authz_claims_at(const struct authz_claims *claims, size_t place);

/* Where a claim is unpacked to; kept from one to the next. */
struct authz_claim_room {
    struct policy_claim claim;
    struct policy_scalar *values;
    size_t cap;
};

void authz_claim_room_deinit(struct authz_claim_room *room);
/* NULL: no claim of that name. What is found stays until room is used again or the claims are freed. */
const struct policy_claim *authz_claims_get(const struct authz_texts *texts,
                                            const struct authz_claims *claims, struct sv name,
                                            struct authz_claim_room *room);
