/* authn_claims: what a login tells about a person, in the form of the session and user records:
 * every claim a list of scalars, nested objects as dotted names (policy-language 2.3). Bounded; what
 * goes beyond is cut and told. Pure functions. */
#pragma once

#include <jansson.h>

#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "common/sv.h"

enum { AUTHN_CLAIMS_MAX = 256, AUTHN_CLAIM_VALUES_MAX = 5000, AUTHN_CLAIMS_DEPTH = 6 };

/* One login, whichever provider. All borrowed. */
struct authn_identity {
    struct sv user_id;
    struct sv email; /* "" none, or not verified */
    struct sv name;
    struct sv idp_id;
    json_t *claims; /* flat; only read */
    json_t *groups; /* list of texts; NULL: none */
    struct sv
        groups_error; /* why these are not all, so that those known before stay; "": they are */

    struct sv issuer; /* "local": the users file */

    int64_t authenticated_at_s; /* when the person proved who they are; 0: nobody knows */

    /* of an OpenID provider */
    struct sv subject;
    struct sv id_token;
    struct sv access_token;
    struct sv refresh_token;
    int64_t id_issued_at_s;
    int64_t id_expires_at_s;
    int64_t access_expires_at_s; /* 0: not told */
};

/* A new flat object of claims; *cut_out: not everything had room. Token-only members (nonce,
 * at_hash, c_hash) are left out. */
json_t *authn_claims_flatten(json_t *claims, bool *cut_out);
/* Entries for the records, in arena. */
void authn_claims_to_session(json_t *flat, struct arena *arena, Session__Session *session);
void authn_claims_to_user(json_t *flat, struct arena *arena, User__User *user);
/* The e-mail address that a claim of that name holds, canonical and in arena, and in claims from now on; ""
 * where there is none, it is no address, or email_verified says that nobody checked it: such a claim
 * is taken out, *why_not_out says why. */
struct sv authn_claims_email(json_t *claims, const char *name, struct arena *arena,
                             const char **why_not_out);
/* A new list of the texts in a claim, at most AUTHN_CLAIM_VALUES_MAX. */
json_t *authn_claims_groups(const json_t *claims, const char *name);

/* Whether they have a reference in place of the groups (Microsoft Entra's overage). */
bool authn_claims_groups_elsewhere(const json_t *claims);
/* As if they had had these groups themselves. Takes a reference. */
void authn_claims_set_groups(json_t *claims, json_t *groups);
/* The same with those of a session, if there are any. */
void authn_claims_keep_groups(json_t *claims, const Session__Session *session);

/* What was not taken from claims as it stands there. */
struct authn_claims_notes {
    const char *email_why_not; /* NULL: it was, or there is none */
    bool cut;
};

/* Who a verified ID token, with what userinfo added, is about: the members of who_out but tokens, idp_id
 * and authenticated_at_s. Texts are in arena; who_out->claims and ->groups are the caller's. Takes an
 * address that cannot be used out of claims. */
void authn_claims_identity(json_t *claims, struct arena *arena, struct authn_identity *who_out,
                           struct authn_claims_notes *notes_out);
/* Whether claims (as with authn_claims_identity) name all that session's do, but what a provider tells of
 * the login and the token itself: then they can stand in their place. */
bool authn_claims_cover(json_t *claims, const Session__Session *session);
void authn_identity_deinit(struct authn_identity *who);
