/* broker_session_filter: which sessions SessionService speaks of, and what it tells about one. */
#pragma once

#include "session.pb-c.h"
#include "session_service.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "common/cidr.h"
#include "common/diag.h"
#include "databroker/record.h"

enum { BROKER_FILTER_USERS = 10000 };

struct broker_moment {
    int64_t s;
    int32_t ns;
};

struct broker_session_filter {
    struct sv session_id;
    struct sv user;
    struct sv idp_id;
    struct sv provider_session_id;
    struct cidr address;
    bool has_address;
    bool has_before;
    bool has_after;
    struct broker_moment before;
    struct broker_moment after;
    struct sv *user_ids; /* whom user means, in order; by broker_session_filter_person */
    size_t n_user_ids;
    size_t room;
};

/* Checks and copies to arena; message NULL: all sessions. ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err broker_session_filter_read(const Postern__SessionFilter *message,
                                               struct arena *arena,
                                               struct broker_session_filter *filter_out,
                                               struct diag *d);
/* Whether anything is set. */
bool broker_session_filter_is_set(const struct broker_session_filter *filter);
/* Notes a user's record if filter.user means that person; the records come in order of their ids. What is
 * noted is in arena. ERR_LIMIT: they are more than BROKER_FILTER_USERS. */
MUST_CHECK enum err broker_session_filter_person(struct broker_session_filter *filter,
                                                 const struct broker_record *record,
                                                 struct arena *arena);

/* The session of a record that lives, is not past its end and fits; NULL: none. In arena. */
const Session__Session *broker_session_fit(const struct broker_session_filter *filter,
                                           const struct broker_record *record, struct arena *arena);
/* What is told about it; email and name are left empty. In arena. */
Postern__SessionInfo *broker_session_info(const Session__Session *session, uint64_t version,
                                          struct arena *arena);
