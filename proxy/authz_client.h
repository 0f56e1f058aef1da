/* proxy_authz: asks authorize about requests. There may be several authorizes: each worker keeps a
 * stream to each (authz_link.h; at most 16) and gives the next message to the next one in turn that
 * is up and has answered. Checks gather while messages are on their way or the worker has other work,
 * and leave together in the next; no timer waits for more. A check is answered within timeout_ms, or
 * its callback gets PROXY_VERDICT_NONE, which is a 503. What a broken stream was asked goes to another
 * at once, and so does what one is asked that is silent for three quarters of that time; without
 * another it is sent again when the stream is back. One that says that it does not know the store (it just
 * started, or is cut off from the databroker) is left alone for a second while another knows more.
 * Owned by one worker. */
#pragma once

#include "authorize.pb-c.h"

#include "common/base.h"
#include "common/loop.h"
#include "common/rpc/identity.h"
#include "common/sv.h"
#include "proxy/identity.h"
#include "proxy/sockaddr.h"

enum { PROXY_AUTHZ_PEERS_MAX = 16 };

struct proxy_authz;

enum proxy_verdict {
    PROXY_VERDICT_NONE = 0, /* nobody answered */
    PROXY_VERDICT_UNAVAILABLE,
    PROXY_VERDICT_DENY,
    PROXY_VERDICT_LOGIN,
    PROXY_VERDICT_ALLOW
};

struct proxy_answer {
    enum proxy_verdict verdict;
    unsigned status;         /* of DENY and UNAVAILABLE; 0: 403, 503 */
    const uint32_t *reasons; /* enum policy_reason, sorted */
    size_t n_reasons;
    struct proxy_identity *identity; /* one reference for the callee, or NULL */
    int64_t valid_until_s;           /* 0: no end */
    struct sv user;                  /* "": ask the identity */
    struct sv email;
};

/* answer is valid until it returns. */
typedef void (*proxy_answer_fn)(void *arg, const struct proxy_answer *answer);

struct proxy_authz_opts {
    struct loop *loop;
    const struct rpc_identity *identity;
    int64_t timeout_ms;
    /* These sessions, or all open connections, must be checked again. */
    void (*on_changed)(void *arg, const struct sv *sessions, size_t n, bool all);
    void (*on_link)(void *arg, bool up); /* the first stream came up, or the last was lost */
    void *arg;
};

struct proxy_authz *proxy_authz_new(const struct proxy_authz_opts *opts);
/* Where they are from now on; of more than PROXY_AUTHZ_PEERS_MAX the first ones count. Streams to those
 * that stay stay. None at first. */
void proxy_authz_set(struct proxy_authz *authz, const struct proxy_sockaddr *v, size_t n);
void proxy_authz_free(struct proxy_authz **authz); /* open checks get no callback any more */
/* id of check is set here. Returns a handle for proxy_authz_cancel, never 0; 0: too many are open,
 * the callback has not run and will not. */
uint64_t proxy_authz_check(struct proxy_authz *authz, Postern__CheckRequest *check,
                           proxy_answer_fn fn, void *arg);
void proxy_authz_cancel(struct proxy_authz *authz, uint64_t handle);
/* When any of them, also of those whose stream was lost, last said anything. */
int64_t proxy_authz_heard_ms(const struct proxy_authz *authz);
/* There is one authorize, and it runs on this machine. */
bool proxy_authz_is_near(const struct proxy_authz *authz);
/* Where the worker stays (common/home.h), which it is told with each message. */
void proxy_authz_place(struct proxy_authz *authz, unsigned place);
/* Sends what has gathered: the loop's flush. */
void proxy_authz_flush(struct proxy_authz *authz);
/* The one authorize, on this machine, has not answered what it was asked. */
bool proxy_authz_is_awaited(const struct proxy_authz *authz);
/* Takes in what has come from it, where no event has told of it yet. */
void proxy_authz_look(struct proxy_authz *authz);
