/* core: what rpc.c, server.c and client.c share of gRPC core. Not for other folders. */
#pragma once

#include <grpc/grpc.h>

#include "common/rpc/rpc.h"
#include "common/sv.h"

/* One batch or request handed to gRPC: owns nothing by itself; done runs on the callbacks' thread
 * exactly once, with ok false when it failed or the queue is shutting down. */
struct rpc_op {
    struct rpc_op *next;
    void (*done)(struct rpc_op *op);
    bool ok;
};

grpc_completion_queue *rpc_cq(struct rpc *rpc);
struct loop *rpc_loop(struct rpc *rpc); /* NULL: callbacks on the queue's thread */
/* To be called right before an op is given to gRPC: shows ThreadSanitizer the hand-over. */
void rpc_give(struct rpc_op *op);
/* Starts a batch; a refusal is our own bug. */
void rpc_start(grpc_call *call, const grpc_op *ops, size_t n, struct rpc_op *op);
/* The bytes of a message as one run: borrowed where it is a single slice, else copied to *room,
 * which the caller frees with mem_free. */
struct sv rpc_message_bytes(grpc_byte_buffer *message, char **room);
grpc_byte_buffer *rpc_message_of(struct sv bytes);
void rpc_core_up(void);
void rpc_core_down(void);
