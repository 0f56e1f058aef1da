/* proxy_bearer: what the token that a program shows is worth. Our own tokens open here, without I/O: a
 * session handle bound to this host or tunnel, the token of a service account. Those of others, where
 * the route takes them, are shown to authenticate, once for all who wait, which makes a session of each.
 * What was found out is remembered (token_memory.h); whether its session still lives is authorize's word
 * each time. At most 64 are asked about at once. Owned by one worker.
 *
 * A token that is shown must hold: a bad one is 401 whatever cookie came with it, and one that belongs
 * to another session than the cookie is 400, so that nobody has to guess who acts. */
#pragma once

#include "common/crypto/keys.h"
#include "common/token_ask.h"
#include "common/token_memory.h"
#include "proxy/exchange.h"

struct proxy_bearers;

/* A token on its way to authenticate and back. */
struct proxy_asking {
    struct list in_bearers;
    struct list waiting; /* proxy_exchange.in_asking */
    struct proxy_worker *worker;
    struct token_key key;
    char *token;
    size_t n_token;
    uint64_t route;
    struct token_answer answer;
};

struct proxy_bearers *proxy_bearers_new(const struct keys *keys); /* keys outlive it */
void proxy_bearers_free(struct proxy_bearers **bearers);
/* Opens what the request shows, cookie or token, into x->handle. False: x was answered, or goes on in
 * proxy_request_identified when authenticate has answered. */
MUST_CHECK bool proxy_bearer_identify(struct proxy_exchange *x);
/* x is over, or was told. */
void proxy_bearer_leave(struct proxy_exchange *x);
/* Worker's thread: authenticate has answered. */
void proxy_bearer_answered(struct proxy_asking *asking);
/* A field that is for us, never for an upstream. */
bool proxy_bearer_is_ours(struct proxy_exchange *x, const struct http_field *field);
