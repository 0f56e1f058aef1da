/* The inside of the replica: for replica*.c only. */
#pragma once

#include "authorize/replica.h"
#include "common/arena.h"
#include "common/keyed.h"
#include "common/list.h"

/* Where claims and groups are unpacked to; and what is remembered of the last reading. */
struct unpacked {
    struct authz_claim_room session;
    struct authz_claim_room user;
    const struct authz_person *groups_of; /* whose groups stand in groups; NULL: nobody's */
    uint64_t groups_epoch;                /* of the imported directory, then */
    struct policy_text *groups;
    size_t n_groups;
    size_t cap;
};

struct authz_session_more {
    struct list impersonating; /* member of the replica's list where impersonates is set */
    struct authz_session *session;
    struct sv impersonates; /* of the slab, like the others, each with a NUL */
    struct sv access_token;
    struct sv id_token;
};

/* Where records are read to. */
struct record_room {
    struct authz_session_record session;
    struct authz_user_record user;
};

struct authz_replica {
    struct authz_texts *texts;
    struct slab *slab;      /* of texts */
    struct keyed *sessions; /* by id */
    struct keyed *persons;  /* by user id; "" is one, too */
    struct authz_uses *uses;
    struct authz_data *data;
    struct unpacked *unpacked;
    struct record_room *room;
    struct arena arena; /* of the record that is being taken in */
    struct list impersonating;
    uint64_t version;
    uint64_t epoch;
    uint64_t unreadable;
    bool keep_tokens;
    authz_changed_fn changed;
    void *changed_arg;
};
