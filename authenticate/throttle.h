/* authn_throttle: slows down who guesses passwords: one bounded table for accounts, one for
 * addresses. An attempt is counted when it begins, so that many at once gain nothing, and taken
 * back when it succeeds. After the free ones each failure doubles the wait. A full table whose
 * entries are all waiting refuses newcomers. Monotonic time; the loop's thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum {
    AUTHN_THROTTLE_MAX = 8192,           /* entries a table */
    AUTHN_THROTTLE_ACCOUNT_FREE = 5,     /* failures before the first wait */
    AUTHN_THROTTLE_ADDRESS_FREE = 20,    /* many people share an address */
    AUTHN_THROTTLE_FIRST_MS = 1000,      /* the first wait */
    AUTHN_THROTTLE_LAST_MS = 15 * 60000, /* the longest */
    AUTHN_THROTTLE_FORGET_MS = 3600000   /* after that much quiet an entry counts as new */
};

struct authn_throttle;

struct authn_throttle *authn_throttle_new(void);
void authn_throttle_free(struct authn_throttle **throttle);
/* 0: go ahead, the attempt is counted. Else the milliseconds to wait; nothing is counted.
 * account: canonical, whether it exists or not; address: IPv4, or IPv6 of which the /64 counts. */
int64_t authn_throttle_begin(struct authn_throttle *throttle, struct sv account, struct sv address,
                             int64_t now_ms);
/* The attempt succeeded: the account starts afresh, the address gets this one back. */
void authn_throttle_success(struct authn_throttle *throttle, struct sv account, struct sv address);
