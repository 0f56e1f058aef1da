#include "common/token_ask.h"

#include <stdio.h>
#include <string.h>

#include "authenticate.pb-c.h"

#include "common/clock.h"

struct rpc_pending *token_ask(struct rpc_client *authenticate, struct sv token, uint64_t route,
                              int64_t timeout_ms, rpc_done_fn done, void *arg)
{
    Postern__TokenRequest request = POSTERN__TOKEN_REQUEST__INIT;

    request.token.data = base_unconst(token.p);
    request.token.len = token.n;
    request.route = route;
    return rpc_client_call(authenticate, "/postern.Login/Token", &request.base,
                           &postern__token_response__descriptor, timeout_ms, done, arg);
}

/* Its own words never reach a client: what is no code of ours is "token-invalid". */
static const char *code_of(const char *text)
{
    static const char *const codes[] = { "token-expired", "token-revoked" };

    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        if (strcmp(codes[i], text) == 0) {
            return codes[i];
        }
    }
    return "token-invalid";
}

struct token_answer token_answer_read(enum rpc_status status, const char *text,
                                      const ProtobufCMessage *response)
{
    const Postern__TokenResponse *said = (const Postern__TokenResponse *)(const void *)response;
    struct token_answer answer = { .status = status, .code = code_of(text) };

    if (status != RPC_OK) {
        return answer;
    }
    if (said->session[0] == '\0' || strlen(said->session) > HANDLE_SESSION_MAX ||
        strlen(said->idp_id) > HANDLE_IDP_MAX) {
        answer.status = RPC_INTERNAL;
        return answer;
    }
    answer.code = NULL;
    answer.handle =
        (struct handle){ .record_version = said->record_version, .issued_at_s = clock_wall_s() };
    (void)snprintf(answer.handle.session, sizeof(answer.handle.session), "%s", said->session);
    (void)snprintf(answer.handle.idp_id, sizeof(answer.handle.idp_id), "%s", said->idp_id);
    answer.expires_at_s = said->expires_at_s;
    return answer;
}
