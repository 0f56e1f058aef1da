/* token_ask: shows authenticate the token of somebody else (postern.Login/Token), and reads what it says. */
#pragma once

#include "common/base.h"
#include "common/crypto/handle.h"
#include "common/rpc/client.h"
#include "common/sv.h"

struct token_answer {
    enum rpc_status
        status; /* RPC_OK: handle holds; RPC_UNAUTHENTICATED: it does not; else: nobody knows */
    const char *code; /* constant, for whoever showed it; NULL: it holds */
    struct handle handle;
    int64_t expires_at_s;
};

/* route: the one whose word it is which tokens count. done is one that calls token_answer_read. */
struct rpc_pending *token_ask(struct rpc_client *authenticate, struct sv token, uint64_t route,
                              int64_t timeout_ms, rpc_done_fn done, void *arg);
/* An answer of a form that it has not is RPC_INTERNAL. */
struct token_answer token_answer_read(enum rpc_status status, const char *text,
                                      const ProtobufCMessage *response);
