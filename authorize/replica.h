/* authz_replica: what authorize knows of sessions, users and directory users, built from the
 * databroker's records. It is made to hold millions: README.md has the layout. Lookups do no I/O and
 * allocate nothing once warm. Owned by the check thread, the only one that reads or writes it: see
 * README.md for why one thread is enough. */
#pragma once

#include "databroker.pb-c.h"

#include "authorize/claims.h"
#include "authorize/data.h"
#include "authorize/person.h"
#include "common/base.h"
#include "common/policy/input.h"
#include "common/sv.h"

#define AUTHZ_TYPE_SESSION   "type.googleapis.com/session.Session"
#define AUTHZ_TYPE_USER      "type.googleapis.com/user.User"
#define AUTHZ_TYPE_DIRECTORY "pomerium.io/DirectoryUser"
#define AUTHZ_TYPE_ACCESS    "postern.io/SessionAccess"
#define AUTHZ_TYPE_ACCOUNT   "type.googleapis.com/user.ServiceAccount"

enum {
    AUTHZ_GROUPS_MAX = 16384,
    AUTHZ_EXPECT_MAX = 16,
    AUTHZ_SESSION_ID_MAX = 1024,
    AUTHZ_ACCESS_EVERY_MS = 60000 /* how often a use of one session is told of */
};

struct authz_replica;

/* What few sessions have. */
struct authz_session_more;

/* A login, or a service account, which is a session without one: its id is TOKEN_ACCOUNT and the
 * record's. With an id as we make them (RAND_UUID_SIZE) it fills two lines of the processor's caches to the
 * byte. Times are seconds since 1970; what is later than 2106 counts as then. */
struct authz_session {
    struct authz_person *person; /* never NULL; its id may be "" */
    struct authz_session *prev;  /* of the person's */
    struct authz_session *next;
    struct authz_claims *claims;
    struct authz_session_more *more; /* NULL: nothing */
    uint64_t version;                /* of the session record */
    uint64_t digest;
    uint64_t epoch;        /* grows, replica-wide, when anything about the session or its person
                                   changes: what was made from it is then stale */
    uint32_t expires_at_s; /* 0: no end */
    uint32_t authenticated_at_s; /* 0: not known */
    uint32_t at_s;               /* when the record was written; 0: unknown */
    uint32_t issued_at_s;        /* 0: not known */
    /* When it was used, here or anywhere, in seconds on this process's monotonic clock: a jump of the
     * wall clock makes no session idle. */
    int32_t used_s;
    uint32_t idp; /* the number of a text: issuer of its provider, "local"; 0: not known */
    uint16_t n_id;
    uint8_t
        untold_s; /* how long before used_s the last use was of which the databroker knows; UINT8_MAX: so
                         long, or longer */
    char id[]; /* a NUL follows */
};

/* Hears which open connections must be checked again: the session ended or changed. The id is valid
 * during the call. */
typedef void (*authz_changed_fn)(void *arg, struct sv session_id);

struct authz_replica *authz_replica_new(void);
void authz_replica_free(struct authz_replica **replica);
/* Keeps the provider's tokens of sessions taken in from now on; they are large. */
void authz_replica_keep_tokens(struct authz_replica *replica, bool keep);
void authz_replica_on_change(struct authz_replica *replica, authz_changed_fn changed, void *arg);

/* Takes a record in: of a type that is none of ours it only moves the version. A record that is not
 * newer than what is there changes nothing. A record that cannot be read removes what was there:
 * its session then counts as none. Never fails; what it could not read is counted. */
void authz_replica_apply(struct authz_replica *replica, const Databroker__Record *record);
/* The same for a record that was asked for beside the stream: moves no version, and counts only if
 * the stream has not been past it. */
void authz_replica_apply_ahead(struct authz_replica *replica, const Databroker__Record *record);

/* How far the stream has been followed. */
uint64_t authz_replica_version(const struct authz_replica *replica);
void authz_replica_set_version(struct authz_replica *replica, uint64_t version);

/* NULL: no such session. Whether it lives now is authz_session_live's answer. */
const struct authz_session *authz_replica_session(const struct authz_replica *replica,
                                                  struct sv id);
/* Checks of these sessions (not more than AUTHZ_EXPECT_MAX) follow: has what they read brought near,
 * together. One after the other waits for memory ten times a check where there are many sessions. */
void authz_replica_expect(const struct authz_replica *replica, const struct sv *ids, size_t n);
/* Expiry is compared here, at the moment of use. */
bool authz_session_live(const struct authz_session *session, int64_t now_s);
/* What policies see of session: who it impersonates, if anybody. NULL: it impersonates one that is
 * not there or not live. */
const struct authz_session *authz_replica_effective(const struct authz_replica *replica,
                                                    const struct authz_session *session,
                                                    int64_t now_s);
/* Notes that session is used now; true: it is time to tell the databroker of it. */
bool authz_session_used(const struct authz_session *session, int64_t mono_ms);
/* How long ago that was, to the second. */
int64_t authz_session_unused_ms(const struct authz_session *session, int64_t mono_ms);
/* A number for the state of all that policies may read of the two: another state, another number.
 * Comparable within the process. */
uint64_t authz_session_facts(const struct authz_session *session,
                             const struct authz_session *effective);
/* The person of that user id, else of that e-mail address, letters of either case; *n_out: how many
 * have the address. NULL: nobody. Looks through everybody: for people's questions. */
const struct authz_person *authz_replica_person(const struct authz_replica *replica, struct sv who,
                                                size_t *n_out);
/* The live one that was written last; NULL: none. *n_out: how many are live. */
const struct authz_session *authz_person_session(const struct authz_person *person, int64_t now_s,
                                                 size_t *n_out);
struct sv authz_session_id(const struct authz_session *session); /* a NUL follows */
/* The session that it acts for; "": itself. */
struct sv authz_session_impersonates(const struct authz_session *session);
/* The provider's, sealed; "": none, or not kept. */
struct sv authz_session_access_token(const struct authz_session *session);
struct sv authz_session_id_token(const struct authz_session *session);

/* Claims and groups are unpacked when asked for. NULL: no claim of that name. What is returned stays
 * until the next question of its kind or the next change. */
const struct policy_claim *authz_session_claim(const struct authz_replica *replica,
                                               const struct authz_session *session, struct sv name);
const struct policy_claim *authz_person_claim(const struct authz_replica *replica,
                                              const struct authz_person *person, struct sv name);
const struct policy_text *authz_person_groups(const struct authz_replica *replica,
                                              const struct authz_person *person, size_t *n_out);

/* What says which groups those are. Where an imported directory is in force it does, alone: whom it has
 * not, nothing brings into a group. */
enum authz_groups_from {
    AUTHZ_GROUPS_UNKNOWN = 0, /* nothing: `groups` is never true */
    AUTHZ_GROUPS_UNLISTED,    /* the same: the imported directory has not this person */
    AUTHZ_GROUPS_IMPORTED,
    AUTHZ_GROUPS_RECORD /* the person's directory record */
};
enum authz_groups_from authz_person_groups_from(const struct authz_replica *replica,
                                                const struct authz_person *person);
/* A number for all that was made from session and its person: as its member epoch, and grows with the
 * imported directory, too. */
uint64_t authz_session_epoch(const struct authz_replica *replica,
                             const struct authz_session *session);

/* Whom a policy's questions about the visitor are about. */
struct authz_who {
    const struct authz_replica *replica;
    const struct authz_person *person;
    const struct authz_session *session; /* NULL: none */
};

/* Fills the who-part of in, which borrows who: from an effective session, or without one as for a
 * session of the person's that holds no claims of its own. */
void authz_who_input(struct authz_who *who, struct policy_input *in);
const struct authz_data *authz_replica_data(const struct authz_replica *replica);

struct authz_replica_counts {
    size_t sessions;
    size_t persons;
    size_t texts;
    size_t rows;         /* of external data */
    size_t bytes;        /* of memory for all that */
    uint64_t unreadable; /* records that could not be read, since the start */
};

void authz_replica_count(const struct authz_replica *replica,
                         struct authz_replica_counts *counts_out);
