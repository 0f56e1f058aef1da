/* authz_near: how the thread of the checks is scheduled: as batch work or not (common/pace.h), and on the
 * processor of a proxy's worker on this machine that asks about one request at a time, if nobody else
 * asks (common/home.h). Zero: at first. Owned by that thread until
 * authz_near_deinit. */
#pragma once

#include "common/base.h"
#include "common/home.h"
#include "common/pace.h"

struct authz_near {
    struct pace pace;
    struct home home;
    /* of the last message */
    const void *asker;
    unsigned place;
    int64_t asked_ms;
};

/* With each message: who sent it, how many checks, from which place (0: it did not say), and when, by
 * the monotonic clock. */
void authz_near_note(struct authz_near *near, const void *asker, size_t n_checks, unsigned place,
                     int64_t now_ms);
void authz_near_deinit(struct authz_near *near);
