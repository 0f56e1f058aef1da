/* sweep: what a store does by itself, asked of each kind: prune, expire, trim, and stay as large as what
 * lives. */
#include <sys/stat.h>

#include "common/sv.h"
#include "databroker/steady.h"
#include "test/unit/databroker/store_world.h"

static void the_change_log_is_pruned_in_small_batches(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    uint64_t server = 0;
    uint64_t batch = 0;
    uint64_t swept = 0;

    world_open(w);
    server = info(w).server_version;
    put_many(w, "a", 0, 450);
    assert_int_equal(sweep(w), 0);
    clock_test_shift(BROKER_RETENTION_MS - 10000);
    assert_int_equal(sweep(w), 0);
    clock_test_shift(20000);
    put_many(w, "b", 0, 5);
    do {
        batch = sweep(w);
        assert_true(batch <= 200);
        swept += batch;
    } while (batch > 0);
    clock_test_shift(-BROKER_RETENTION_MS - 10000);
    assert_int_equal(swept, 450);
    assert_int_equal(info(w).earliest_version, 451);
    assert_int_equal(info(w).latest_version, 455);
    assert_int_equal(changes(w, server, 449, "", &out), ERR_ABORTED);
    assert_int_equal(changes(w, server, 450, "", &out), ERR_OK);
    assert_int_equal(out.count, 5);
    assert_int_equal(get(w, "a", "00000", (char[32]){ 0 }, 32), ERR_OK);
}

static void options_bound_age_and_number(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };

    world_open(w);
    put_many(w, "old", 0, 10);
    put_many(w, "full", 0, 12);
    put_many(w, "free", 0, 12);
    set_options(w, "old", 0, 60000);
    set_options(w, "full", 5, 0);
    assert_int_equal(sweep(w), 7);
    clock_test_shift(61000);
    put_many(w, "old", 8, 1);
    assert_int_equal(sweep(w), 9);
    clock_test_shift(-61000);
    assert_int_equal(sweep(w), 0);
    assert_int_equal(get(w, "old", "00008", (char[32]){ 0 }, 32), ERR_OK);
    assert_int_equal(get(w, "old", "00007", (char[32]){ 0 }, 32), ERR_NOT_FOUND);
    broker_records_init(&out);
    assert_int_equal(w->ops->options(w->store, SV(""), soon(), &out), ERR_OK);
    assert_int_equal(out.count, 2);
    assert_true(sv_eq(out.items[0].type, SV("full")) && sv_eq(out.items[0].data, SV("bytes")));
    assert_int_equal(changes(w, info(w).server_version, 34, "", &out), ERR_OK);
    assert_int_equal(out.count, 17); /* 7 and 9 deletions, one write */
}

/* Puts n records of type that end at ends_us. */
static void put_ending(struct world *w, const char *type, int n, int64_t ends_us)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };

    broker_records_init(&list);
    for (int i = 0; i < n; i++) {
        char id[16];
        struct broker_record record = { .type = sv_from(type),
                                        .data_type = SV("t"),
                                        .data = SV("what a login leaves behind"),
                                        .ends_us = ends_us };

        (void)snprintf(id, sizeof(id), "%05d", i);
        record.id = sv_from(id);
        broker_records_add(&list, &record);
    }
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
}

static void what_has_ended_is_deleted_in_small_batches(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    const int64_t second = 1000000;
    int64_t now = clock_wall_us();

    world_open(w);
    put_ending(w, "never", 3, 0);
    put_ending(w, "later", 3, now + 600 * second);
    put_ending(w, "just", 3, now - second);
    put_ending(w, "over", 450, now - 2 * second * BROKER_END_KEEP_MS / 1000);
    assert_int_equal(sweep_all(w, 200), 450);
    assert_int_equal(get(w, "never", "00000", (char[32]){ 0 }, 32), ERR_OK);
    assert_int_equal(get(w, "later", "00000", (char[32]){ 0 }, 32), ERR_OK);
    assert_int_equal(get(w, "just", "00000", (char[32]){ 0 }, 32), ERR_OK);
    assert_int_equal(get(w, "over", "00000", (char[32]){ 0 }, 32), ERR_NOT_FOUND);
    assert_int_equal(changes(w, info(w).server_version, 459, "", &out), ERR_OK);
    assert_int_equal(out.count, 450); /* followers are told */
    assert_true(out.items[0].deleted_us != 0 && sv_eq(out.items[0].type, SV("over")));
    put_ending(w, "later", 3, now - 600 * second); /* a new end counts */
    put_ending(w, "just", 3, 0);
    assert_int_equal(sweep_all(w, 200), 3);
    assert_int_equal(get(w, "just", "00000", (char[32]){ 0 }, 32), ERR_OK);
}

static void a_clock_that_jumps_ends_nothing(struct world *w)
{
    const int64_t hour_ms = 3600000;

    w->opts.hold_ms = 50;
    w->opts.retention_ms = 100 * hour_ms;
    world_open(w);
    put_ending(w, "session", 3, clock_wall_us() + hour_ms * 1000);
    clock_test_shift(2 * hour_ms);
    assert_int_equal(sweep(w), 0); /* it jumped */
    clock_test_shift(-2 * hour_ms);
    assert_int_equal(sweep(w), 0); /* and jumped back */
    (void)usleep(60000);
    assert_int_equal(sweep(w), 0);
    assert_int_equal(get(w, "session", "00000", (char[32]){ 0 }, 32), ERR_OK);
    clock_test_shift(2 * hour_ms);
    assert_int_equal(sweep(w), 0);
    (void)usleep(60000);
    assert_int_equal(sweep(w), 3); /* it stays there: that is the time */
    clock_test_shift(-2 * hour_ms);
}

static enum err acquire(struct world *w)
{
    struct broker_write write = { .kind = BROKER_WRITE_LEASE_ACQUIRE,
                                  .lease_name = SV("job"),
                                  .lease_ms = 60000 };

    return broker_store_write(w->ops, w->store, &write);
}

/* PostgreSQL's leases go by the server's clock. */
static void a_clock_that_jumps_neither_ends_nor_keeps_a_lease(struct world *w)
{
    const int64_t day_ms = 86400000;

    world_open(w);
    if (w->kind == IN_POSTGRES) {
        return;
    }
    assert_int_equal(acquire(w), ERR_OK);
    clock_test_shift(day_ms);
    assert_int_equal(acquire(w), ERR_EXISTS);
    (void)sweep(w);
    assert_int_equal(acquire(w), ERR_EXISTS);
    clock_test_shift(61000);
    assert_int_equal(acquire(w), ERR_OK);
    clock_test_shift(-day_ms);
    assert_int_equal(acquire(w), ERR_EXISTS);
    clock_test_shift(61000);
    assert_int_equal(acquire(w), ERR_OK);
    clock_test_shift(-122000);
}

static void a_change_from_a_fast_clock_does_not_keep_the_log(struct world *w)
{
    world_open(w);
    clock_test_shift(100 * (int64_t)BROKER_RETENTION_MS);
    put_many(w, "a", 0, 3);
    clock_test_shift(-100 * (int64_t)BROKER_RETENTION_MS);
    put_many(w, "a", 3, 3);
    assert_int_equal(sweep_all(w, 200), 3);
    assert_int_equal(info(w).earliest_version, 4);
}

static void a_clock_that_is_wrong_at_start_ends_nothing(void **state)
{
    const int64_t year_ms = INT64_C(366) * 86400000;
    struct world w;

    (void)state;
    world_init(&w, 0);
    world_open(&w);
    put_ending(&w, "session", 3, clock_wall_us() + 3600 * INT64_C(1000000));
    assert_int_equal(simple(&w, BROKER_WRITE_PROBE), ERR_OK);
    w.ops->close(&w.store);
    clock_test_shift(year_ms);
    world_open(&w);
    (void)sweep_all(&w, 200);
    assert_int_equal(get(&w, "session", "00000", (char[32]){ 0 }, 32), ERR_OK);
    clock_test_shift(-year_ms);
    world_end(&w);
}

/* ---- flat ------------------------------------------------------------------------------------ */

/* A sanitizer keeps what was freed in quarantine, up to 256 MiB. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MEMORY_ROOM = 80000 };
#else
enum { MEMORY_ROOM = 2000 };
#endif

static long pages_in_memory(void)
{
    char text[128] = "";
    uint64_t resident = 0;
    struct sv rest;
    FILE *f = fopen("/proc/self/statm", "re");

    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f)); /* size, resident, … */
    (void)fclose(f);
    rest = sv_from(text);
    rest = sv_from_at(rest, sv_find(rest, ' ') + 1);
    assert_int_equal(sv_u64(sv_head(rest, sv_find(rest, ' ')), UINT32_MAX, &resident), ERR_OK);
    return (long)resident;
}

static int64_t bytes_on_disk(const struct world *w)
{
    struct stat st = { .st_size = 0 };
    char path[128];
    int64_t all = 0;

    assert_int_equal(stat(w->file, &st), 0);
    all = st.st_size;
    (void)snprintf(path, sizeof(path), "%s-wal", w->file);
    return stat(path, &st) == 0 ? all + st.st_size : all;
}

/* 500 people log in; half of them log out, the other sessions end; the log forgets them. */
static void one_round(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };

    put_ending(w, "session", 500, 1);
    broker_records_init(&list);
    for (int i = 0; i < 250; i++) {
        char id[16];
        struct broker_record record = { .type = SV("session"), .deleted_us = 1 };

        (void)snprintf(id, sizeof(id), "%05d", i);
        record.id = sv_from(id);
        broker_records_add(&list, &record);
    }
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
    (void)usleep(2000); /* the retention */
    (void)sweep_all(w, 500);
}

/* 100,000 logins as a rule; FLAT_LOGINS=1000000 shows a million. */
static void disk_and_memory_stay_flat_over_logins_and_logouts(void **state)
{
    enum { ROUND = 500, WARM = 20 };

    const char *wanted =
        getenv("FLAT_LOGINS"); /* NOLINT(concurrency-mt-unsafe): one thread sets up */
    uint64_t logins = 100000;
    uint64_t rounds = 0;
    int64_t disk = 0;
    long memory = 0;
    struct world w;

    (void)state;
    if (wanted != NULL) {
        assert_int_equal(sv_u64(sv_from(wanted), 100000000, &logins), ERR_OK);
    }
    rounds = logins / ROUND;
    world_init(&w, 0);
    w.opts.retention_ms = 1;
    world_open(&w);
    for (uint64_t i = 0; i < rounds; i++) {
        one_round(&w);
        if (i == WARM) {
            disk = bytes_on_disk(&w);
            memory = pages_in_memory();
        }
    }
    print_message("%llu logins: %lld -> %lld bytes on disk, %ld -> %ld pages in memory\n",
                  (unsigned long long)logins, (long long)disk, (long long)bytes_on_disk(&w), memory,
                  pages_in_memory());
    assert_true(bytes_on_disk(&w) <= disk * 2);
    assert_true(pages_in_memory() <= memory + MEMORY_ROOM);
    world_end(&w);
}

/* ---- running --------------------------------------------------------------------------------- */

CASE(the_change_log_is_pruned_in_small_batches)
CASE(options_bound_age_and_number)
CASE(what_has_ended_is_deleted_in_small_batches)
CASE(a_clock_that_jumps_ends_nothing)
CASE(a_clock_that_jumps_neither_ends_nor_keeps_a_lease)
CASE(a_change_from_a_fast_clock_does_not_keep_the_log)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_change_log_is_pruned_in_small_batches),
        cmocka_unit_test(test_options_bound_age_and_number),
        cmocka_unit_test(test_what_has_ended_is_deleted_in_small_batches),
        cmocka_unit_test(test_a_clock_that_jumps_ends_nothing),
        cmocka_unit_test(test_a_clock_that_jumps_neither_ends_nor_keeps_a_lease),
        cmocka_unit_test(test_a_change_from_a_fast_clock_does_not_keep_the_log),
        cmocka_unit_test(a_clock_that_is_wrong_at_start_ends_nothing),
        cmocka_unit_test(disk_and_memory_stay_flat_over_logins_and_logouts),
    };

    return cmocka_run_group_tests(tests, start_server, stop_server);
}
