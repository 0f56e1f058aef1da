/* listen: the socket of a gRPC server, its certificate (TCP) and its bounds. For server.c alone.
 * Any thread may hand-shake; the rest belongs to the server's. */
#pragma once

#include <pthread.h>

#include <grpc/grpc.h>

#include "common/base.h"
#include "common/diag.h"
#include "common/rpc/identity.h"
#include "common/rpc/proof.h"

struct rpc_listen {
    const struct rpc_identity *identity;
    pthread_mutex_t mutex;
    int64_t issued_s; /* under mutex: when the certificate was made; 0: never */
    int port;
    char unix_path[RPC_UNIX_PATH_SIZE]; /* "" for TCP */
    int lock_fd;                        /* of unix_path's lock file, or -1 */
    bool wants_direct;
    char direct_path[RPC_UNIX_PATH_SIZE]; /* of the socket beside it; "": none */
    int direct_fd;                        /* whoever serves it takes it; else -1 */
};

/* direct: a unix socket gets another one beside it (rpc_direct_path). */
void rpc_listen_init(struct rpc_listen *listen, const struct rpc_identity *identity, bool direct);
/* After the server is destroyed. Removes the socket. */
void rpc_listen_deinit(struct rpc_listen *listen);
grpc_server *rpc_listen_server(void);
/* "unix:/path" (no TLS, its owner alone) or "host:port". A socket file that nobody serves any more
 * is taken over. ERR_INVALID: no such path can be; ERR_DENIED: others may write to its folder;
 * ERR_EXISTS: a living process serves it; ERR_IO. */
MUST_CHECK enum err rpc_listen_bind(struct rpc_listen *listen, grpc_server *server,
                                    const char *address, struct diag *d);
