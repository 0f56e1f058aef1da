#include "common/rpc/call.h"

#include <stdio.h>

#include "common/crypto/service_jwt.h"
#include "common/log.h"
#include "common/mem.h"

/* ---- who calls ------------------------------------------------------------------------------- */

static enum rpc_role role_of_token(enum token_role role)
{
    switch (role) {
    case TOKEN_ROLE_SESSION_ADMIN:
        return RPC_TOKEN_SESSION_ADMIN;
    case TOKEN_ROLE_READER:
        return RPC_TOKEN_READER;
    case TOKEN_ROLE_CHECKER:
        return RPC_TOKEN_CHECKER;
    case TOKEN_ROLE_RECORD_WRITER:
        return RPC_TOKEN_RECORD_WRITER;
    case TOKEN_ROLE_DIRECTORY_WRITER:
        return RPC_TOKEN_DIRECTORY_WRITER;
    case TOKEN_ROLE_CONFIG_WRITER:
        return RPC_TOKEN_CONFIG_WRITER;
    case TOKEN_ROLE_SERVICE_ACCOUNT:
    case TOKEN_ROLE_NONE:
        break;
    }
    return RPC_NOBODY;
}

static enum rpc_role role_by_token(struct rpc_call *call, const struct rpc_server_opts *opts,
                                   struct sv shown)
{
    const struct keys *keys = rpc_identity_keys(opts->identity);
    struct token token = { .role = TOKEN_ROLE_NONE };
    struct sv prefix = SV("Bearer ");

    if (!sv_istarts(shown, prefix) ||
        token_verify(keys, sv_from_at(shown, prefix.n), &token) != ERR_OK) {
        return RPC_NOBODY;
    }
    call->by = "token";
    (void)snprintf(call->who, sizeof(call->who), "%s", token.id);
    if (opts->token_fits != NULL && !opts->token_fits(opts->arg, &token)) {
        return RPC_NOBODY;
    }
    return role_of_token(token.role);
}

static const char *why_no_jwt(enum err err)
{
    switch ((int)err) {
    case ERR_EXPIRED:
        return "the jwt is over: is one of the clocks wrong?";
    case ERR_LIMIT:
        return "the jwt's exp is more than an hour away";
    case ERR_INVALID:
        return "the jwt must have alg HS256, no other header than typ, and exp as its one claim";
    default:
        return "the jwt is not signed with the shared secret";
    }
}

static enum rpc_role role_by_jwt(struct rpc_call *call, const struct rpc_server_opts *opts,
                                 struct sv shown)
{
    enum err err = ERR_OK;

    if (opts->jwt_role == TOKEN_ROLE_NONE) {
        call->why = opts->jwt_off;
        return RPC_NOBODY;
    }
    call->by = "jwt";
    err = service_jwt_verify(rpc_identity_keys(opts->identity), shown);
    if (err != ERR_OK) {
        call->why = why_no_jwt(err);
        return RPC_NOBODY;
    }
    (void)snprintf(call->who, sizeof(call->who), "jwt");
    return role_of_token(opts->jwt_role);
}

void rpc_call_identify(struct rpc_call *call, const struct rpc_gate *gate,
                       const struct rpc_shown *shown)
{
    call->role = shown->certified;
    call->by = shown->by;
    if (call->role == RPC_NOBODY) {
        call->by = "nothing";
        call->role = role_by_token(call, gate->opts, shown->authorization);
    }
    if (call->role == RPC_NOBODY && shown->authorization.n == 0 && shown->jwt.n > 0) {
        call->role = role_by_jwt(call, gate->opts, shown->jwt);
    }
    if (call->who[0] == '\0') {
        (void)snprintf(call->who, sizeof(call->who), "%s", rpc_role_name(call->role));
    }
}

void rpc_refusal_line(const struct rpc_refusal *refusal, int64_t wall_ms, struct buf *out)
{
    log_open(out, wall_ms, SV("rpc.refused"));
    log_add_str(out, LOG_KEY("outcome"), "refused");
    log_add_str(out, LOG_KEY("method"), refusal->method);
    log_add_str(out, LOG_KEY("role"), rpc_role_name(refusal->role));
    log_add_str(out, LOG_KEY("caller"), refusal->who);
    log_add_str(out, LOG_KEY("by"), refusal->by);
    if (refusal->more != 0) {
        log_add_u64(out, LOG_KEY("more"), refusal->more);
    }
    log_close(out);
}

static void tell_refused(const struct rpc_call *call, struct rpc_gate *gate,
                         const struct rpc_method *method)
{
    struct rpc_refusal refusal = {
        .method = method->path, .role = call->role, .who = call->who, .by = call->by
    };

    if (gate->opts->on_refused == NULL) {
        return;
    }
    if (call->role == RPC_NOBODY) {
        if (!log_limit_pass(&gate->refusals, RPC_REFUSALS_MAX)) {
            gate->untold++;
            return;
        }
        refusal.more = gate->untold;
        gate->untold = 0;
    }
    gate->opts->on_refused(gate->opts->arg, &refusal);
}

enum rpc_status rpc_call_permit(const struct rpc_call *call, struct rpc_gate *gate,
                                const struct rpc_method *method, const char **text_out)
{
    static struct log_limit limit;

    if ((method->roles & BIT(call->role)) != 0) {
        return RPC_OK;
    }
    if (log_limit_pass(&limit, 10)) {
        log_warn("rpc.refused", KV_STR("caller", call->who), KV_STR("method", method->path));
    }
    tell_refused(call, gate, method);
    if (call->role == RPC_NOBODY) {
        *text_out = call->why != NULL ? call->why
                                      : "show a certificate of the internal CA or a valid token";
        return RPC_UNAUTHENTICATED;
    }
    *text_out = "the caller's role may not use this method";
    return RPC_PERMISSION_DENIED;
}

enum rpc_role rpc_call_role(const struct rpc_call *call)
{
    return call->role;
}

const char *rpc_call_who(const struct rpc_call *call)
{
    return call->who;
}

/* ---- answers --------------------------------------------------------------------------------- */

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *response)
{
    size_t n = protobuf_c_message_get_packed_size(response);
    uint8_t *bytes = mem_alloc(n + 1);

    rpc_call_reply_bytes(call, sv_of(bytes, protobuf_c_message_pack(response, bytes)));
    mem_free(&bytes);
}

void rpc_call_reply_bytes(struct rpc_call *call, struct sv bytes)
{
    call->carrier->end(call, RPC_OK, NULL, &bytes);
}

void rpc_call_fail(struct rpc_call *call, enum rpc_status status, const char *text)
{
    call->carrier->end(call, status == RPC_OK ? RPC_INTERNAL : status, text, NULL);
}

void rpc_call_stream(struct rpc_call *call, const struct rpc_stream_ops *ops, void *arg)
{
    call->carrier->stream(call, ops, arg);
}

void rpc_call_send(struct rpc_call *call, struct sv bytes)
{
    call->carrier->send(call, bytes);
}

bool rpc_call_can_send(const struct rpc_call *call)
{
    return call->carrier->can_send(call);
}

void rpc_call_finish(struct rpc_call *call, enum rpc_status status, const char *text)
{
    call->carrier->finish(call, status, text);
}
