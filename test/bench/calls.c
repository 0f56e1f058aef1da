/* calls: a databroker as its gRPC clients see it: so many writers, each with a session on its way and the
 * next one when that is acknowledged, and one reader who asks for a session, 2 ms after each answer.
 *   SHARED_SECRET=base64 bench-calls SOCKET MS WRITERS
 * Prints {"writes_per_s", "gets", "get_p50_us", "get_p99_us"} as JSON. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "databroker.pb-c.h"

#include "common/clock.h"
#include "common/rand.h"
#include "test/bench/session.h"

enum {
    WRITERS_MAX = 1024,
    GETS_MAX = 1 << 20,
    GET_EVERY_MS = 2,
    KNOWN = 64, /* sessions that are asked for */
    CALL_MS = 10000
};

/* Who calls: with a connection and a thread of its own, so that a reader does not wait behind what the
 * writers of the same program have to do. */
struct caller {
    struct bench_client *client;
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

static void write_next(struct caller *c);

static void on_written(void *arg, enum rpc_status status, const char *text,
                       const ProtobufCMessage *response)
{
    struct caller *c = arg;

    (void)response;
    bench_must(status, text);
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
    char id[RAND_UUID_SIZE];

    rand_uuid(id);
    if (c->until_ms == 0) {
        memcpy(c->known[c->n_known], id, sizeof(id));
    }
    bench_session_put(c->client, id, on_written, c);
}

static void get_next(void *arg);

static void on_got(void *arg, enum rpc_status status, const char *text,
                   const ProtobufCMessage *response)
{
    struct caller *c = arg;

    (void)response;
    bench_must(status, text);
    c->gets_us[c->n_gets] = (uint32_t)(clock_mono_us() - c->asked_us);
    c->n_gets++;
    rpc_run(bench_client_rpc(c->client), GET_EVERY_MS, get_next, c);
}

static void get_next(void *arg)
{
    struct caller *c = arg;
    Databroker__GetRequest get = DATABROKER__GET_REQUEST__INIT;

    if (is_over(c) || c->n_gets == GETS_MAX) {
        call_over(c);
        return;
    }
    get.type = base_unconst(BENCH_SESSION);
    get.id = c->known[rand_below(c->n_known)];
    c->asked_us = clock_mono_us();
    (void)rpc_client_call(bench_client_calls(c->client), BENCH_BROKER "Get", &get.base,
                          &databroker__get_response__descriptor, CALL_MS, on_got, c);
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

static void caller_init(struct caller *c, const char *target)
{
    (void)sem_init(&c->over, 0, 0);
    c->client = bench_client_new(target);
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
    rpc_run(bench_client_rpc(writer->client), 0, begin_writing, writer);
    wait_for(writer);
    memcpy(reader->known, writer->known, sizeof(writer->known));
    reader->n_known = writer->n_known;
    writer->written = 0;
    began_ms = clock_mono_ms();
    writer->until_ms = began_ms + ms;
    reader->until_ms = began_ms + ms;
    rpc_run(bench_client_rpc(reader->client), 0, begin_reading, reader);
    writer->n_calls = writers;
    if (writers > 0) {
        rpc_run(bench_client_rpc(writer->client), 0, begin_writing, writer);
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
    uint64_t ms = 0;
    uint64_t writers = 0;

    if (argc != 4 || sv_u64(sv_from(argv[2]), 3600000, &ms) != ERR_OK || ms == 0 ||
        sv_u64(sv_from(argv[3]), WRITERS_MAX, &writers) != ERR_OK) {
        (void)fputs("usage: SHARED_SECRET=base64 bench-calls SOCKET MS WRITERS\n", stderr);
        return 2;
    }
    caller_init(&writer, argv[1]);
    caller_init(&reader, argv[1]);
    run(&writer, &reader, (int64_t)ms, (size_t)writers);
    bench_client_free(&writer.client);
    bench_client_free(&reader.client);
    return 0;
}
