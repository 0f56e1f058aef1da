/* authz_bearers: tokens of others (bearer_token_format) in the requests that others' proxies ask about: shown to
 * authenticate, as our own proxy does, once for all who wait. What was found out is remembered
 * (token_memory.h). At most 64 are asked about at once, for 1024 requests. Check thread, which never waits. */
#pragma once

#include "authorize/foreign.h"
#include "common/rpc/client.h"
#include "common/rpc/server.h"

struct authz_bearers;

struct authz_bearers_opts {
    struct rpc *rpc;
    const struct rpc_identity *identity;
    const char *authenticate; /* its address; NULL: there is none */
    /* foreign tells now who it is (authz_foreign_identified), or why not. */
    void (*on_known)(void *arg, struct rpc_call *call, struct authz_foreign *foreign);
    void *arg;
};

struct authz_bearers *authz_bearers_new(const struct authz_bearers_opts *opts);
/* Nobody waits (authz_bearers_stop). */
void authz_bearers_free(struct authz_bearers **bearers);
/* Finds out what foreign->token is worth on route and calls on_known, at once or later. */
void authz_bearers_ask(struct authz_bearers *bearers, struct rpc_call *call,
                       struct authz_foreign *foreign, const struct config_route *route);
/* Whoever waits is told that it is not known, and so is who comes later. */
void authz_bearers_stop(struct authz_bearers *bearers);
