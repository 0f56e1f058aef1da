/* authn_watch: every session of the databroker, and every change of one, as it happens. After a break it
 * goes on where it was, or tells every session again; who is told of a session twice must not mind, and
 * one whose end fell into a break is not told of. Loop thread. */
#pragma once

#include "session.pb-c.h"

#include "authenticate/store.h"
#include "common/loop.h"

struct authn_watch;

struct authn_watch_ops {
    /* session is valid until it returns. */
    void (*on_session)(void *arg, const Session__Session *session, uint64_t version,
                       int64_t written_ms);
    void (*on_end)(void *arg, struct sv id);
};

/* Begins at once. store outlives it. */
struct authn_watch *authn_watch_new(struct loop *loop, struct authn_store *store,
                                    const struct authn_watch_ops *ops, void *arg);
void authn_watch_free(struct authn_watch **watch);
/* Begins anew, with every session. */
void authn_watch_again(struct authn_watch *watch);
