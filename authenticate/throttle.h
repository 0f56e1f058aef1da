/* authn_throttle: slows down who guesses passwords: one bounded table for accounts, one for
 * addresses. After the free failures each one more doubles the wait, and attempts are made one by
 * one. Before that some may be under way at once: a browser that restores its tabs logs in with
 * all of them. They are bounded, so whoever guesses gains that many once an hour, and then waits for
 * all of them. A full table whose entries are all waiting refuses newcomers. Monotonic time; the
 * loop's thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum {
    AUTHN_THROTTLE_MAX = 8192,        /* entries a table */
    AUTHN_THROTTLE_ACCOUNT_FREE = 5,  /* failures before the first wait */
    AUTHN_THROTTLE_ADDRESS_FREE = 20, /* many people share an address */
    AUTHN_THROTTLE_ACCOUNT_OPEN = 32, /* attempts under way, as long as failures are free */
    AUTHN_THROTTLE_ADDRESS_OPEN = 64,
    AUTHN_THROTTLE_FIRST_MS = 1000,      /* the first wait */
    AUTHN_THROTTLE_LAST_MS = 15 * 60000, /* the longest */
    AUTHN_THROTTLE_FORGET_MS = 3600000   /* after that much quiet an entry counts as new */
};

struct authn_throttle;

struct authn_throttle *authn_throttle_new(void);
void authn_throttle_free(struct authn_throttle **throttle);
/* 0: go ahead, and tell the end of it. Else the milliseconds to wait; nothing is counted.
 * account: canonical, whether it exists or not; address: IPv4, or IPv6 of which the /64 counts. */
int64_t authn_throttle_begin(struct authn_throttle *throttle, struct sv account, struct sv address,
                             int64_t now_ms);

enum authn_attempt { AUTHN_ATTEMPT_FAILED = 0, AUTHN_ATTEMPT_SUCCEEDED, AUTHN_ATTEMPT_NOT_MADE };

/* How what began ended. After a success the account starts afresh. */
void authn_throttle_end(struct authn_throttle *throttle, struct sv account, struct sv address,
                        enum authn_attempt how, int64_t now_ms);
