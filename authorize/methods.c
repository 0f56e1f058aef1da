/* The methods of authorize: its table, and the handlers of those that are no stream. */
#include "authorize/explain.h"
#include "authorize/service_int.h"
#include "common/log.h"

static void handle_check(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct authz_service *svc = arg;
    struct authz_facts facts = authz_service_facts(svc);

    authz_service_check(svc, &facts, (struct authz_asker){ .call = call },
                        (const Postern__CheckRequest *)(const void *)request);
    authz_answers_flush(svc->answers);
}

void authz_service_check_foreign(void *arg, struct rpc_call *call, struct authz_foreign *foreign)
{
    struct authz_service *svc = arg;
    struct authz_facts facts = authz_service_facts(svc);
    const struct authz_asker asker = { .call = call, .foreign = foreign };
    struct authz_outcome outcome;

    if (foreign->status != 0) {
        authz_check_refused(&outcome, foreign->status);
        authz_service_answer(svc, &facts, asker, &foreign->check, &outcome);
    } else {
        authz_service_check(svc, &facts, asker, &foreign->check);
    }
    authz_answers_flush(svc->answers);
}

static void handle_foreign(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct authz_service *svc = arg;
    const struct config *config = authz_rules_config(svc->rules);
    struct authz_foreign *foreign = NULL;

    if (authz_foreign_new(authz_rules_front(svc->rules), (const void *)request, &foreign) !=
        ERR_OK) {
        rpc_call_fail(call, RPC_INVALID_ARGUMENT, "the message tells of no HTTP request");
        return;
    }
    if (foreign->status == 0 && foreign->token.n != 0) {
        authz_bearers_ask(svc->bearers, call, foreign,
                          config_route_by_id(config, foreign->check.route));
    } else {
        authz_service_check_foreign(svc, call, foreign);
    }
    authz_foreign_unref(&foreign);
}

static void handle_explain(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct authz_service *svc = arg;
    struct authz_facts facts = authz_service_facts(svc);
    Postern__Explanation answer = POSTERN__EXPLANATION__INIT;
    struct diag d = { .line = 0 };
    CLEANUP(buf_deinit) struct buf document;

    buf_init(&document, AUTHZ_EXPLAIN_MAX);
    enum err err = authz_explain(
        &facts, svc->recent, (const Postern__ExplainRequest *)(const void *)request, &document, &d);

    log_info("explain", KV_STR("caller", rpc_call_who(call)), KV_BOOL("answered", err == ERR_OK));
    if (err != ERR_OK) {
        rpc_call_fail(call, rpc_status_of(err), d.text);
        return;
    }
    answer.document = (ProtobufCBinaryData){ .len = document.n, .data = (uint8_t *)document.p };
    rpc_call_reply(call, &answer.base);
}

const struct rpc_method authz_methods[AUTHZ_METHODS] = {
    { .path = "/postern.Authorize/CheckStream",
      .roles = BIT(RPC_PROXY),
      .client_streams = true,
      .request = &postern__check_batch__descriptor,
      .handler = authz_service_on_stream },
    { .path = "/postern.Authorize/Check",
      .roles = BIT(RPC_PROXY) | BIT(RPC_CLI),
      .request = &postern__check_request__descriptor,
      .handler = handle_check },
    { .path = "/envoy.service.auth.v3.Authorization/Check",
      .roles = BIT(RPC_PROXY) | BIT(RPC_CLI) | BIT(RPC_TOKEN_CHECKER),
      .request = &envoy__service__auth__v3__check_request__descriptor,
      .handler = handle_foreign },
    { .path = "/postern.Authorize/Explain",
      .roles = BIT(RPC_CLI),
      .request = &postern__explain_request__descriptor,
      .handler = handle_explain },
};
