/* rpc: gRPC for a process: one completion queue, one thread that drives it, and the thread on which
 * every callback runs. Two ways:
 *   rpc_new(loop)   callbacks run on the loop's thread, handed over with one wake-up for many
 *   rpc_new(NULL)   callbacks run on the queue's own thread, which then owns the state behind them:
 *                   no hop, for authorize's way of a check
 * All functions of server.h and client.h belong to that thread, but those that say otherwise.
 * This folder is the only place that sees gRPC core. */
#pragma once

#include "common/base.h"
#include "common/loop.h"

struct rpc;

/* First of all, in a program that has few peers and many messages: gRPC then asks the kernel at each
 * wait for what it waits for, over all connections. Otherwise it asks once and for more: each
 * message that the other end of a unix socket takes in wakes its sender up. The environment's
 * GRPC_POLL_STRATEGY is stronger. One thread only. */
void rpc_expect_few_peers(void);
struct rpc *rpc_new(struct loop *loop);
/* Call after servers and clients of it are gone; waits for the thread. */
void rpc_free(struct rpc **rpc);
typedef void (*rpc_fn)(void *arg);
/* Runs fn on the callbacks' thread after delay_ms; any thread. Every fn runs, at the latest when
 * the rpc is freed (then early). */
void rpc_run(struct rpc *rpc, int64_t delay_ms, rpc_fn fn, void *arg);

/* gRPC's status codes, as far as we give or understand them. */
enum rpc_status {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_UNAUTHENTICATED = 16
};

enum rpc_status rpc_status_of(enum err err);
