#include "cli/broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/empty.pb-c.h"

#include "cli/command.h"
#include "cli/file.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/proof.h"
#include "common/secret.h"

enum { PAGE = 500, TIMEOUT_MS = 10000, FILE_MAX = 65536 };

bool cli_broker_option(struct cli_broker *b, int option, const char *value)
{
    switch (option) {
    case 'c':
        b->config_file = value;
        return true;
    case 't':
        b->token_file = value;
        return true;
    case 'a':
        b->ca_file = value;
        return true;
    case 'd':
        b->target = value;
        return true;
    default:
        return false;
    }
}

static bool open_with_token(struct cli_broker *b)
{
    struct diag d = { .line = 0 };
    const char *token = getenv("POSTERN_TOKEN"); /* NOLINT(concurrency-mt-unsafe): one thread */
    char line[DIAG_LINE];

    if (b->target == NULL || (b->ca_file == NULL && rpc_unix_path(sv_from(b->target)).n == 0)) {
        (void)cli_fail(2, "with a token, --databroker is needed, too, and --ca-file unless that is "
                          "unix:/path");
        return false;
    }
    if ((b->ca_file != NULL && cli_file_read(b->ca_file, FILE_MAX, &b->ca_pem, &d) != ERR_OK) ||
        (b->token_file != NULL &&
         cli_file_read(b->token_file, FILE_MAX, &b->token, &d) != ERR_OK)) {
        (void)cli_fail(1, "%s", diag_format(&d, line));
        return false;
    }
    if (b->token == NULL) {
        b->token = mem_strdup(token);
    }
    b->token[strcspn(b->token, "\r\n")] = '\0';
    b->opts = (struct rpc_client_opts){
        .target = b->target, .server = RPC_DATABROKER, .ca_pem = b->ca_pem, .token = b->token
    };
    return true;
}

bool cli_broker_open(struct cli_broker *b)
{
    if (b->token_file != NULL ||
        getenv("POSTERN_TOKEN") != NULL) { /* NOLINT(concurrency-mt-unsafe): one thread */
        return open_with_token(b);
    }
    b->config = cli_config(b->config_file);
    if (b->config == NULL) {
        return false;
    }
    b->identity = rpc_identity_new(b->config->keys, RPC_CLI);
    b->opts =
        (struct rpc_client_opts){ .target = b->target != NULL ? b->target
                                                              : b->config->databroker.v[0].text.p,
                                  .server = RPC_DATABROKER,
                                  .identity = b->identity };
    return true;
}

void cli_broker_close(struct cli_broker *b)
{
    rpc_identity_free(&b->identity);
    config_unref(&b->config);
    if (b->token != NULL) {
        secret_wipe(b->token, strlen(b->token));
    }
    mem_free(&b->token);
    mem_free(&b->ca_pem);
}

/* What went wrong, and what to do, in one sentence. */
static void explain(const struct cli_broker *b, enum rpc_status status, const char *text)
{
    if (status == RPC_DEADLINE_EXCEEDED || status == RPC_UNAVAILABLE) {
        (void)cli_fail(1,
                       "the databroker at %s does not answer; is it running, and is the shared "
                       "secret the same?",
                       b->opts.target);
    } else if (status == RPC_UNAUTHENTICATED) {
        (void)cli_fail(1, "the databroker does not accept the token: it is expired or not its own");
    } else if (status == RPC_PERMISSION_DENIED) {
        (void)cli_fail(1, "the token's role may not do that");
    } else {
        (void)cli_fail(1, "the databroker refused: %s", text);
    }
}

ProtobufCMessage *cli_broker_call(const struct cli_broker *b, const char *path,
                                  const ProtobufCMessage *request,
                                  const ProtobufCMessageDescriptor *answer_type, int64_t timeout_ms)
{
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];
    enum rpc_status status =
        rpc_call_wait(&b->opts, path, request, answer_type, timeout_ms, &answer, text);

    if (status != RPC_OK) {
        explain(b, status, text);
        return NULL;
    }
    return answer;
}

Databroker__QueryResponse *cli_broker_query(const struct cli_broker *b, const char *type,
                                            int64_t offset)
{
    Databroker__QueryRequest request = DATABROKER__QUERY_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];
    char name[128];
    enum rpc_status status = RPC_OK;

    (void)snprintf(name, sizeof(name), "%s", type);
    request.type = name;
    request.limit = PAGE;
    request.offset = offset;
    status = rpc_call_wait(&b->opts, "/databroker.DataBrokerService/Query", &request.base,
                           &databroker__query_response__descriptor, TIMEOUT_MS, &answer, text);
    if (status != RPC_OK) {
        explain(b, status, text);
        return NULL;
    }
    return (Databroker__QueryResponse *)(void *)answer;
}

Databroker__GetResponse *cli_broker_get(const struct cli_broker *b, const char *type,
                                        const char *id, enum rpc_status *status_out)
{
    Databroker__GetRequest request = DATABROKER__GET_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];
    char name[128];
    char key[513];

    (void)snprintf(name, sizeof(name), "%s", type);
    (void)snprintf(key, sizeof(key), "%s", id);
    request.type = name;
    request.id = key;
    *status_out = rpc_call_wait(&b->opts, "/databroker.DataBrokerService/Get", &request.base,
                                &databroker__get_response__descriptor, TIMEOUT_MS, &answer, text);
    if (*status_out != RPC_OK && *status_out != RPC_NOT_FOUND) {
        explain(b, *status_out, text);
    }
    return (Databroker__GetResponse *)(void *)answer;
}

bool cli_broker_put(const struct cli_broker *b, Databroker__Record *const *records, size_t n)
{
    Databroker__PutRequest request = DATABROKER__PUT_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];
    enum rpc_status status = RPC_OK;

    request.n_records = n;
    request.records = base_unconst(records); /* only read */
    status = rpc_call_wait(&b->opts, "/databroker.DataBrokerService/Put", &request.base,
                           &databroker__put_response__descriptor, TIMEOUT_MS, &answer, text);
    if (answer != NULL) {
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    if (status != RPC_OK) {
        explain(b, status, text);
    }
    return status == RPC_OK;
}

bool cli_broker_delete(const struct cli_broker *b, Databroker__Record *const *records, size_t n)
{
    Google__Protobuf__Timestamp now = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Databroker__Record *copies = mem_array(n, sizeof(*copies));
    Databroker__Record **list = mem_array(n, sizeof(Databroker__Record *));
    bool fine = false;
    size_t i = 0;

    now.seconds = clock_wall_s();
    for (i = 0; i < n; i++) {
        copies[i] = *records[i]; /* borrowed fields; only the deletion is ours */
        copies[i].deleted_at = &now;
        list[i] = &copies[i];
    }
    fine = cli_broker_put(b, list, n);
    mem_free(&list);
    mem_free(&copies);
    return fine;
}

bool cli_broker_lease(const struct cli_broker *b, const char *name, char id[CLI_BROKER_LEASE_ID],
                      bool *busy_out)
{
    Databroker__AcquireLeaseRequest request = DATABROKER__ACQUIRE_LEASE_REQUEST__INIT;
    Google__Protobuf__Duration life = GOOGLE__PROTOBUF__DURATION__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];

    life.seconds = CLI_BROKER_LEASE_S;
    request.name = base_unconst(name);
    request.duration = &life;
    enum rpc_status status =
        rpc_call_wait(&b->opts, "/databroker.DataBrokerService/AcquireLease", &request.base,
                      &databroker__acquire_lease_response__descriptor, TIMEOUT_MS, &answer, text);

    *busy_out = status == RPC_ALREADY_EXISTS;
    if (status != RPC_OK) {
        if (!*busy_out) {
            explain(b, status, text);
        }
        return false;
    }
    (void)snprintf(id, CLI_BROKER_LEASE_ID, "%s",
                   ((const Databroker__AcquireLeaseResponse *)(const void *)answer)->id);
    protobuf_c_message_free_unpacked(answer, NULL);
    return true;
}

bool cli_broker_lease_keep(const struct cli_broker *b, const char *name, const char *id)
{
    Databroker__RenewLeaseRequest request = DATABROKER__RENEW_LEASE_REQUEST__INIT;
    Google__Protobuf__Duration life = GOOGLE__PROTOBUF__DURATION__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];

    life.seconds = CLI_BROKER_LEASE_S;
    request.name = base_unconst(name);
    request.id = base_unconst(id);
    request.duration = &life;
    enum rpc_status status =
        rpc_call_wait(&b->opts, "/databroker.DataBrokerService/RenewLease", &request.base,
                      &google__protobuf__empty__descriptor, TIMEOUT_MS, &answer, text);

    if (status != RPC_OK) {
        explain(b, status, text);
        return false;
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return true;
}

void cli_broker_lease_end(const struct cli_broker *b, const char *name, const char *id)
{
    Databroker__ReleaseLeaseRequest request = DATABROKER__RELEASE_LEASE_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];

    request.name = base_unconst(name);
    request.id = base_unconst(id);
    /* Where this fails the lease ends by itself. */
    if (rpc_call_wait(&b->opts, "/databroker.DataBrokerService/ReleaseLease", &request.base,
                      &google__protobuf__empty__descriptor, TIMEOUT_MS, &answer, text) == RPC_OK) {
        protobuf_c_message_free_unpacked(answer, NULL);
    }
}
