/* follow: how far behind the followers of a databroker are. Sessions are put one after the other at a steady
 * rate while FOLLOWERS streams of Sync, each with a connection of its own, are told of them.
 *   SHARED_SECRET=base64 bench-follow SOCKET COUNT FOLLOWERS
 * Prints {"writes_per_s", "lag_p50_us", "lag_p99_us"} as JSON: from the acknowledgement of a write until the
 * last of them has it; 0 where that was before. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "databroker.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/rand.h"
#include "test/bench/session.h"

enum { COUNT_MAX = 1000000, FOLLOWERS_MAX = 100, EVERY_MS = 2, CALL_MS = 10000 };

struct trial {
    struct bench_client *writer;
    uint64_t server_version;
    uint64_t base; /* the version before the first write */
    size_t count;
    size_t put;
    size_t acked;
    int64_t *acked_us; /* by version - base - 1 */
    int64_t began_us;
    int64_t ended_us;
    sem_t over;
};

struct follower {
    const struct trial *trial;
    struct bench_client *client;
    struct rpc_pending *stream;
    size_t n_seen;
    int64_t *seen_us; /* as acked_us */
    sem_t over;
};

static void wait_for(sem_t *over)
{
    while (sem_wait(over) != 0) {
    }
}

static size_t place_of(const struct trial *t, uint64_t version)
{
    CHECK(version > t->base && version - t->base <= t->count);
    return (size_t)(version - t->base - 1);
}

/* ---- followers ------------------------------------------------------------------------------- */

static void on_message(void *arg, struct sv bytes)
{
    struct follower *f = arg;
    Databroker__SyncResponse *response =
        databroker__sync_response__unpack(NULL, bytes.n, (const uint8_t *)bytes.p);

    CHECK(response != NULL);
    if (response->response_case == DATABROKER__SYNC_RESPONSE__RESPONSE_RECORD) {
        f->seen_us[place_of(f->trial, response->record->version)] = clock_mono_us();
        f->n_seen++;
        if (f->n_seen == f->trial->count) {
            (void)sem_post(&f->over);
        }
    }
    databroker__sync_response__free_unpacked(response, NULL);
}

static void on_end(void *arg, enum rpc_status status, const char *text)
{
    (void)arg;
    bench_must(status == RPC_OK ? RPC_UNKNOWN : status, text);
}

static void follow(void *arg)
{
    static const struct rpc_follow_ops ops = { .on_message = on_message, .on_end = on_end };
    struct follower *f = arg;
    Databroker__SyncRequest sync = DATABROKER__SYNC_REQUEST__INIT;

    sync.server_version = f->trial->server_version;
    sync.record_version = f->trial->base;
    sync.type = base_unconst(BENCH_SESSION);
    f->stream =
        rpc_client_follow(bench_client_calls(f->client), BENCH_BROKER "Sync", &sync.base, &ops, f);
}

static void leave(void *arg)
{
    struct follower *f = arg;

    rpc_pending_cancel(&f->stream);
    (void)sem_post(&f->over);
}

/* ---- the writer ------------------------------------------------------------------------------ */

static void on_info(void *arg, enum rpc_status status, const char *text,
                    const ProtobufCMessage *response)
{
    const Databroker__ServerInfoResponse *info = (const Databroker__ServerInfoResponse *)response;
    struct trial *t = arg;

    bench_must(status, text);
    t->server_version = info->server_version;
    t->base = info->latest_record_version;
    (void)sem_post(&t->over);
}

static void ask(void *arg)
{
    struct trial *t = arg;
    Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    (void)rpc_client_call(bench_client_calls(t->writer), BENCH_BROKER "ServerInfo", &empty.base,
                          &databroker__server_info_response__descriptor, CALL_MS, on_info, t);
}

static void on_put(void *arg, enum rpc_status status, const char *text,
                   const ProtobufCMessage *response)
{
    const Databroker__PutResponse *put = (const Databroker__PutResponse *)response;
    struct trial *t = arg;

    bench_must(status, text);
    CHECK(put->n_records == 1);
    t->acked_us[place_of(t, put->records[0]->version)] = clock_mono_us();
    t->acked++;
    if (t->acked == t->count) {
        t->ended_us = clock_mono_us();
        (void)sem_post(&t->over);
    }
}

static void put_next(void *arg)
{
    struct trial *t = arg;
    char id[RAND_UUID_SIZE];

    rand_uuid(id);
    bench_session_put(t->writer, id, on_put, t);
    t->put++;
    if (t->put < t->count) {
        rpc_run(bench_client_rpc(t->writer), EVERY_MS, put_next, t);
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void tell(const struct trial *t, const struct follower *followers, size_t n)
{
    int64_t *lag_us = mem_array(t->count, sizeof(*lag_us));

    for (size_t i = 0; i < t->count; i++) {
        for (size_t f = 0; f < n; f++) {
            lag_us[i] = MAX(lag_us[i], followers[f].seen_us[i] - t->acked_us[i]);
        }
    }
    qsort(lag_us, t->count, sizeof(*lag_us), by_size);
    (void)printf("{\"writes_per_s\": %.0f, \"lag_p50_us\": %lld, \"lag_p99_us\": %lld}\n",
                 (double)t->count * 1e6 / (double)(t->ended_us - t->began_us),
                 (long long)lag_us[t->count / 2], (long long)lag_us[t->count * 99 / 100]);
    mem_free(&lag_us);
}

static void run(struct trial *t, struct follower *followers, size_t n, const char *target)
{
    (void)sem_init(&t->over, 0, 0);
    t->writer = bench_client_new(target);
    t->acked_us = mem_array(t->count, sizeof(*t->acked_us));
    rpc_run(bench_client_rpc(t->writer), 0, ask, t);
    wait_for(&t->over);
    for (size_t i = 0; i < n; i++) {
        struct follower *f = &followers[i];

        *f = (struct follower){ .trial = t, .client = bench_client_new(target) };
        f->seen_us = mem_array(t->count, sizeof(*f->seen_us));
        (void)sem_init(&f->over, 0, 0);
        rpc_run(bench_client_rpc(f->client), 0, follow, f);
    }
    t->began_us = clock_mono_us();
    rpc_run(bench_client_rpc(t->writer), 0, put_next, t);
    wait_for(&t->over);
    for (size_t i = 0; i < n; i++) {
        wait_for(&followers[i].over);
    }
    tell(t, followers, n);
    for (size_t i = 0; i < n; i++) {
        rpc_run(bench_client_rpc(followers[i].client), 0, leave, &followers[i]);
        wait_for(&followers[i].over);
        bench_client_free(&followers[i].client);
        mem_free(&followers[i].seen_us);
    }
    bench_client_free(&t->writer);
    mem_free(&t->acked_us);
}

int main(int argc, char **argv)
{
    static struct follower followers[FOLLOWERS_MAX];
    struct trial t = { .put = 0 };
    uint64_t count = 0;
    uint64_t n = 0;

    if (argc != 4 || sv_u64(sv_from(argv[2]), COUNT_MAX, &count) != ERR_OK || count == 0 ||
        sv_u64(sv_from(argv[3]), FOLLOWERS_MAX, &n) != ERR_OK) {
        (void)fputs("usage: SHARED_SECRET=base64 bench-follow SOCKET COUNT FOLLOWERS\n", stderr);
        return 2;
    }
    t.count = (size_t)count;
    run(&t, followers, (size_t)n, argv[1]);
    return 0;
}
