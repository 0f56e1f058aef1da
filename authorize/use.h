/* authz_uses: when sessions were used, on this process's monotonic clock: a jump of the wall clock makes
 * no session idle. Of sessions that are not there yet it is remembered until they come: in a snapshot that
 * may be the order. Part of the replica, and for its thread. */
#pragma once

#include "authorize/replica.h"
#include "common/arena.h"
#include "common/base.h"
#include "common/sv.h"

struct authz_uses;

struct authz_uses *authz_uses_new(void);
void authz_uses_free(struct authz_uses **uses);
/* session has just come: it was used with its login, or as was heard of it before; a service account only
 * as was heard. */
void authz_uses_begin(struct authz_uses *uses, struct authz_session *session, int64_t issued_at_s);
/* Takes in a postern.SessionAccess, scratch is for its reading. session: of that id; NULL: not there
 * yet. False: it cannot be read. */
bool authz_uses_put(struct authz_uses *uses, struct sv id, struct authz_session *session,
                    struct sv bytes, struct arena *scratch);
void authz_uses_drop(struct authz_uses *uses, struct sv id);
