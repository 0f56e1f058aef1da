/* Explain over gRPC: who may ask, and what is no question. What the answers say: test/flow/test_explain.py. */
#include "authorize/explain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "authorize/service.h"
#include "common/mem.h"
#include "common/rpc/client.h"
#include "test/support/cmocka.h"

enum { WAIT_MS = 10000 };

static char folder[] = "/tmp/postern-explain-XXXXXX";
static char listen_at[128];

struct stand {
    struct config *config;
    struct authz_service *service;
    struct rpc_identity *cli;
    struct rpc_identity *proxy;
};

static void on_ready(void *arg, bool ready)
{
    (void)arg;
    (void)ready;
}

static struct stand stand_new(void)
{
    const struct config_opts opts = { .file = "/config.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct stand s = { .config = NULL };
    struct config_errors *errors = NULL;
    struct authz_rules *rules = NULL;
    struct diag d = { .line = 0 };
    struct buf text;

    buf_init(&text, 8192);
    buf_printf(
        &text,
        "address: 127.0.0.1:8443\nshared_secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"
        "authenticate_service_url: https://authenticate.localhost:8443\n"
        "idp_provider: local\nidp_local_users_file: /dev/null\n"
        "grpc_address: unix:%s/a.sock\ndatabroker_service_url: unix:%s/none.sock\nroutes:\n"
        "  - from: https://app.localhost\n    to: http://127.0.0.1:1\n    id: app\n"
        "    allow_any_authenticated_user: true\n"
        "  - from: https://public.localhost\n    to: http://127.0.0.1:1\n    id: public\n"
        "    allow_public_unauthenticated_access: true\n"
        "  - from: https://broken.localhost\n    to: http://127.0.0.1:1\n    id: broken\n"
        "    policy: [{allow: {and: [{no_such_thing: true}]}}]\n",
        folder, folder);
    assert_int_equal(config_parse(buf_sv(&text), &opts, &s.config, &errors), ERR_OK);
    buf_deinit(&text);
    assert_int_equal(authz_rules_new(s.config, NULL, &rules, &d), ERR_OK);
    const struct authz_service_opts service = { .rules = rules,
                                                .listen = listen_at,
                                                .databroker = "unix:/nonexistent/b.sock",
                                                .on_ready = on_ready };
    assert_int_equal(authz_service_new(&service, &s.service, &d), ERR_OK);
    s.cli = rpc_identity_new(s.config->keys, RPC_CLI);
    s.proxy = rpc_identity_new(s.config->keys, RPC_PROXY);
    return s;
}

static void stand_free(struct stand *s)
{
    authz_service_free(&s->service);
    rpc_identity_free(&s->cli);
    rpc_identity_free(&s->proxy);
    config_unref(&s->config);
}

static ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){ .len = strlen(text), .data = base_unconst(text) };
}

/* The verdict of the document, "" where the question was refused with *status_out. */
static const char *ask(const struct rpc_identity *who, const ProtobufCMessage *question,
                       const char *method, enum rpc_status *status_out)
{
    static char verdict[32];
    const struct rpc_client_opts opts = { .target = listen_at,
                                          .server = RPC_AUTHORIZE,
                                          .identity = who };
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];

    verdict[0] = '\0';
    *status_out = rpc_call_wait(&opts, method, question, &postern__explanation__descriptor, WAIT_MS,
                                &answer, text);
    if (answer != NULL) {
        const Postern__Explanation *m = (const Postern__Explanation *)(const void *)answer;
        json_t *document = json_loadb((const char *)m->document.data, m->document.len,
                                      JSON_REJECT_DUPLICATES, NULL);

        assert_non_null(document);
        (void)snprintf(verdict, sizeof(verdict), "%s",
                       json_string_value(json_object_get(document, "verdict")));
        json_decref(document);
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    return verdict;
}

static const char *explain(const struct rpc_identity *who, const Postern__ExplainRequest *question,
                           enum rpc_status *status_out)
{
    return ask(who, &question->base, "/postern.Authorize/Explain", status_out);
}

static Postern__CheckRequest a_check(void)
{
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

    check.method = bytes_of("GET");
    check.path = bytes_of("/");
    return check;
}

static void only_the_command_line_may_ask(void **state)
{
    struct stand s = stand_new();
    Postern__ExplainRequest question = POSTERN__EXPLAIN_REQUEST__INIT;
    Postern__CheckRequest check = a_check();
    enum rpc_status status = RPC_OK;

    (void)state;
    question.check = &check;
    question.route = base_unconst("public");
    (void)explain(s.proxy, &question, &status);
    assert_int_equal(status, RPC_PERMISSION_DENIED);
    assert_string_equal(explain(s.cli, &question, &status), "allow");
    question.route = base_unconst("app");
    assert_string_equal(explain(s.cli, &question, &status), "login");
    question.route = base_unconst("broken");
    assert_string_equal(explain(s.cli, &question, &status), "unavailable");
    stand_free(&s);
}

static void what_is_no_question_is_refused(void **state)
{
    struct stand s = stand_new();
    Postern__ExplainRequest question = POSTERN__EXPLAIN_REQUEST__INIT;
    Postern__CheckRequest check = a_check();
    enum rpc_status status = RPC_OK;

    (void)state;
    (void)explain(s.cli, &question, &status);
    assert_int_equal(status, RPC_INVALID_ARGUMENT);
    question.request_id = bytes_of("never seen");
    (void)explain(s.cli, &question, &status);
    assert_int_equal(status, RPC_NOT_FOUND);
    question.request_id = bytes_of("");
    question.check = &check;
    question.route = base_unconst("nowhere");
    (void)explain(s.cli, &question, &status);
    assert_int_equal(status, RPC_NOT_FOUND);
    question.route = base_unconst("public");
    question.user = base_unconst("nobody");
    (void)explain(s.cli, &question, &status);
    assert_int_equal(status, RPC_NOT_FOUND);
    question.user = base_unconst("");
    question.time_ms = INT64_MAX; /* no clock shows it */
    (void)explain(s.cli, &question, &status);
    assert_int_equal(status, RPC_INVALID_ARGUMENT);
    question.time_ms = 0;
    check.client_ip = bytes_of("12345"); /* no address: as the check itself would be answered */
    assert_string_equal(explain(s.cli, &question, &status), "unavailable");
    stand_free(&s);
}

/* A decision of the unary Check is remembered like those of streams. */
static void a_decision_is_explained_by_its_id(void **state)
{
    struct stand s = stand_new();
    Postern__ExplainRequest question = POSTERN__EXPLAIN_REQUEST__INIT;
    Postern__CheckRequest check = a_check();
    const struct rpc_client_opts opts = { .target = listen_at,
                                          .server = RPC_AUTHORIZE,
                                          .identity = s.proxy };
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];
    enum rpc_status status = RPC_OK;

    (void)state;
    check.route = s.config->routes[0].id;
    check.host = bytes_of("app.localhost");
    check.request_id = bytes_of("one");
    assert_int_equal(rpc_call_wait(&opts, "/postern.Authorize/Check", &check.base,
                                   &postern__check_answer__descriptor, WAIT_MS, &answer, text),
                     RPC_OK);
    protobuf_c_message_free_unpacked(answer, NULL);
    question.request_id = bytes_of("one");
    assert_string_equal(explain(s.cli, &question, &status), "login");
    stand_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_command_line_may_ask),
        cmocka_unit_test(what_is_no_question_is_refused),
        cmocka_unit_test(a_decision_is_explained_by_its_id),
    };

    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(listen_at, sizeof(listen_at), "unix:%s/a.sock", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    (void)rmdir(folder);
    return failed;
}
