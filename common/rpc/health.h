/* rpc_health: grpc.health.v1 of one server, for anyone: its whole ("") and each of its services by name.
 * They are fit or not together, as /readyz of the same daemon tells. For server.c alone; the rpc's thread. */
#pragma once

#include "common/list.h"
#include "common/rpc/server.h"

enum { RPC_HEALTH_METHODS = 2 };

struct rpc_health {
    const struct rpc_method *methods; /* of the server */
    size_t n_methods;
    bool serving;
    struct list watchers;
};

void rpc_health_init(struct rpc_health *health, const struct rpc_method *methods, size_t n);
/* Tells all watchers, where it is news. */
void rpc_health_set(struct rpc_health *health, bool serving);
/* Their handlers want the rpc_health. */
extern const struct rpc_method rpc_health_methods[RPC_HEALTH_METHODS];
