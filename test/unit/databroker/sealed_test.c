/* sealed: what a store over another one keeps from whoever has only its file, and what it does with bytes
 * that are not what it wrote. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "databroker/keyring.h"
#include "databroker/store.h"
#include "test/support/cmocka.h"

enum { LONG_MS = 20000, SOON_MS = 20, FILE_MAX = 64 << 20 };

#define TOKEN "refresh-token-that-nobody-may-find"

struct world {
    struct broker_store *store;
    struct secret *first;
    struct secret *second;
    struct broker_store_opts opts;
    char folder[64];
    char file[96];
};

static int64_t soon(void)
{
    return clock_mono_ms() + LONG_MS;
}

static enum err world_try(struct world *w, const struct secret *a, const struct secret *b,
                          struct diag *d)
{
    w->opts.target = w->file;
    w->opts.beneath = &broker_store_sqlite;
    w->opts.secrets[0] = a;
    w->opts.secrets[1] = b;
    w->opts.n_secrets = b == NULL ? 1 : 2;
    return broker_store_sealed.open(&w->opts, &w->store, d);
}

static void world_open(struct world *w)
{
    struct diag d = { .text = "" };

    if (world_try(w, w->first, NULL, &d) != ERR_OK) {
        fail_msg("%s", d.text);
    }
}

static void world_init(struct world *w)
{
    unsigned char bytes[32];

    *w = (struct world){ .store = NULL };
    memset(bytes, 1, sizeof(bytes));
    w->first = secret_new(sv_of(bytes, sizeof(bytes)));
    memset(bytes, 2, sizeof(bytes));
    w->second = secret_new(sv_of(bytes, sizeof(bytes)));
    w->opts.keep_ms = SOON_MS;
    w->opts.grace_ms = SOON_MS;
    (void)snprintf(w->folder, sizeof(w->folder), "/tmp/postern-sealed-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    (void)snprintf(w->file, sizeof(w->file), "%s/db", w->folder);
}

static void world_new(struct world *w)
{
    world_init(w);
    world_open(w);
}

static void world_end(struct world *w)
{
    static const char *const ends[] = { "", "-wal", "-shm", ".lock" };

    broker_store_sealed.close(&w->store);
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), "%s%s", w->file, ends[i]);
        (void)unlink(path);
    }
    (void)rmdir(w->folder);
    secret_free(&w->first);
    secret_free(&w->second);
}

static enum err put_in(const struct broker_store_ops *ops, struct broker_store *store,
                       const char *id, const char *data)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_record record = { .type = SV("session"),
                                    .id = sv_from(id),
                                    .data_type = SV("t"),
                                    .data = sv_from(data),
                                    .deleted_us = data == NULL ? 1 : 0 };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };
    enum err err = ERR_OK;

    broker_records_init(&list);
    broker_records_add(&list, &record);
    err = broker_store_write(ops, store, &write);
    if (err == ERR_OK && data != NULL) { /* whoever wrote has what it wrote, and its version */
        assert_true(list.items[0].version > 0 && sv_eq(list.items[0].data, sv_from(data)));
    }
    return err;
}

static void put(struct world *w, const char *id, const char *data)
{
    assert_int_equal(put_in(&broker_store_sealed, w->store, id, data), ERR_OK);
}

static enum err get(struct world *w, const char *id, char data[64])
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    enum err err = ERR_OK;

    broker_records_init(&out);
    err = broker_store_sealed.get(w->store, SV("session"), sv_from(id), soon(), &out);
    (void)snprintf(data, 64, "%.*s", err == ERR_OK ? (int)out.items[0].data.n : 0,
                   err == ERR_OK ? out.items[0].data.p : "");
    return err;
}

static void expect(struct world *w, const char *id, const char *wanted)
{
    char data[64];

    assert_int_equal(get(w, id, data), wanted == NULL ? ERR_NOT_FOUND : ERR_OK);
    assert_string_equal(data, wanted == NULL ? "" : wanted);
}

/* Does something to the file as somebody who has only that would. */
static void tamper(struct world *w, const char *sql)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(w->file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(db, LONG_MS), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_true(sqlite3_total_changes(db) > 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int64_t number(struct world *w, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t n = 0;

    assert_int_equal(sqlite3_open(w->file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(db, LONG_MS), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    n = sqlite3_column_int64(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return n;
}

/* Looks again and again until sql tells wanted. */
static void await(struct world *w, const char *sql, int64_t wanted)
{
    int64_t until = soon();

    while (number(w, sql) != wanted) {
        if (clock_mono_ms() > until) {
            fail_msg("%s never told %lld", sql, (long long)wanted);
        }
        (void)usleep(5000);
    }
}

static bool file_holds(const struct world *w, const char *end, const char *text)
{
    char path[128];
    char *bytes = NULL;
    size_t n = 0;
    bool found = false;
    FILE *f = NULL;

    (void)snprintf(path, sizeof(path), "%s%s", w->file, end);
    f = fopen(path, "rbe");
    if (f == NULL) {
        return false;
    }
    bytes = mem_alloc(FILE_MAX);
    n = fread(bytes, 1, FILE_MAX, f);
    found = memmem(bytes, n, text, strlen(text)) != NULL;
    mem_free(&bytes);
    (void)fclose(f);
    return found;
}

#define KEYS_OF "SELECT count(*) FROM records WHERE type = '" BROKER_TYPE_KEY "'"

/* ---- at rest ---------------------------------------------------------------------------------- */

static void neither_file_nor_log_holds_what_was_written(void **state)
{
    struct world w;
    char data[64];

    (void)state;
    world_new(&w);
    for (int i = 0; i < 50; i++) {
        char id[16];

        (void)snprintf(id, sizeof(id), "session-%d", i);
        put(&w, id, TOKEN);
        assert_int_equal(get(&w, id, data), ERR_OK);
        assert_string_equal(data, TOKEN);
    }
    assert_true(file_holds(&w, "-wal", "session-49")); /* the look is no blind one */
    assert_false(file_holds(&w, "-wal", TOKEN));
    assert_false(file_holds(&w, "", TOKEN));
    broker_store_sealed.close(&w.store);
    assert_true(file_holds(&w, "", "session-49"));
    assert_false(file_holds(&w, "", TOKEN));
    world_open(&w);
    expect(&w, "session-7", TOKEN);
    world_end(&w);
}

static void the_same_data_never_gives_the_same_bytes(void **state)
{
    struct world w;

    (void)state;
    world_new(&w);
    put(&w, "a", TOKEN);
    put(&w, "b", TOKEN);
    put(&w, "c", "");
    expect(&w, "c", "");
    assert_int_equal(number(&w, "SELECT count(DISTINCT data) FROM records WHERE type = 'session'"),
                     3);
    world_end(&w);
}

static void a_row_that_was_moved_changed_or_planted_is_none(void **state)
{
    static const char *const ways[] = {
        "UPDATE records SET data = (SELECT data FROM records WHERE id = 'b') WHERE id = 'a'",
        "UPDATE records SET data_type = 'u' WHERE id = 'a'",
        "UPDATE records SET data = substr(data, 1, length(data) - 1) || x'00' WHERE id = 'a'",
        "UPDATE records SET data = substr(data, 1, 20) WHERE id = 'a'",
        "UPDATE records SET data = x'0001ffffffff' || substr(data, 7) WHERE id = 'a'",
        "UPDATE records SET data = 'planted' WHERE id = 'a'",
        "UPDATE records SET data = x'' WHERE id = 'a'",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
        const struct broker_record start = { .type = SV(""), .id = SV("") };
        struct world w;

        world_init(&w);
        world_open(&w);
        put(&w, "a", "one");
        put(&w, "b", "two");
        tamper(&w, ways[i]);
        expect(&w, "a", NULL);
        expect(&w, "b", "two");
        broker_records_init(&out);
        assert_int_equal(broker_store_sealed.page(w.store, SV(""), &start, soon(), &out), ERR_OK);
        assert_int_equal(out.count, 2); /* replicas are told that it is gone */
        assert_true(out.items[0].deleted_us != 0 && out.items[0].data.n == 0);
        assert_true(out.items[1].deleted_us == 0 && sv_eq(out.items[1].data, SV("two")));
        put(&w, "a", "three"); /* and a new one takes its place */
        expect(&w, "a", "three");
        world_end(&w);
    }
}

static void the_keys_are_not_seen_from_above(void **state)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    const struct broker_record start = { .type = SV(""), .id = SV("") };
    struct broker_info info = { 0 };
    struct world w;

    (void)state;
    world_new(&w);
    broker_records_init(&out);
    assert_int_equal(broker_store_sealed.page(w.store, SV(""), &start, soon(), &out), ERR_OK);
    assert_int_equal(broker_store_sealed.types(w.store, soon(), &out), ERR_OK);
    assert_int_equal(broker_store_sealed.info(w.store, soon(), &info), ERR_OK);
    assert_int_equal(
        broker_store_sealed.changes(w.store, info.server_version, 0, SV(""), soon(), &out), ERR_OK);
    assert_int_equal(out.count, 0);
    assert_int_equal(out.position, info.latest_version);
    assert_int_equal(number(&w, KEYS_OF), 1);
    world_end(&w);
}

/* ---- secrets ---------------------------------------------------------------------------------- */

static void a_wrong_secret_is_a_sentence_and_the_one_before_still_opens(void **state)
{
    struct diag d = { .text = "" };
    struct world w;

    (void)state;
    world_new(&w);
    put(&w, "a", "one");
    broker_store_sealed.close(&w.store);
    assert_int_equal(world_try(&w, w.second, NULL, &d), ERR_CRYPTO);
    assert_non_null(strstr(d.text, "databroker_encryption_key_previous"));
    assert_null(w.store);
    world_open(&w); /* nothing was lost by the attempt */
    expect(&w, "a", "one");
    broker_store_sealed.close(&w.store);
    assert_int_equal(world_try(&w, w.second, w.first, &d), ERR_OK);
    expect(&w, "a", "one");
    broker_store_sealed.close(&w.store);
    assert_int_equal(world_try(&w, w.second, NULL, &d), ERR_OK); /* wrapped anew */
    expect(&w, "a", "one");
    broker_store_sealed.close(&w.store);
    assert_int_equal(world_try(&w, w.first, NULL, &d), ERR_CRYPTO);
    world_end(&w);
}

static void a_store_that_lost_its_keys_is_not_opened(void **state)
{
    struct diag d = { .text = "" };
    struct world w;

    (void)state;
    world_new(&w);
    put(&w, "a", "one");
    broker_store_sealed.close(&w.store);
    tamper(&w, "DELETE FROM records WHERE type = '" BROKER_TYPE_KEY "'");
    assert_int_equal(world_try(&w, w.first, NULL, &d), ERR_INVALID);
    assert_non_null(strstr(d.text, "data keys are gone"));
    world_end(&w);
}

static void plain_records_of_before_are_read_and_then_sealed(void **state)
{
    struct diag d = { .text = "" };
    struct world w;

    (void)state;
    world_init(&w);
    w.opts.target = w.file;
    assert_int_equal(broker_store_sqlite.open(&w.opts, &w.store, &d), ERR_OK);
    for (int i = 0; i < 600; i++) {
        char id[16];

        (void)snprintf(id, sizeof(id), "%d", i);
        assert_int_equal(put_in(&broker_store_sqlite, w.store, id, TOKEN), ERR_OK);
    }
    broker_store_sqlite.close(&w.store);
    assert_true(file_holds(&w, "", TOKEN));
    world_open(&w);
    expect(&w, "599", TOKEN);
    await(&w, "SELECT count(*) FROM records WHERE data = '" TOKEN "'", 0);
    await(&w, "SELECT count(*) FROM changes WHERE data = '" TOKEN "'", 0);
    expect(&w, "599", TOKEN);
    /* the key says once that all is sealed; then nothing plain is believed any more */
    await(&w, "SELECT count(*) FROM changes WHERE type = '" BROKER_TYPE_KEY "'", 2);
    (void)usleep(100000);
    tamper(&w, "UPDATE records SET data = 'planted' WHERE id = '599'");
    expect(&w, "599", NULL);
    broker_store_sealed.close(&w.store);
    assert_false(file_holds(&w, "", TOKEN));
    world_open(&w);
    expect(&w, "598", TOKEN);
    expect(&w, "599", NULL);
    world_end(&w);
}

/* ---- rotation --------------------------------------------------------------------------------- */

enum { CROWD = 3, IDS = 40 };

struct crowd {
    struct world *world;
    int number;
    int stop;  /* atomic */
    int wrong; /* atomic */
    int writes;
};

/* Each writes records of its own and reads them back. */
static void *work(void *arg)
{
    struct crowd *c = arg;
    char data[64];
    char id[32];
    char wanted[64];

    for (int i = 0; __atomic_load_n(&c->stop, __ATOMIC_SEQ_CST) == 0; i++) {
        (void)snprintf(id, sizeof(id), "%d-%d", c->number, i % IDS);
        (void)snprintf(wanted, sizeof(wanted), "value %d", i);
        if (put_in(&broker_store_sealed, c->world->store, id, wanted) != ERR_OK ||
            get(c->world, id, data) != ERR_OK || strcmp(data, wanted) != 0) {
            (void)__atomic_add_fetch(&c->wrong, 1, __ATOMIC_SEQ_CST);
        }
        c->writes++;
    }
    return NULL;
}

static void keys_are_rotated_while_others_write_and_read(void **state)
{
    struct crowd crowd[CROWD];
    pthread_t threads[CROWD];
    char made[BROKER_KEY_ID_SIZE] = "";
    char first[BROKER_KEY_ID_SIZE] = "";
    char sql[160];
    struct world w;

    (void)state;
    world_init(&w);
    w.opts.grace_ms = 300; /* longer than a write waits in a queue here */
    world_open(&w);
    put(&w, "rests", TOKEN);
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = (struct crowd){ .world = &w, .number = i };
        assert_int_equal(pthread_create(&threads[i], NULL, work, &crowd[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(broker_store_sealed.rotate(w.store, made), ERR_OK);
        assert_int_equal(strlen(made), BROKER_KEY_ID_SIZE - 1);
        assert_string_not_equal(made, first);
        memcpy(first, made, sizeof(made));
        (void)usleep(30000);
    }
    (void)snprintf(sql, sizeof(sql),
                   "SELECT count(*) FROM records WHERE type = 'session' AND "
                   "lower(hex(substr(data, 3, 4))) <> '%s'",
                   made);
    await(&w, sql, 0);
    await(&w, KEYS_OF, 1); /* the ones before are gone */
    for (int i = 0; i < CROWD; i++) {
        __atomic_store_n(&crowd[i].stop, 1, __ATOMIC_SEQ_CST);
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(crowd[i].wrong, 0);
        assert_true(crowd[i].writes > 0);
    }
    expect(&w, "rests", TOKEN);
    broker_store_sealed.close(&w.store);
    world_open(&w);
    expect(&w, "rests", TOKEN);
    world_end(&w);
}

static void resealing_makes_no_versions(void **state)
{
    char made[BROKER_KEY_ID_SIZE];
    struct world w;
    int64_t before = 0;

    (void)state;
    world_new(&w);
    put(&w, "a", "one");
    put(&w, "b", "two");
    before = number(&w, "SELECT max(version) FROM records WHERE type = 'session'");
    assert_int_equal(broker_store_sealed.rotate(w.store, made), ERR_OK);
    await(&w, KEYS_OF, 1);
    assert_int_equal(number(&w, "SELECT max(version) FROM records WHERE type = 'session'"), before);
    expect(&w, "a", "one");
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neither_file_nor_log_holds_what_was_written),
        cmocka_unit_test(the_same_data_never_gives_the_same_bytes),
        cmocka_unit_test(a_row_that_was_moved_changed_or_planted_is_none),
        cmocka_unit_test(the_keys_are_not_seen_from_above),
        cmocka_unit_test(a_wrong_secret_is_a_sentence_and_the_one_before_still_opens),
        cmocka_unit_test(a_store_that_lost_its_keys_is_not_opened),
        cmocka_unit_test(plain_records_of_before_are_read_and_then_sealed),
        cmocka_unit_test(keys_are_rotated_while_others_write_and_read),
        cmocka_unit_test(resealing_makes_no_versions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
