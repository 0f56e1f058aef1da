/* rpc_client: calls to one server of a known role. The channel connects by itself, again and again
 * (100 ms to 1 s apart); a call waits for it up to its own deadline. Callbacks on the rpc's thread;
 * after a cancel the callback never runs. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base.h"
#include "common/rpc/identity.h"
#include "common/rpc/rpc.h"
#include "common/sv.h"

struct rpc_client;
struct rpc_pending;

struct rpc_client_opts {
    const char *target; /* "unix:/path", "https://host:port" or "host:port" */
    enum rpc_role server;
    const struct rpc_identity *identity; /* NULL: a token must do */
    const char *ca_pem;                  /* needed without identity, but for unix: */
    const char *token;                   /* or NULL; copied */
};

struct rpc_client *rpc_client_new(struct rpc *rpc, const struct rpc_client_opts *opts);
/* All calls must be over or cancelled. */
void rpc_client_free(struct rpc_client **client);

/* response is NULL unless status is RPC_OK; text is the server's, "" without one; both are valid
 * until it returns. */
typedef void (*rpc_done_fn)(void *arg, enum rpc_status status, const char *text,
                            const ProtobufCMessage *response);

/* response: the descriptor that the answer is unpacked with, after rpc_scan. */
struct rpc_pending *rpc_client_call(struct rpc_client *client, const char *path,
                                    const ProtobufCMessage *request,
                                    const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                                    rpc_done_fn done, void *arg);

struct rpc_follow_ops {
    /* One message, unscanned; valid until it returns. The next is read after that. */
    void (*on_message)(void *arg, struct sv bytes);
    void (*on_end)(void *arg, enum rpc_status status, const char *text);
};

/* A call whose answer is a stream, without a deadline. */
struct rpc_pending *rpc_client_follow(struct rpc_client *client, const char *path,
                                      const ProtobufCMessage *request,
                                      const struct rpc_follow_ops *ops, void *arg);
/* *pending becomes NULL; NULL is fine. Not from within on_message or done of the same call. */
void rpc_pending_cancel(struct rpc_pending **pending);

/* One call that blocks, for the command line: needs no rpc. *response_out is the caller's, to free
 * with protobuf_c_message_free_unpacked; text gets the server's words. */
enum { RPC_TEXT_MAX = 256 };
MUST_CHECK enum rpc_status rpc_call_wait(const struct rpc_client_opts *opts, const char *path,
                                         const ProtobufCMessage *request,
                                         const ProtobufCMessageDescriptor *response,
                                         int64_t timeout_ms, ProtobufCMessage **response_out,
                                         char text[RPC_TEXT_MAX]);
