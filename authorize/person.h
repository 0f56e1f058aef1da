/* authz_person: a user with what is known of them, in one piece of memory: texts and groups stand
 * behind the numbers. A text that the user's claims have, too, is read there. A change makes another one; whoever points to it must be told. For replica.c,
 * which alone makes them; others read. */
#pragma once

#include "authorize/claims.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

enum authz_person_text {
    AUTHZ_PERSON_ID = 0,
    AUTHZ_PERSON_NAME,
    AUTHZ_PERSON_EMAIL,
    AUTHZ_PERSON_DIRECTORY_NAME,
    AUTHZ_PERSON_DIRECTORY_EMAIL,
    AUTHZ_PERSON_GROUPS_ERROR, /* why the provider's groups could not be had at the last login or refresh */
    AUTHZ_PERSON_TEXTS
};

struct authz_session;

/* Exists while a record or a session names it. */
struct authz_person {
    struct authz_claims *claims;
    struct authz_session *sessions; /* the first; on by authz_session.next */
    uint64_t user_version;          /* of the user record; 0: none */
    uint64_t user_digest;
    uint64_t directory_version; /* of the directory record; 0: none */
    uint64_t directory_digest;
    uint32_t user_at_s; /* when the record was written; 0: unknown */
    uint32_t directory_at_s;
    uint32_t n_groups;
    uint32_t n_packed;
    uint32_t n_text[AUTHZ_PERSON_TEXTS]; /* person.c has the form */
    char bytes[]; /* the texts, each with a NUL, and the groups: numbers of texts as varints */
};

/* What a person is made of. */
struct authz_person_facts {
    struct authz_claims *claims; /* the reference becomes the person's */
    struct sv text[AUTHZ_PERSON_TEXTS];
    struct sv packed; /* groups */
    size_t n_groups;
};

/* Borrowed from person, its claims among them. */
struct authz_person_facts authz_person_facts(const struct authz_person *person);
/* One of those facts that has old's numbers and sessions; old (or NULL) stays as it is. */
struct authz_person *authz_person_new(struct slab *slab, const struct authz_person_facts *facts,
                                      const struct authz_person *old);
/* Its memory alone, not its claims. */
void authz_person_free(struct slab *slab, struct authz_person **person);

/* A NUL follows. */
struct sv authz_person_text(const struct authz_person *person, enum authz_person_text which);
struct sv authz_person_id(const struct authz_person *person);
/* Directory e-mail if there is one, else the user's; may be empty. */
struct sv authz_person_email(const struct authz_person *person);
struct sv authz_person_name(const struct authz_person *person);

/* Has those texts brought near that every check reads, where they stand in the claims. */
void authz_person_expect(const struct authz_person *person);

/* Appends a group to packed ones. */
void authz_groups_pack(struct buf *packed, uint32_t text);
/* The next one of what is left; *left becomes what is behind it. */
uint32_t authz_groups_next(struct sv *left);
