/* calls: a databroker as its gRPC clients see it: so many writers, each with a session on its way and the
 * next one when that is acknowledged, and one reader who asks for a session, 2 ms after each answer.
 *   SHARED_SECRET=base64 bench-calls SOCKET MS WRITERS
 * Prints {"writes_per_s", "gets", "get_p50_us", "get_p99_us"} as JSON. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "databroker.pb-c.h"
#include "session.pb-c.h"

#include "common/clock.h"
#include "common/crypto/keys.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/client.h"
#include "common/secret.h"

#define SESSION "type.googleapis.com/session.Session"
#define BROKER  "/databroker.DataBrokerService/"

enum {
    WRITERS_MAX = 1024,
    GETS_MAX = 1 << 20,
    GET_EVERY_MS = 2,
    KNOWN = 64, /* sessions that are asked for */
    CALL_MS = 10000,
    TOKEN = 400, /* with names and times a session of some 600 bytes */
    SESSION_MAX = 1024
};

/* Who calls: with a connection and a thread of its own, so that a reader does not wait behind what the
 * writers of the same program have to do. */
struct caller {
    struct rpc *rpc;
    struct rpc_client *client;
    int64_t until_ms; /* 0: until enough sessions are known */
    size_t n_calls;   /* on their way, the next Get included */
    uint64_t written;
    char known[KNOWN][RAND_UUID_SIZE];
    size_t n_known;
    int64_t asked_us;
    size_t n_gets;
    uint32_t gets_us[GETS_MAX];
    sem_t over;
};

static char filling[TOKEN + 1];

static bool is_over(const struct caller *c)
{
    return c->until_ms == 0 ? c->n_known == KNOWN : clock_mono_ms() >= c->until_ms;
}

static void call_over(struct caller *c)
{
    c->n_calls--;
    if (c->n_calls == 0) {
        (void)sem_post(&c->over);
    }
}

static void must(enum rpc_status status, const char *text)
{
    if (status != RPC_OK) {
        (void)fprintf(stderr, "bench-calls: status %d: %s\n", (int)status, text);
        exit(1); /* NOLINT(concurrency-mt-unsafe): nothing of it is worth saving */
    }
}

static void write_next(struct caller *c);

static void on_written(void *arg, enum rpc_status status, const char *text,
                       const ProtobufCMessage *response)
{
    struct caller *c = arg;

    (void)response;
    must(status, text);
    c->written++;
    c->n_known += c->until_ms == 0 ? 1 : 0;
    if (is_over(c)) {
        call_over(c);
    } else {
        write_next(c);
    }
}

static void write_next(struct caller *c)
{
    Session__Session session = SESSION__SESSION__INIT;
    Session__OAuthToken token = SESSION__OAUTH_TOKEN__INIT;
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    Databroker__Record *records[] = { &record };
    Databroker__PutRequest put = DATABROKER__PUT_REQUEST__INIT;
    uint8_t bytes[SESSION_MAX];
    char id[RAND_UUID_SIZE];

    rand_uuid(id);
    if (c->until_ms == 0) {
        memcpy(c->known[c->n_known], id, sizeof(id));
    }
    expires.seconds = clock_wall_ms() / 1000 + 86400;
    token.access_token = filling;
    session.id = id;
    session.user_id = id;
    session.expires_at = &expires;
    session.oauth_token = &token;
    any.type_url = base_unconst(SESSION);
    any.value.data = bytes;
    any.value.len = session__session__pack(&session, bytes);
    record.type = base_unconst(SESSION);
    record.id = id;
    record.data = &any;
    put.records = records;
    put.n_records = 1;
    (void)rpc_client_call(c->client, BROKER "Put", &put.base, &databroker__put_response__descriptor,
                          CALL_MS, on_written, c);
}

static void get_next(void *arg);

static void on_got(void *arg, enum rpc_status status, const char *text,
                   const ProtobufCMessage *response)
{
    struct caller *c = arg;

    (void)response;
    must(status, text);
    c->gets_us[c->n_gets] = (uint32_t)(clock_mono_us() - c->asked_us);
    c->n_gets++;
    rpc_run(c->rpc, GET_EVERY_MS, get_next, c);
}

static void get_next(void *arg)
{
    struct caller *c = arg;
    Databroker__GetRequest get = DATABROKER__GET_REQUEST__INIT;

    if (is_over(c) || c->n_gets == GETS_MAX) {
        call_over(c);
        return;
    }
    get.type = base_unconst(SESSION);
    get.id = c->known[rand_below(c->n_known)];
    c->asked_us = clock_mono_us();
    (void)rpc_client_call(c->client, BROKER "Get", &get.base, &databroker__get_response__descriptor,
                          CALL_MS, on_got, c);
}

static void begin_reading(void *arg)
{
    struct caller *c = arg;

    c->n_calls = 1;
    get_next(c);
}

static void begin_writing(void *arg)
{
    struct caller *c = arg;
    size_t writers = c->n_calls;

    for (size_t i = 0; i < writers; i++) {
        write_next(c);
    }
}

static void wait_for(struct caller *c)
{
    while (sem_wait(&c->over) != 0) {
    }
}

static void caller_init(struct caller *c, const char *target, const struct rpc_identity *identity)
{
    const struct rpc_client_opts opts = { .target = target,
                                          .server = RPC_DATABROKER,
                                          .identity = identity };

    (void)sem_init(&c->over, 0, 0);
    c->rpc = rpc_new(NULL);
    c->client = rpc_client_new(c->rpc, &opts);
}

static void caller_deinit(struct caller *c)
{
    rpc_client_free(&c->client);
    rpc_free(&c->rpc);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void run(struct caller *writer, struct caller *reader, int64_t ms, size_t writers)
{
    int64_t began_ms = 0;

    writer->n_calls = 1;
    rpc_run(writer->rpc, 0, begin_writing, writer);
    wait_for(writer);
    memcpy(reader->known, writer->known, sizeof(writer->known));
    reader->n_known = writer->n_known;
    writer->written = 0;
    began_ms = clock_mono_ms();
    writer->until_ms = began_ms + ms;
    reader->until_ms = began_ms + ms;
    rpc_run(reader->rpc, 0, begin_reading, reader);
    writer->n_calls = writers;
    if (writers > 0) {
        rpc_run(writer->rpc, 0, begin_writing, writer);
        wait_for(writer);
    }
    wait_for(reader);
    CHECK(reader->n_gets > 0);
    qsort(reader->gets_us, reader->n_gets, sizeof(reader->gets_us[0]), by_size);
    (void)printf(
        "{\"writes_per_s\": %.0f, \"gets\": %zu, \"get_p50_us\": %u, \"get_p99_us\": %u}\n",
        (double)writer->written * 1000 / (double)ms, reader->n_gets,
        reader->gets_us[reader->n_gets / 2], reader->gets_us[reader->n_gets * 99 / 100]);
}

int main(int argc, char **argv)
{
    static struct caller writer;
    static struct caller reader;
    const char *text = getenv("SHARED_SECRET"); /* NOLINT(concurrency-mt-unsafe): one thread */
    struct secret *secret = NULL;
    const struct secret *secrets[1];
    struct keys *keys = NULL;
    uint64_t ms = 0;
    uint64_t writers = 0;

    if (argc != 4 || sv_u64(sv_from(argv[2]), 3600000, &ms) != ERR_OK || ms == 0 ||
        sv_u64(sv_from(argv[3]), WRITERS_MAX, &writers) != ERR_OK || text == NULL ||
        secret_from_b64(sv_from(text), &secret) != ERR_OK) {
        (void)fputs("usage: SHARED_SECRET=base64 bench-calls SOCKET MS WRITERS\n", stderr);
        return 2;
    }
    secrets[0] = secret;
    CHECK(keys_new(secrets, 1, &keys) == ERR_OK);
    struct rpc_identity *identity = rpc_identity_new(keys, RPC_AUTHENTICATE);

    memset(filling, 'x', TOKEN);
    caller_init(&writer, argv[1], identity);
    caller_init(&reader, argv[1], identity);
    run(&writer, &reader, (int64_t)ms, (size_t)writers);
    caller_deinit(&writer);
    caller_deinit(&reader);
    rpc_identity_free(&identity);
    keys_free(&keys);
    secret_free(&secret);
    return 0;
}
