/* store_pg: what several databrokers on one PostgreSQL server promise each other, and what a server that
 * dies does to what was acknowledged. What every store promises is in store_test.c. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "databroker/store.h"
#include "test/support/cmocka.h"
#include "test/support/postgres.h"

enum { LONG_MS = 60000, STORES = 3 };

static const struct broker_store_ops *const ops = &broker_store_pg;
static struct postgres pg;

static int64_t soon(void)
{
    return clock_mono_ms() + LONG_MS;
}

struct heard {
    int commits;     /* atomic */
    int options;     /* atomic */
    uint64_t wanted; /* atomic */
};

static void on_commit(void *arg)
{
    (void)__atomic_add_fetch(&((struct heard *)arg)->commits, 1, __ATOMIC_SEQ_CST);
}

static void on_options(void *arg)
{
    (void)__atomic_add_fetch(&((struct heard *)arg)->options, 1, __ATOMIC_SEQ_CST);
}

static void on_wanted(void *arg, uint64_t version)
{
    __atomic_store_n(&((struct heard *)arg)->wanted, version, __ATOMIC_SEQ_CST);
}

static struct broker_store *open_one(struct heard *heard)
{
    struct broker_store_opts opts = { .target = pg.target };
    struct broker_store *store = NULL;
    struct diag d = { .text = "" };

    if (heard != NULL) {
        opts.on_commit = on_commit;
        opts.on_options = on_options;
        opts.on_wanted = on_wanted;
        opts.arg = heard;
    }
    if (ops->open(&opts, &store, &d) != ERR_OK) {
        fail_msg("%s", d.text);
    }
    return store;
}

static int empty_database(void **state)
{
    (void)state;
    postgres_sql(&pg, "DROP SCHEMA IF EXISTS postern CASCADE");
    return 0;
}

static enum err put(struct broker_store *store, const char *id, const char *data,
                    uint64_t if_version, uint64_t *version_out)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_record record = { .type = SV("a"),
                                    .id = sv_from(id),
                                    .data_type = SV("t"),
                                    .data = sv_from(data),
                                    .if_version = if_version };
    struct broker_write w = { .kind = BROKER_WRITE_PUT, .records = &list };
    enum err err = ERR_OK;

    broker_records_init(&list);
    broker_records_add(&list, &record);
    err = broker_store_write(ops, store, &w);
    if (version_out != NULL) {
        *version_out = list.items[0].version;
    }
    return err;
}

/* The number that record id holds, and its version; what is not there is 0. */
static uint64_t number_of(struct broker_store *store, const char *id, uint64_t *version_out)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    uint64_t n = 0;

    broker_records_init(&out);
    assert_int_equal(ops->get(store, SV("a"), sv_from(id), soon(), &out), ERR_OK);
    assert_int_equal(sv_u64(out.items[0].data, UINT64_MAX, &n), ERR_OK);
    *version_out = out.items[0].version;
    return n;
}

static struct broker_info info(struct broker_store *store)
{
    struct broker_info i = { 0 };

    assert_int_equal(ops->info(store, soon(), &i), ERR_OK);
    return i;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void *open_in_thread(void *arg)
{
    *(struct broker_store **)arg = open_one(NULL);
    return NULL;
}

static void many_may_open_an_empty_database_at_once(void **state)
{
    struct broker_store *stores[STORES] = { NULL };
    pthread_t threads[STORES];
    uint64_t server = 0;
    size_t i = 0;

    (void)state;
    for (i = 0; i < STORES; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, open_in_thread, &stores[i]), 0);
    }
    for (i = 0; i < STORES; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_non_null(stores[i]);
        server = i == 0 ? info(stores[0]).server_version : server;
        assert_int_equal(info(stores[i]).server_version, server);
    }
    for (i = 0; i < STORES; i++) {
        ops->close(&stores[i]);
    }
}

static void what_cannot_be_opened_is_said_without_secrets(void **state)
{
    static const struct {
        const char *target;
        enum err err;
        const char *says;
    } cases[] = {
        { "postgres://x:hunter2@/var/lib?nonsense=hunter2", ERR_INVALID, "connection string" },
        { "hunter2", ERR_INVALID, "connection string" },
        { "host=/nowhere hunter2", ERR_INVALID, "connection string" },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(cases); i++) {
        struct broker_store_opts opts = { .target = cases[i].target };
        struct broker_store *store = NULL;
        struct diag d = { .text = "" };

        assert_int_equal(ops->open(&opts, &store, &d), cases[i].err);
        assert_null(store);
        assert_non_null(strstr(d.text, cases[i].says));
        assert_null(strstr(d.text, "hunter2"));
    }
}

static void a_newer_schema_is_refused(void **state)
{
    struct broker_store_opts opts = { .target = pg.target };
    struct broker_store *store = open_one(NULL);
    struct diag d = { .text = "" };

    (void)state;
    ops->close(&store);
    postgres_sql(&pg, "UPDATE postern.store SET schema = 99");
    assert_int_equal(ops->open(&opts, &store, &d), ERR_UNSUPPORTED);
    assert_non_null(strstr(d.text, "start the newer version"));
}

static void another_past_means_another_server_version(void **state)
{
    struct broker_store *store = open_one(NULL);
    struct broker_info before = info(store);

    (void)state;
    ops->close(&store);
    store = open_one(NULL);
    assert_int_equal(info(store).server_version, before.server_version);
    assert_int_equal(put(store, "1", "1", 0, NULL), ERR_OK);
    ops->close(&store);
    postgres_sql(&pg, "UPDATE postern.store SET history = 'of another server'");
    store = open_one(NULL);
    assert_int_not_equal(info(store).server_version, before.server_version);
    assert_int_equal(info(store).latest_version, 1);
    ops->close(&store);
}

/* ---- several databrokers --------------------------------------------------------------------- */

enum { COUNTERS = 3, ROUNDS = 60, THREADS = 2 * STORES };

struct counting {
    struct broker_store *store;
    int wrong;
};

/* Adds one to each counter ROUNDS times, as a Patch does. */
static void *count(void *arg)
{
    struct counting *c = arg;
    int round = 0;

    for (round = 0; round < ROUNDS * COUNTERS; round++) {
        char id[2] = { (char)('0' + round % COUNTERS), '\0' };
        enum err err = ERR_ABORTED;

        while (err == ERR_ABORTED) {
            char text[32];
            uint64_t version = 0;
            uint64_t n = number_of(c->store, id, &version);

            (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)n + 1);
            err = put(c->store, id, text, version, NULL);
        }
        c->wrong += err == ERR_OK ? 0 : 1;
    }
    return NULL;
}

/* Reads the log from the beginning: every version up to the last is there, in order. */
static uint64_t check_log(struct broker_store *store)
{
    struct broker_info i = info(store);
    uint64_t after = 0;

    while (after < i.latest_version) {
        CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
        size_t k = 0;

        broker_records_init(&out);
        assert_int_equal(ops->changes(store, i.server_version, after, SV(""), soon(), &out),
                         ERR_OK);
        assert_true(out.count > 0);
        for (k = 0; k < out.count; k++) {
            assert_int_equal(out.items[k].version, after + k + 1);
        }
        after = out.position;
    }
    return after;
}

static void databrokers_lose_no_update_of_each_other(void **state)
{
    struct broker_store *stores[STORES];
    struct counting counting[THREADS];
    pthread_t threads[THREADS];
    uint64_t version = 0;
    size_t i = 0;

    (void)state;
    for (i = 0; i < STORES; i++) {
        stores[i] = open_one(NULL);
    }
    for (i = 0; i < COUNTERS; i++) {
        assert_int_equal(put(stores[0], (char[2]){ (char)('0' + i), '\0' }, "0", 0, NULL), ERR_OK);
    }
    for (i = 0; i < THREADS; i++) {
        counting[i] = (struct counting){ .store = stores[i % STORES] };
        assert_int_equal(pthread_create(&threads[i], NULL, count, &counting[i]), 0);
    }
    for (i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(counting[i].wrong, 0);
    }
    for (i = 0; i < COUNTERS; i++) {
        assert_int_equal(number_of(stores[1], (char[2]){ (char)('0' + i), '\0' }, &version),
                         THREADS * ROUNDS);
    }
    assert_int_equal(check_log(stores[2]), COUNTERS + COUNTERS * THREADS * ROUNDS);
    for (i = 0; i < STORES; i++) {
        ops->close(&stores[i]);
    }
}

struct racer {
    struct broker_store *store;
    const char *name;
    int got;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct broker_write w = { .kind = BROKER_WRITE_LEASE_ACQUIRE,
                              .lease_name = sv_from(r->name),
                              .lease_ms = 60000 };

    r->got = broker_store_write(ops, r->store, &w) == ERR_OK ? 1 : 0;
    return NULL;
}

static void a_lease_has_one_holder_over_all_databrokers(void **state)
{
    struct broker_store *stores[STORES];
    int round = 0;
    size_t i = 0;

    (void)state;
    for (i = 0; i < STORES; i++) {
        stores[i] = open_one(NULL);
    }
    for (round = 0; round < 30; round++) {
        struct racer racers[THREADS];
        pthread_t threads[THREADS];
        char name[16];
        int got = 0;

        (void)snprintf(name, sizeof(name), "lease %d", round);
        for (i = 0; i < THREADS; i++) {
            racers[i] = (struct racer){ .store = stores[i % STORES], .name = name };
            assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
        }
        for (i = 0; i < THREADS; i++) {
            (void)pthread_join(threads[i], NULL);
            got += racers[i].got;
        }
        assert_int_equal(got, 1);
    }
    for (i = 0; i < STORES; i++) {
        ops->close(&stores[i]);
    }
}

static void wait_until(const int *counter, int more_than)
{
    int64_t until_ms = soon();

    while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) <= more_than) {
        assert_true(clock_mono_ms() < until_ms);
        (void)usleep(1000);
    }
}

static void a_databroker_hears_of_what_another_writes(void **state)
{
    struct heard heard = { 0 };
    struct broker_store *here = open_one(&heard);
    struct broker_store *there = open_one(NULL);
    struct broker_write options = { .kind = BROKER_WRITE_OPTIONS,
                                    .options = { .type = SV("a"), .bytes = SV("b") } };
    int before = 0;

    (void)state;
    assert_int_equal(put(there, "1", "1", 0, NULL), ERR_OK);
    wait_until(&heard.commits, 0);
    assert_int_equal(heard.options, 0);
    assert_int_equal(broker_store_write(ops, there, &options), ERR_OK);
    wait_until(&heard.options, 0);
    /* also when nobody notifies, and when the one who listens is cut off */
    before = __atomic_load_n(&heard.commits, __ATOMIC_SEQ_CST);
    postgres_sql(&pg, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                      "WHERE usename = 'postern'");
    postgres_sql(&pg, "UPDATE postern.store SET latest_version = latest_version + 1");
    wait_until(&heard.commits, before);
    assert_int_equal(put(here, "2", "2", 0, NULL), ERR_OK); /* it did not hurt */
    assert_int_equal(put(there, "3", "3", 0, NULL), ERR_OK);
    ops->close(&here);
    ops->close(&there);
}

/* ---- a server that dies ---------------------------------------------------------------------- */

enum { DEATHS = 20, LIFE_US_MAX = 300000, WRITERS = 8 };

struct writing {
    struct broker_store *store;
    int number;
    uint64_t next;         /* the id that is tried next */
    uint64_t acknowledged; /* how many were */
    uint64_t *versions;    /* by id; 0: not acknowledged */
    int *stop;             /* atomic */
};

enum { IDS_MAX = 200000 };

static void *write_on(void *arg)
{
    struct writing *w = arg;

    while (!__atomic_load_n(w->stop, __ATOMIC_SEQ_CST) && w->next < IDS_MAX) {
        char id[32];
        uint64_t version = 0;

        (void)snprintf(id, sizeof(id), "%d-%llu", w->number, (unsigned long long)w->next);
        if (put(w->store, id, "x", 0, &version) == ERR_OK) {
            w->versions[w->next] = version;
            w->acknowledged++;
        } else {
            (void)usleep(2000); /* refused at once while the server is away */
        }
        w->next++;
    }
    return NULL;
}

static void put_soon(struct broker_store *store, const char *id)
{
    int64_t until_ms = soon();

    while (put(store, id, "x", 0, NULL) != ERR_OK) {
        assert_true(clock_mono_ms() < until_ms);
        (void)usleep(10000);
    }
}

/* Every acknowledged write is in the log with its version, and no write is there twice. */
static void check_writes(struct broker_store *store, struct writing *writing)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    struct broker_info i = info(store);
    uint64_t after = 0;

    while (after < i.latest_version) {
        size_t k = 0;

        broker_records_deinit(&out);
        broker_records_init(&out);
        assert_int_equal(ops->changes(store, i.server_version, after, SV(""), soon(), &out),
                         ERR_OK);
        for (k = 0; k < out.count; k++) {
            struct sv id = out.items[k].id;
            struct writing *w = &writing[id.p[0] - '0'];
            uint64_t n = 0;

            assert_int_equal(out.items[k].version, after + k + 1);
            assert_int_equal(sv_u64(sv_from_at(id, 2), IDS_MAX, &n), ERR_OK);
            assert_true(w->versions[n] == 0 || w->versions[n] == out.items[k].version);
            assert_int_not_equal(w->versions[n], UINT64_MAX); /* it was seen before */
            w->acknowledged -= w->versions[n] != 0 ? 1 : 0;
            w->versions[n] = UINT64_MAX;
        }
        after = out.position;
    }
}

static void a_server_that_dies_loses_nothing_acknowledged(void **state)
{
    struct broker_store *stores[2] = { open_one(NULL), open_one(NULL) };
    struct writing writing[WRITERS];
    pthread_t threads[WRITERS];
    uint64_t acknowledged = 0;
    int stop = 0;
    int i = 0;

    (void)state;
    for (i = 0; i < WRITERS; i++) {
        writing[i] = (struct writing){ .store = stores[i % 2], .number = i, .stop = &stop };
        writing[i].versions = test_calloc(IDS_MAX, sizeof(uint64_t));
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writing[i]), 0);
    }
    for (i = 0; i < DEATHS; i++) {
        (void)usleep((useconds_t)(50000 + rand_below(LIFE_US_MAX)));
        postgres_signal(&pg, i % 2 == 0 ? SIGKILL : SIGQUIT);
        postgres_wait(&pg);
        postgres_restart(&pg);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < WRITERS; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_true(writing[i].next < IDS_MAX);
        acknowledged += writing[i].acknowledged;
    }
    put_soon(stores[0], "0-199999"); /* both come back by themselves */
    put_soon(stores[1], "1-199999");
    check_writes(stores[0], writing);
    for (i = 0; i < WRITERS; i++) {
        assert_int_equal(writing[i].acknowledged, 0);
        test_free(writing[i].versions);
    }
    print_message("%d deaths, %llu acknowledged writes\n", DEATHS,
                  (unsigned long long)acknowledged);
    assert_true(acknowledged > DEATHS);
    ops->close(&stores[0]);
    ops->close(&stores[1]);
}

/* ---- how far the replicas of others are ------------------------------------------------------ */

static void tell(struct broker_store *store, uint64_t confirmed)
{
    struct broker_write w = { .kind = BROKER_WRITE_CONFIRMED, .confirmed = confirmed };

    assert_int_equal(broker_store_write(ops, store, &w), ERR_OK);
}

static struct broker_peers peers(struct broker_store *store)
{
    struct broker_peers p = { .count = 0 };

    assert_int_equal(ops->peers(store, soon(), &p), ERR_OK);
    return p;
}

static void databrokers_tell_each_other_how_far_their_replicas_are(void **state)
{
    struct broker_store *stores[STORES] = { open_one(NULL), open_one(NULL), open_one(NULL) };
    char slowest[RAND_UUID_SIZE];
    uint64_t before = info(stores[0]).latest_version;

    (void)state;
    assert_int_equal(peers(stores[0]).count, 0); /* none has written yet */
    assert_true(peers(stores[0]).confirmed == UINT64_MAX);
    tell(stores[1], 7);
    tell(stores[2], 5);
    tell(stores[0], 1); /* of itself nobody waits */
    assert_int_equal(peers(stores[0]).count, 2);
    assert_int_equal(peers(stores[0]).confirmed, 5);
    (void)snprintf(slowest, sizeof(slowest), "%s", peers(stores[0]).last);
    tell(stores[2], UINT64_MAX);
    assert_int_equal(peers(stores[0]).confirmed, 7);
    assert_string_not_equal(peers(stores[0]).last, slowest);
    tell(stores[1], UINT64_MAX);
    assert_true(peers(stores[0]).confirmed == UINT64_MAX);
    assert_int_equal(peers(stores[2]).confirmed, 1);
    assert_int_equal(info(stores[0]).latest_version, before); /* no follower hears of it */
    for (size_t i = 0; i < STORES; i++) {
        ops->close(&stores[i]);
    }
}

static void wait_until_wanted(const struct heard *heard, uint64_t version)
{
    int64_t until_ms = soon();

    while (__atomic_load_n(&heard->wanted, __ATOMIC_SEQ_CST) != version) {
        assert_true(clock_mono_ms() < until_ms);
        (void)usleep(2000);
    }
}

static void who_deletes_waits_and_the_others_hear_for_what(void **state)
{
    CLEANUP(broker_records_deinit) struct broker_records gone = { .items = NULL };
    const struct broker_record record = { .type = SV("a"), .id = SV("1"), .deleted_us = 1 };
    struct heard heard = { 0 };
    struct heard late_heard = { 0 };
    struct broker_store *here = open_one(NULL);
    struct broker_store *there = open_one(&heard);
    struct broker_store *late = NULL;
    struct broker_write delete = { .kind = BROKER_WRITE_PUT, .records = &gone };
    struct broker_write want = { .kind = BROKER_WRITE_CONFIRMED, .confirmed = 1, .wanted = 9 };

    (void)state;
    assert_int_equal(put(here, "1", "1", 0, NULL), ERR_OK);
    broker_records_init(&gone);
    broker_records_add(&gone, &record);
    assert_int_equal(broker_store_write(ops, here, &delete), ERR_OK);
    wait_until_wanted(&heard, gone.items[0].version);
    late = open_one(&late_heard);
    wait_until_wanted(&late_heard, gone.items[0].version);
    assert_int_equal(broker_store_write(ops, here, &want), ERR_OK);
    wait_until_wanted(&heard, 9);
    wait_until_wanted(&late_heard, 9);
    ops->close(&here);
    ops->close(&there);
    ops->close(&late);
}

static void a_databroker_that_writes_no_more_is_not_waited_for(void **state)
{
    struct broker_store *here = open_one(NULL);
    struct broker_store *there = open_one(NULL);
    struct broker_write probe = { .kind = BROKER_WRITE_PROBE };

    (void)state;
    tell(there, 3);
    postgres_sql(&pg, "UPDATE postern.writers SET seen_us = seen_us - 11000000");
    assert_int_equal(peers(here).count, 0);
    assert_int_equal(broker_store_write(ops, there, &probe), ERR_OK);
    assert_int_equal(peers(here).count, 1);
    assert_int_equal(peers(here).confirmed, 3);
    ops->close(&here);
    ops->close(&there);
}

/* As the version before left it: its databroker may still run. */
static void an_older_databroker_holds_up_nobody(void **state)
{
    struct broker_store *store = open_one(NULL);

    (void)state;
    ops->close(&store);
    postgres_sql(&pg, "ALTER TABLE postern.writers DROP COLUMN confirmed");
    postgres_sql(&pg, "ALTER TABLE postern.store DROP COLUMN wanted");
    postgres_sql(&pg, "UPDATE postern.store SET schema = 1");
    postgres_sql(&pg, "INSERT INTO postern.writers (id, number, seen_us) VALUES ('older', 1, "
                      "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint)");
    store = open_one(NULL);
    assert_int_equal(peers(store).count, 1);
    assert_true(peers(store).confirmed == UINT64_MAX);
    tell(store, 9);
    ops->close(&store);
}

static int start_server(void **state)
{
    (void)state;
    postgres_start(&pg);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    postgres_stop(&pg);
    return 0;
}

#define ON_EMPTY(test) cmocka_unit_test_setup(test, empty_database)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EMPTY(many_may_open_an_empty_database_at_once),
        ON_EMPTY(what_cannot_be_opened_is_said_without_secrets),
        ON_EMPTY(a_newer_schema_is_refused),
        ON_EMPTY(another_past_means_another_server_version),
        ON_EMPTY(databrokers_lose_no_update_of_each_other),
        ON_EMPTY(a_lease_has_one_holder_over_all_databrokers),
        ON_EMPTY(a_databroker_hears_of_what_another_writes),
        ON_EMPTY(databrokers_tell_each_other_how_far_their_replicas_are),
        ON_EMPTY(who_deletes_waits_and_the_others_hear_for_what),
        ON_EMPTY(a_databroker_that_writes_no_more_is_not_waited_for),
        ON_EMPTY(an_older_databroker_holds_up_nobody),
        ON_EMPTY(a_server_that_dies_loses_nothing_acknowledged),
    };

    return cmocka_run_group_tests(tests, start_server, stop_server);
}
