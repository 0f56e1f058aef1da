#include "authenticate/kids.h"

#include <string.h>

enum {
    FORCED_MAX = 3,          /* fetches for unknown keys that may follow each other … */
    FORCED_EVERY_MS = 20000, /* … and how fast the right to them comes back */
    UNKNOWN_MS = 60000
};

static bool is_unknown(const struct authn_kids *kids, struct sv kid, int64_t now_ms)
{
    for (size_t i = 0; i < AUTHN_KIDS; i++) {
        if (kids->unknown[i].until_ms > now_ms && sv_eq(sv_from(kids->unknown[i].text), kid)) {
            return true;
        }
    }
    return false;
}

bool authn_kids_may_ask(struct authn_kids *kids, struct sv kid, int64_t now_ms)
{
    struct authn_kid *u = &kids->unknown[kids->next];

    if (is_unknown(kids, kid, now_ms)) {
        return false;
    }
    if (now_ms - kids->forced_at_ms >= FORCED_EVERY_MS) {
        kids->forced = 0;
    }
    if (kids->forced >= FORCED_MAX) {
        return false;
    }
    kids->forced++;
    kids->forced_at_ms = now_ms;
    if (kid.n > 0 && kid.n <= JOSE_KID_MAX) {
        memcpy(u->text, kid.p, kid.n);
        u->text[kid.n] = '\0';
        u->until_ms = now_ms + UNKNOWN_MS;
        kids->next = (kids->next + 1) % AUTHN_KIDS;
    }
    return true;
}

void authn_waiters_wake(struct list *waiters, enum err err)
{
    struct list all;

    list_init(&all);
    while (!list_empty(waiters)) {
        struct list *node = waiters->next;

        list_remove(node);
        list_push_back(&all, node);
    }
    while (!list_empty(&all)) {
        struct authn_waiter *waiter = LIST_ENTRY(all.next, struct authn_waiter, node);

        list_remove(&waiter->node);
        waiter->next(waiter, err);
    }
}
