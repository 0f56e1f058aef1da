/* broker_steady: whether the wall clock may be trusted with deleting what is past its end. A clock that
 * jumps forward for a moment must not end every session for good: after a jump nothing is deleted until
 * the clock has run beside the monotonic one for a while. Reading a record never asks here: past its end
 * it is refused, whatever the sweep does. One thread at a time. */
#pragma once

#include "common/base.h"

enum {
    BROKER_HOLD_MS = 3600000,  /* how long nothing is deleted after a jump */
    BROKER_JUMP_MS = 120000,   /* what counts as one while the store is open */
    BROKER_AWAY_MS = 86400000, /* and since it was last open: a longer rest looks the same */
};

struct broker_steady {
    int64_t hold_ms;
    int64_t offset_us;     /* wall less monotonic time, when last looked at */
    int64_t held_until_ms; /* monotonic */
    int64_t jumped_us;     /* all jumps together */
};

/* now_us: what the store's clock tells: this machine's, or a database server's. last_us: when the store
 * was last known to be written; 0: never. */
void broker_steady_init(struct broker_steady *steady, int64_t now_us, int64_t last_us,
                        int64_t hold_ms);
/* Looks at the clocks; a jump is logged. */
bool broker_steady_now(struct broker_steady *steady, int64_t now_us);
/* now_us as if the clock had never jumped since init: for what lasts so long and not until then. */
int64_t broker_steady_us(struct broker_steady *steady, int64_t now_us);
