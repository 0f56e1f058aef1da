/* rpc_reflection: grpc.reflection.v1 (and its older name v1alpha) of one server: the services of its table
 * and the messages of proto/. For whoever has an identity: it tells no secret, but strangers need no map.
 * For server.c alone; the rpc's thread. */
#pragma once

#include "common/rpc/server.h"

enum {
    RPC_REFLECTION_METHODS = 2,
    RPC_REFLECTION_REQUEST_MAX = 4096,
    RPC_REFLECTION_QUEUE_MAX = 64
};

struct rpc_reflection {
    const struct rpc_method *methods; /* of the server */
    size_t n_methods;
};

/* Their handlers want the rpc_reflection. */
extern const struct rpc_method rpc_reflection_methods[RPC_REFLECTION_METHODS];
