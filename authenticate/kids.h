/* authn_kids: whether keys may be fetched again because a token names one that is not there. Whoever makes
 * up tokens must not make us hammer: three fetches may follow each other, then one in 20 s, and a kid
 * that a fetch did not bring is not looked for again for a minute. Loop thread. */
#pragma once

#include "common/base.h"
#include "common/crypto/jose.h"
#include "common/list.h"
#include "common/sv.h"

enum { AUTHN_KIDS = 32 };

struct authn_kid {
    int64_t until_ms;
    char text[JOSE_KID_MAX + 1];
};

/* All zero: nothing was asked for yet. */
struct authn_kids {
    int64_t forced_at_ms;
    unsigned forced; /* of the fetches that may follow each other */
    struct authn_kid unknown[AUTHN_KIDS];
    size_t next;
};

/* True: fetch, and it is noted. kid "": no particular one. */
MUST_CHECK bool authn_kids_may_ask(struct authn_kids *kids, struct sv kid, int64_t now_ms);

/* Somebody who waits for keys; part of what it is for. In no list, or in that of whom it waits for. */
struct authn_waiter {
    struct list node;
    void (*next)(struct authn_waiter *waiter, enum err err);
};

/* Wakes all of them; whoever waits again joins the next round. */
void authn_waiters_wake(struct list *waiters, enum err err);
