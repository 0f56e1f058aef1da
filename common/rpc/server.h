/* rpc_server: a gRPC server with a table of methods and the roles that may call them. Over TCP it
 * speaks mutual TLS and a certificate names the caller's role, on a unix socket a proof does. A method without a row is UNIMPLEMENTED, a caller without identity UNAUTHENTICATED, one
 * whose role is not in the row PERMISSION_DENIED. grpc.health.v1 is built in and open to anyone,
 * grpc.reflection to whoever has an identity.
 * Callbacks run on the rpc's thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/token.h"
#include "common/diag.h"
#include "common/rpc/identity.h"
#include "common/rpc/rpc.h"
#include "common/sv.h"

/* Beyond these a call is RESOURCE_EXHAUSTED; strangers are callers of the health service, which must
 * not keep others out. Compressed messages are UNIMPLEMENTED. */
/* A row for whoever is anybody. */
#define RPC_ANY_ROLE (~BIT(RPC_NOBODY))

enum {
    RPC_MESSAGE_MAX = 4 * 1024 * 1024,
    RPC_CALLS_MAX = 4096,
    RPC_STRANGERS_MAX = 128,
    RPC_REFUSALS_MAX = 20
};

struct rpc_server;
struct rpc_call;

/* A request that came whole. request is valid until the handler returns. The handler, or whoever it
 * gives the call to, answers exactly once: rpc_call_reply or rpc_call_fail for a unary method,
 * rpc_call_stream and in the end rpc_call_finish for a stream. A caller that went away makes no
 * difference to a unary handler. */
typedef void (*rpc_handler_fn)(struct rpc_call *call, const ProtobufCMessage *request, void *arg);

struct rpc_method {
    const char *path;    /* "/databroker.DataBrokerService/Put" */
    uint32_t roles;      /* BIT(enum rpc_role) of those who may call */
    bool client_streams; /* many requests: the handler gets NULL and hears on_message */
    const ProtobufCMessageDescriptor *request;
    rpc_handler_fn handler;
};

/* A call of a method that its caller may not use. All borrowed. */
struct rpc_refusal {
    const char *method; /* of the table */
    enum rpc_role role; /* NOBODY: it showed nothing that counts */
    const char *who;    /* as rpc_call_who */
    const char *by;     /* what says so: "certificate", "proof", "token", "jwt", "nothing" */
    uint64_t more;      /* such calls of nobody's that were not told, since the last one */
};

/* Appends the audit's line of it. */
void rpc_refusal_line(const struct rpc_refusal *refusal, int64_t wall_ms, struct buf *out);

struct rpc_server_opts {
    const char *address; /* "unix:/path" or "host:port"; port 0 takes a free one */
    const struct rpc_identity *identity;
    const struct rpc_method *methods; /* outlive the server */
    size_t n_methods;
    /* NULL, or one of methods with client_streams: beside a unix socket it is also served without gRPC
     * core, for callers that know of it (rpc_direct_path, direct.h). The rpc has a loop. */
    const struct rpc_method *direct;
    void *arg; /* for the handlers */
    /* Told of every refused call of somebody, and of RPC_REFUSALS_MAX a second of nobody's: whoever
     * reaches the port makes as many as they like. NULL: nobody is. */
    void (*on_refused)(void *arg, const struct rpc_refusal *refusal);
    /* A token that verifies is still refused where this says so; on the rpc's thread, with arg. NULL: none
     * is. */
    bool (*token_fits)(void *arg, const struct token *token);
    /* Whoever shows Pomerium's jwt (service_jwt.h) is a token of that role. NONE: such a jwt counts for
     * nothing, and jwt_off (may be NULL) tells its owner so. */
    enum token_role jwt_role;
    const char *jwt_off;
};

/* ERR_IO: the address cannot be had; ERR_EXISTS: a living process serves that socket; ERR_INVALID:
 * no socket path; d says why. */
MUST_CHECK enum err rpc_server_new(struct rpc *rpc, const struct rpc_server_opts *opts,
                                   struct rpc_server **server_out, struct diag *d);
int rpc_server_port(const struct rpc_server *server);
/* What the health service tells of the server and all its services; false until set. The rpc's thread. */
void rpc_server_set_serving(struct rpc_server *server, bool serving);
/* Takes no more calls, ends the open ones, waits until they have. Not on the rpc's thread when that
 * is the queue's own; on the loop's thread it turns the queue itself. */
void rpc_server_free(struct rpc_server **server);

enum rpc_role rpc_call_role(const struct rpc_call *call);
/* For logs: the role's name, or the token's id. */
const char *rpc_call_who(const struct rpc_call *call);
void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *response);
/* The same of a message that is packed already. */
void rpc_call_reply_bytes(struct rpc_call *call, struct sv bytes);
void rpc_call_fail(struct rpc_call *call, enum rpc_status status, const char *text);

struct rpc_stream_ops {
    /* One message of a client that streams, unscanned bytes; valid until it returns. */
    void (*on_message)(void *arg, struct sv bytes);
    /* The message given to rpc_call_send has left: the next may go. */
    void (*on_writable)(void *arg);
    /* The client said its last; whoever hears that finishes the call. NULL: it is finished then. */
    void (*on_client_done)(void *arg);
    /* The call is over, by either side; the last callback. The call must not be touched again. */
    void (*on_closed)(void *arg);
};

/* Makes the call a stream: from now on ops are called with arg. */
void rpc_call_stream(struct rpc_call *call, const struct rpc_stream_ops *ops, void *arg);
/* Sends one message; at most one is on its way (rpc_call_can_send). Does nothing once the caller
 * left or the call ends: on_closed follows. */
void rpc_call_send(struct rpc_call *call, struct sv bytes);
bool rpc_call_can_send(const struct rpc_call *call);
/* Ends a stream, after what was sent; on_closed follows. */
void rpc_call_finish(struct rpc_call *call, enum rpc_status status, const char *text);
