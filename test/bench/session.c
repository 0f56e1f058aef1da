#include "test/bench/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "databroker.pb-c.h"
#include "session.pb-c.h"

#include "common/clock.h"
#include "common/crypto/keys.h"
#include "common/mem.h"
#include "common/secret.h"

enum {
    CALL_MS = 10000,
    TOKEN = 400, /* with names and times a session of some 600 bytes */
    SESSION_MAX = 1024
};

struct bench_client {
    struct secret *secret;
    struct keys *keys;
    struct rpc_identity *identity;
    struct rpc *rpc;
    struct rpc_client *calls;
};

void bench_must(enum rpc_status status, const char *text)
{
    if (status != RPC_OK) {
        (void)fprintf(stderr, "status %d: %s\n", (int)status, text);
        exit(1); /* NOLINT(concurrency-mt-unsafe): nothing of it is worth saving */
    }
}

struct bench_client *bench_client_new(const char *target)
{
    const char *text = getenv("SHARED_SECRET"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    struct bench_client *c = MEM_NEW(struct bench_client);
    const struct secret *secrets[1];

    if (text == NULL || secret_from_b64(sv_from(text), &c->secret) != ERR_OK) {
        bench_must(RPC_UNAUTHENTICATED, "SHARED_SECRET must be base64 of 32 bytes");
    }
    secrets[0] = c->secret;
    CHECK(keys_new(secrets, 1, &c->keys) == ERR_OK);
    c->identity = rpc_identity_new(c->keys, RPC_AUTHENTICATE);
    c->rpc = rpc_new(NULL);
    c->calls = rpc_client_new(c->rpc, &(struct rpc_client_opts){ .target = target,
                                                                 .server = RPC_DATABROKER,
                                                                 .identity = c->identity });
    return c;
}

void bench_client_free(struct bench_client **client)
{
    struct bench_client *c = TAKE(*client);

    rpc_client_free(&c->calls);
    rpc_free(&c->rpc);
    rpc_identity_free(&c->identity);
    keys_free(&c->keys);
    secret_free(&c->secret);
    mem_free(&c);
}

struct rpc *bench_client_rpc(const struct bench_client *client)
{
    return client->rpc;
}

struct rpc_client *bench_client_calls(const struct bench_client *client)
{
    return client->calls;
}

void bench_session_put(const struct bench_client *client, const char *id, rpc_done_fn done,
                       void *arg)
{
    Session__Session session = SESSION__SESSION__INIT;
    Session__OAuthToken token = SESSION__OAUTH_TOKEN__INIT;
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    Databroker__Record *records[] = { &record };
    Databroker__PutRequest put = DATABROKER__PUT_REQUEST__INIT;
    char filling[TOKEN + 1] = "";
    uint8_t bytes[SESSION_MAX];

    memset(filling, 'x', TOKEN);
    expires.seconds = clock_wall_ms() / 1000 + 86400;
    token.access_token = filling;
    session.id = base_unconst(id);
    session.user_id = base_unconst(id);
    session.expires_at = &expires;
    session.oauth_token = &token;
    any.type_url = base_unconst(BENCH_SESSION);
    any.value.data = bytes;
    any.value.len = session__session__pack(&session, bytes);
    record.type = base_unconst(BENCH_SESSION);
    record.id = base_unconst(id);
    record.data = &any;
    put.records = records;
    put.n_records = 1;
    (void)rpc_client_call(client->calls, BENCH_BROKER "Put", &put.base,
                          &databroker__put_response__descriptor, CALL_MS, done, arg);
}
