/* call: what every call is, whatever carries it: gRPC core (server.c) or a socket of its own (direct.c).
 * For this folder alone. */
#pragma once

#include "common/crypto/token.h"
#include "common/log.h"
#include "common/rpc/server.h"

/* What server.h says of each. */
struct rpc_carrier {
    void (*stream)(struct rpc_call *call, const struct rpc_stream_ops *ops, void *arg);
    void (*send)(struct rpc_call *call, struct sv bytes);
    bool (*can_send)(const struct rpc_call *call);
    void (*finish)(struct rpc_call *call, enum rpc_status status, const char *text);
    /* response NULL: only the status. */
    void (*end)(struct rpc_call *call, enum rpc_status status, const char *text,
                const struct sv *response);
};

/* The first member of a carrier's own. */
struct rpc_call {
    const struct rpc_carrier *carrier;
    enum rpc_role role;
    char who[TOKEN_ID_SIZE];
    const char *by;  /* what says who: "certificate", … */
    const char *why; /* it is nobody, where there is more to say than that; NULL */
};

/* What a caller showed. */
struct rpc_shown {
    enum rpc_role certified; /* by a certificate or proof, as by says */
    const char *by;
    struct sv authorization; /* "": nothing */
    struct sv jwt;           /* Pomerium's (service_jwt.h); counts only without the others */
};

/* Who was turned away; one for a server, whatever carries its calls. */
struct rpc_gate {
    const struct rpc_server_opts *opts;
    struct log_limit refusals; /* of nobody's calls that are told */
    uint64_t untold;           /* such that were not */
};

/* Sets role, who, by and why. */
void rpc_call_identify(struct rpc_call *call, const struct rpc_gate *gate,
                       const struct rpc_shown *shown);
/* Whether the caller may call this method; if not, the status and its text: it is logged and told. */
MUST_CHECK enum rpc_status rpc_call_permit(const struct rpc_call *call, struct rpc_gate *gate,
                                           const struct rpc_method *method, const char **text_out);
