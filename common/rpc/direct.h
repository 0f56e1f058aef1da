/* direct: the socket beside a gRPC server's unix socket, where its direct method is served without
 * gRPC core: each connection is one stream (duplex.h), on the rpc's loop, with one read and one write for
 * a message. For server.c alone; the loop's thread, but for rpc_direct_new.
 *
 *   HELLO --accepted--> OPEN --either side ends--> ENDING --the rest has left--> PARTING --> closed
 *     '------refused, or 5 s without a request------^     (until the peer closes, 5 s)
 *
 * Who calls is shown as on the gRPC socket: by a proof (proof.h). */
#pragma once

#include "common/base.h"
#include "common/rpc/call.h"
#include "common/rpc/server.h"

/* Connections at once; one more is closed. */
enum { RPC_DIRECT_MAX = 1024 };

struct rpc_direct;

/* Serves on fd, a listening socket, which becomes its own. gate is borrowed. */
struct rpc_direct *rpc_direct_new(struct loop *loop, int fd, struct rpc_gate *gate);
void rpc_direct_start(struct rpc_direct *direct);
/* Ends every stream with a last word (GOAWAY) and closes. NULL is accepted. */
void rpc_direct_free(struct rpc_direct **direct);
