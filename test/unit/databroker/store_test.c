/* store: what every store promises, asked of each implementation through its interface. */
#include "databroker/store.h"

#include <pthread.h>

#include <sqlite3.h>

#include "common/buf.h"
#include "databroker/search.h"
#include "test/unit/databroker/store_world.h"

/* ---- the contract ---------------------------------------------------------------------------- */

static void versions_grow_by_one_and_deletions_are_changes(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    char data[32];
    uint64_t version = 0;
    struct broker_info i = { 0 };

    world_open(w);
    i = info(w);
    assert_true(i.server_version != 0 && i.latest_version == 0);
    assert_int_equal(put(w, "a", "1", "one", &version), ERR_OK);
    assert_int_equal(version, 1);
    assert_int_equal(put(w, "a", "1", "two", &version), ERR_OK);
    assert_int_equal(version, 2);
    assert_int_equal(get(w, "a", "1", data, sizeof(data)), ERR_OK);
    assert_string_equal(data, "two");
    assert_int_equal(get(w, "b", "1", data, sizeof(data)), ERR_NOT_FOUND);
    assert_int_equal(put(w, "a", "1", NULL, &version), ERR_OK);
    assert_int_equal(version, 3);
    assert_int_equal(put(w, "a", "never", NULL, &version), ERR_OK);
    assert_int_equal(version, 4);
    assert_int_equal(get(w, "a", "1", data, sizeof(data)), ERR_NOT_FOUND);
    assert_int_equal(changes(w, i.server_version, 0, "", &out), ERR_OK);
    assert_int_equal(out.count, 4);
    assert_false(out.more);
    assert_true(out.items[1].deleted_us == 0 && sv_eq(out.items[1].data, SV("two")));
    assert_true(out.items[2].deleted_us > 0 && out.items[2].data.n == 0);
    assert_int_equal(info(w).earliest_version, 1);
}

static void a_reopened_store_goes_on_where_it_stood(struct world *w)
{
    struct broker_info before = { 0 };
    struct broker_info after = { 0 };
    uint64_t version = 0;

    if (w->kind == IN_MEMORY) {
        world_open(w);
        return;
    }
    world_open(w);
    assert_int_equal(put(w, "a", "1", "one", NULL), ERR_OK);
    assert_int_equal(put(w, "a", "1", NULL, NULL), ERR_OK);
    before = info(w);
    w->ops->close(&w->store);
    world_open(w);
    after = info(w);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(put(w, "a", "2", "x", &version), ERR_OK);
    assert_int_equal(version, 3);
}

static void a_batch_is_written_whole_or_not_at_all(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };
    struct broker_record record = {
        .type = SV("a"), .id = SV("new"), .data_type = SV("t"), .data = SV("new")
    };
    char data[32];

    world_open(w);
    assert_int_equal(put(w, "a", "old", "one", NULL), ERR_OK);
    broker_records_init(&list);
    broker_records_add(&list, &record);
    record.id = SV("old");
    record.if_version = 7;
    broker_records_add(&list, &record);
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_ABORTED);
    assert_int_equal(get(w, "a", "new", data, sizeof(data)), ERR_NOT_FOUND);
    assert_int_equal(info(w).latest_version, 1);
    list.items[1].if_version = 1;
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
    assert_int_equal(info(w).latest_version, 3);
    assert_int_equal(get(w, "a", "old", data, sizeof(data)), ERR_OK);
    assert_string_equal(data, "new");
}

/* Gives a record of version the bytes data, as seen from beneath. */
static void replace(struct world *w, const char *id, uint64_t version, const char *data)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_record record = {
        .type = SV("a"), .id = sv_from(id), .version = version, .data = sv_from(data)
    };
    struct broker_write write = { .kind = BROKER_WRITE_REPLACE, .records = &list };

    broker_records_init(&list);
    broker_records_add(&list, &record);
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
}

static void bytes_are_replaced_in_the_record_and_in_the_log(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    char data[32];

    world_open(w);
    assert_int_equal(put(w, "a", "1", "one", NULL), ERR_OK);
    assert_int_equal(put(w, "a", "2", "two", NULL), ERR_OK);
    assert_int_equal(put(w, "a", "2", "two again", NULL), ERR_OK);
    assert_int_equal(put(w, "a", "3", "three", NULL), ERR_OK);
    assert_int_equal(put(w, "a", "3", NULL, NULL), ERR_OK);
    replace(w, "1", 1, "ONE");
    replace(w, "2", 2, "TWO"); /* it is of version 3 now: only the log has 2 */
    replace(w, "3", 5, "THREE");
    assert_int_equal(get(w, "a", "1", data, sizeof(data)), ERR_OK);
    assert_string_equal(data, "ONE");
    assert_int_equal(get(w, "a", "2", data, sizeof(data)), ERR_OK);
    assert_string_equal(data, "two again");
    assert_int_equal(get(w, "a", "3", data, sizeof(data)), ERR_NOT_FOUND);
    assert_int_equal(changes(w, info(w).server_version, 0, "", &out), ERR_OK);
    assert_int_equal(out.count, 5);
    assert_true(sv_eq(out.items[0].data, SV("ONE")) && sv_eq(out.items[1].data, SV("TWO")));
    assert_true(sv_eq(out.items[2].data, SV("two again")) && out.items[4].data.n == 0);
}

static void pages_show_every_record_once(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    static const char *const types[] = { "", "b" };
    static const size_t expected[] = { 1701, 1200 };
    size_t t = 0;

    world_open(w);
    put_many(w, "a", 0, 500);
    put_many(w, "b", 0, 1000);
    put_many(w, "b", 1000, 200);
    put_many(w, "c", 0, 1);
    for (t = 0; t < ARRAY_LEN(types); t++) {
        struct broker_record last = { .version = 0 };
        char type[16] = "";
        char id[16] = "";
        uint64_t place = 0;
        size_t seen = 0;

        do {
            broker_records_deinit(&out);
            broker_records_init(&out);
            last =
                (struct broker_record){ .type = sv_from(type), .id = sv_from(id), .place = place };
            assert_int_equal(w->ops->page(w->store, sv_from(types[t]), &last, soon(), &out),
                             ERR_OK);
            seen += out.count;
            (void)snprintf(type, sizeof(type), "%.*s", SV_ARG(out.items[out.count - 1].type));
            (void)snprintf(id, sizeof(id), "%.*s", SV_ARG(out.items[out.count - 1].id));
            place = out.items[out.count - 1].place;
        } while (out.more);
        assert_int_equal(seen, expected[t]);
    }
}

static void changes_come_in_order_and_by_type(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    uint64_t server = 0;
    uint64_t after = 0;
    size_t seen = 0;

    world_open(w);
    server = info(w).server_version;
    put_many(w, "a", 0, 1000);
    put_many(w, "b", 0, 700);
    do {
        size_t i = 0;

        assert_int_equal(changes(w, server, after, "", &out), ERR_OK);
        for (i = 0; i < out.count; i++) {
            assert_int_equal(out.items[i].version, after + i + 1);
        }
        after = out.position;
        seen += out.count;
    } while (out.more);
    assert_int_equal(seen, 1700);
    after = 0;
    seen = 0;
    do {
        assert_int_equal(changes(w, server, after, "b", &out), ERR_OK);
        assert_true(out.position > after);
        after = out.position;
        seen += out.count;
    } while (out.more);
    assert_int_equal(seen, 700);
    assert_int_equal(after, 1700);
    assert_int_equal(changes(w, server, 1700, "", &out), ERR_OK);
    assert_true(out.count == 0 && !out.more);
    assert_int_equal(changes(w, server, 1701, "", &out), ERR_ABORTED);
    assert_int_equal(changes(w, server + 1, 0, "", &out), ERR_ABORTED);
}

static enum err has_text(const struct broker_record *record, void *arg, bool *match_out)
{
    const struct sv *text = arg;

    *match_out = broker_search_has_text(record, *text);
    return ERR_OK;
}

static void queries_window_and_search(struct world *w)
{
    static const struct {
        const char *text;
        uint64_t offset;
        size_t limit;
        uint64_t total;
        size_t count;
        const char *first;
    } cases[] = {
        { "", 0, 1000, 300, 300, "00000" },     { "", 290, 1000, 300, 10, "00290" },
        { "", 300, 10, 300, 0, NULL },          { "", UINT64_MAX, 10, 300, 0, NULL },
        { "same text", 5, 2, 300, 2, "00005" }, { "SAME TEXT", 299, 5, 300, 1, "00299" },
        { "0029", 0, 100, 11, 11, "00029" },    { "the same text in all!", 0, 100, 0, 0, NULL },
    };

    size_t i = 0;

    world_open(w);
    put_many(w, "a", 0, 300);
    put_many(w, "b", 0, 10);
    for (i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
        struct sv text = sv_from(cases[i].text);
        struct broker_query q = { .type = SV("a"),
                                  .offset = cases[i].offset,
                                  .limit = cases[i].limit };
        struct broker_search s = { .type = SV("a"),
                                   .match = has_text,
                                   .arg = &text,
                                   .offset = cases[i].offset,
                                   .limit = cases[i].limit,
                                   .deadline_ms = soon() };

        broker_records_init(&out);
        assert_int_equal(text.n == 0 ? w->ops->query(w->store, &q, soon(), &out)
                                     : broker_search(w->ops, w->store, &s, &out),
                         ERR_OK);
        assert_int_equal(out.total, cases[i].total);
        assert_int_equal(out.count, cases[i].count);
        assert_int_equal(out.latest_version, 310);
        if (cases[i].first != NULL) {
            assert_true(sv_eq(out.items[0].id, sv_from(cases[i].first)));
        }
    }
}

/* More ids than one query of the store takes, of records that together are more than a page. */
static void a_search_reads_the_ids_it_is_given(struct world *w)
{
    enum { IDS = 250, BIG = 7 };
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    CLEANUP(mem_free) char *big = mem_alloc(700001);
    struct sv text = SV("");
    char names[IDS][8];
    struct sv ids[IDS];
    struct broker_search s = {
        .type = SV("a"), .ids = ids, .match = has_text, .arg = &text, .limit = 1000
    };

    world_open(w);
    memset(big, 'x', 700000);
    big[700000] = '\0';
    put_many(w, "a", 0, IDS);
    for (size_t i = 0; i < IDS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%05zu",
                       i * 2); /* the second half is not there */
        ids[i] = sv_from(names[i]);
    }
    for (size_t i = 0; i < BIG; i++) {
        assert_int_equal(put(w, "a", names[i], big, NULL), ERR_OK);
    }
    broker_records_init(&out);
    s.deadline_ms = soon();
    assert_int_equal(broker_search(w->ops, w->store, &s, &out), ERR_OK);
    assert_true(out.server_version != 0); /* also where nothing is asked for */
    assert_int_equal(out.total, 0);
    s.id_count = IDS;
    assert_int_equal(broker_search(w->ops, w->store, &s, &out), ERR_OK);
    assert_int_equal(out.total, IDS / 2);
    assert_true(out.more && out.count == 5); /* as many as fit a page */
    for (size_t i = 0; i < out.count; i++) {
        assert_true(sv_eq(out.items[i].id, ids[i]));
    }
}

static enum err lease(struct world *w, enum broker_write_kind kind, const char *id, int64_t ms,
                      char id_out[RAND_UUID_SIZE])
{
    struct broker_write write = {
        .kind = kind, .lease_name = SV("job"), .lease_id = sv_from(id), .lease_ms = ms
    };
    enum err err = broker_store_write(w->ops, w->store, &write);

    if (id_out != NULL) {
        memcpy(id_out, write.lease_id_out, RAND_UUID_SIZE);
    }
    return err;
}

static void a_lease_has_one_holder_until_it_ends(struct world *w)
{
    char first[RAND_UUID_SIZE];
    char second[RAND_UUID_SIZE];

    world_open(w);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, first), ERR_OK);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, second), ERR_EXISTS);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_RENEW, "other", 1000, NULL), ERR_EXISTS);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_RELEASE, "other", 0, NULL), ERR_OK);
    clock_test_shift(50000);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_RENEW, first, 60000, NULL), ERR_OK);
    clock_test_shift(50000);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, second), ERR_EXISTS);
    clock_test_shift(11000);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_RENEW, first, 60000, NULL), ERR_EXISTS);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, second), ERR_OK);
    assert_string_not_equal(first, second);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_RELEASE, second, 0, NULL), ERR_OK);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 1000, first), ERR_OK);
    assert_int_equal(sweep(w), 0);
    clock_test_shift(62000);
    assert_int_equal(sweep(w), 1);
    clock_test_shift(-173000);
}

static void clear_empties_all_but_leases(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    struct broker_write write = { .kind = BROKER_WRITE_CLEAR };
    uint64_t server = 0;
    uint64_t version = 0;

    world_open(w);
    server = info(w).server_version;
    put_many(w, "a", 0, 3);
    assert_int_equal(put(w, BROKER_TYPE_KEY, "k", "stays", NULL), ERR_OK);
    set_options(w, "a", 1, 0);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, NULL), ERR_OK);
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
    assert_int_equal(write.old_server_version_out, server);
    assert_true(write.server_version_out != server && write.server_version_out != 0);
    assert_int_equal(info(w).server_version, write.server_version_out);
    assert_int_equal(get(w, "a", "00001", (char[32]){ 0 }, 32), ERR_NOT_FOUND);
    assert_int_equal(get(w, BROKER_TYPE_KEY, "k", (char[32]){ 0 }, 32), ERR_OK);
    broker_records_init(&out);
    assert_int_equal(w->ops->types(w->store, soon(), &out), ERR_OK);
    assert_int_equal(w->ops->options(w->store, SV(""), soon(), &out), ERR_OK);
    assert_int_equal(out.count, 1);
    assert_int_equal(lease(w, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, NULL), ERR_EXISTS);
    assert_int_equal(put(w, "a", "1", "x", &version), ERR_OK);
    assert_int_equal(version, 5); /* no version is ever given twice */
}

/* ---- bounds ---------------------------------------------------------------------------------- */

struct gate {
    pthread_mutex_t mutex; /* held: the writer waits in on_commit */
};

static void wait_at_gate(void *arg)
{
    struct gate *gate = arg;

    (void)pthread_mutex_lock(&gate->mutex);
    (void)pthread_mutex_unlock(&gate->mutex);
}

static void count_done(struct broker_write *w)
{
    (void)__atomic_add_fetch((int *)w->arg, 1, __ATOMIC_SEQ_CST);
}

static void a_full_queue_and_a_late_write_are_refused(struct world *w)
{
    struct gate gate = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    struct broker_write writes[6];
    int done = 0;
    size_t i = 0;
    size_t taken = 0;

    w->opts.queue_max = 3;
    w->opts.on_commit = wait_at_gate;
    w->opts.arg = &gate;
    world_open(w);
    (void)pthread_mutex_lock(&gate.mutex);
    for (i = 0; i < ARRAY_LEN(writes); i++) {
        writes[i] =
            (struct broker_write){ .kind = BROKER_WRITE_OPTIONS, .done = count_done, .arg = &done };
        writes[i].options = (struct broker_options){ .type = SV("a"), .bytes = SV("b") };
    }
    assert_int_equal(w->ops->submit(w->store, &writes[0]), ERR_OK);
    while (info(w).latest_version == 0) { /* until the writer has taken it and waits */
        CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };

        broker_records_init(&out);
        assert_int_equal(w->ops->options(w->store, SV("a"), soon(), &out), ERR_OK);
        if (out.count > 0) {
            break;
        }
        (void)usleep(1000);
    }
    writes[1].deadline_ms = clock_mono_ms() - 1;
    for (i = 1; i < ARRAY_LEN(writes); i++) {
        enum err err = w->ops->submit(w->store, &writes[i]);

        assert_int_equal(err, i <= 3 ? ERR_OK : ERR_LIMIT);
        taken += err == ERR_OK ? 1 : 0;
    }
    assert_int_equal(taken, 3);
    (void)pthread_mutex_unlock(&gate.mutex);
    w->ops->close(&w->store);
    assert_int_equal(done, 4);
    assert_int_equal(writes[1].err, ERR_TIMEOUT);
    assert_int_equal(writes[2].err, ERR_OK);
    assert_int_equal(writes[3].err, ERR_OK);
}

static void a_full_disk_fails_writes_and_serves_reads(struct world *w)
{
    CLEANUP(mem_free) char *big = mem_alloc(100001);
    char data[32];
    char id[16];
    int i = 0;
    enum err err = ERR_OK;

    if (w->kind != IN_A_FILE) {
        world_open(w);
        return;
    }
    memset(big, 'x', 100000);
    big[100000] = '\0';
    w->opts.max_pages = 400;
    world_open(w);
    assert_int_equal(put(w, "a", "small", "here", NULL), ERR_OK);
    for (i = 0; err == ERR_OK; i++) {
        assert_true(i < 100);
        (void)snprintf(id, sizeof(id), "%d", i);
        err = put(w, "a", id, big, NULL);
    }
    assert_int_equal(err, ERR_LIMIT);
    assert_int_equal(get(w, "a", "small", data, sizeof(data)), ERR_OK);
    assert_string_equal(data, "here");
    assert_int_equal(info(w).latest_version, i);
    assert_int_equal(put(w, "a", "small", NULL, NULL), ERR_OK); /* a sign-out still fits */
    assert_int_equal(put(w, "a", "0", NULL, NULL), ERR_OK);
    assert_int_equal(get(w, "a", "small", data, sizeof(data)), ERR_NOT_FOUND);
    assert_int_equal(simple(w, BROKER_WRITE_PROBE), ERR_OK);
    assert_int_equal(put(w, "a", "again", big, NULL), ERR_OK); /* the deleted one made room */
}

static void a_read_has_a_deadline(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    struct sv text = SV("not there");
    struct broker_search s = { .type = SV("a"),
                               .match = has_text,
                               .arg = &text,
                               .limit = 10,
                               .deadline_ms = clock_mono_ms() - 1 };
    int i = 0;

    world_open(w);
    for (i = 0; i < 5; i++) {
        put_many(w, "a", i * 1000, 1000);
    }
    broker_records_init(&out);
    assert_int_equal(broker_search(w->ops, w->store, &s, &out), ERR_TIMEOUT);
    assert_int_equal(w->ops->page(w->store, SV("a"), &(struct broker_record){ .id = SV("") },
                                  clock_mono_ms() - 1, &out),
                     ERR_TIMEOUT);
    s.deadline_ms = soon();
    assert_int_equal(broker_search(w->ops, w->store, &s, &out), ERR_OK);
    assert_int_equal(info(w).latest_version, 5000);
}

/* ---- many at once ---------------------------------------------------------------------------- */

enum { WRITERS = 4, WRITES = 150 };

struct crowd {
    struct world *world;
    int number;
    int wrong;
    int stop; /* atomic */
};

static void *write_some(void *arg)
{
    struct crowd *c = arg;
    int i = 0;

    for (i = 0; i < WRITES; i++) {
        char id[16];
        char data[32];
        uint64_t version = 0;

        (void)snprintf(id, sizeof(id), "%d-%d", c->number, i);
        /* what was acknowledged is seen by whoever reads now */
        if (put(c->world, "a", id, id, &version) != ERR_OK ||
            get(c->world, "a", id, data, sizeof(data)) != ERR_OK || strcmp(id, data) != 0) {
            c->wrong++;
        }
    }
    return NULL;
}

/* Follows the change log; whatever happens, no version is missing and none comes twice. */
static void *follow(void *arg)
{
    struct crowd *c = arg;
    uint64_t server = info(c->world).server_version;
    uint64_t after = 0;

    while (after < (uint64_t)WRITERS * WRITES && !__atomic_load_n(&c->stop, __ATOMIC_SEQ_CST)) {
        CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
        size_t i = 0;

        broker_records_init(&out);
        if (changes(c->world, server, after, "", &out) != ERR_OK) {
            c->wrong++;
            return NULL;
        }
        for (i = 0; i < out.count; i++) {
            c->wrong += out.items[i].version == after + i + 1 ? 0 : 1;
        }
        after = out.position;
    }
    return NULL;
}

static void writers_and_followers_agree(struct world *w)
{
    struct crowd crowd[WRITERS + 2] = { { .world = NULL } };
    pthread_t thread[WRITERS + 2];
    int i = 0;

    world_open(w);
    for (i = 0; i < WRITERS + 2; i++) {
        crowd[i] = (struct crowd){ .world = w, .number = i };
        assert_int_equal(
            pthread_create(&thread[i], NULL, i < WRITERS ? write_some : follow, &crowd[i]), 0);
    }
    for (i = 0; i < WRITERS + 2; i++) {
        if (i == WRITERS && info(w).latest_version < (uint64_t)WRITERS * WRITES) {
            __atomic_store_n(&crowd[WRITERS].stop, 1, __ATOMIC_SEQ_CST);
            __atomic_store_n(&crowd[WRITERS + 1].stop, 1, __ATOMIC_SEQ_CST);
        }
        (void)pthread_join(thread[i], NULL);
        assert_int_equal(crowd[i].wrong, 0);
    }
    assert_int_equal(info(w).latest_version, WRITERS * WRITES);
}

struct racer {
    struct world *world;
    int got;
};

static void *race(void *arg)
{
    struct racer *r = arg;

    r->got = lease(r->world, BROKER_WRITE_LEASE_ACQUIRE, "", 60000, NULL) == ERR_OK ? 1 : 0;
    return NULL;
}

static void of_many_racers_one_gets_the_lease(struct world *w)
{
    struct racer racers[8];
    pthread_t thread[8];
    size_t i = 0;
    int got = 0;

    world_open(w);
    for (i = 0; i < ARRAY_LEN(racers); i++) {
        racers[i] = (struct racer){ .world = w };
        assert_int_equal(pthread_create(&thread[i], NULL, race, &racers[i]), 0);
    }
    for (i = 0; i < ARRAY_LEN(racers); i++) {
        (void)pthread_join(thread[i], NULL);
        got += racers[i].got;
    }
    assert_int_equal(got, 1);
}

/* ---- running --------------------------------------------------------------------------------- */

CASE(versions_grow_by_one_and_deletions_are_changes)
CASE(a_reopened_store_goes_on_where_it_stood)
CASE(a_batch_is_written_whole_or_not_at_all)
CASE(bytes_are_replaced_in_the_record_and_in_the_log)
CASE(pages_show_every_record_once)
CASE(changes_come_in_order_and_by_type)
CASE(queries_window_and_search)
CASE(a_search_reads_the_ids_it_is_given)
CASE(a_lease_has_one_holder_until_it_ends)
CASE(clear_empties_all_but_leases)
CASE(a_full_queue_and_a_late_write_are_refused)
CASE(a_full_disk_fails_writes_and_serves_reads)
CASE(a_read_has_a_deadline)
CASE(writers_and_followers_agree)
CASE(of_many_racers_one_gets_the_lease)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_grow_by_one_and_deletions_are_changes),
        cmocka_unit_test(test_a_reopened_store_goes_on_where_it_stood),
        cmocka_unit_test(test_a_batch_is_written_whole_or_not_at_all),
        cmocka_unit_test(test_bytes_are_replaced_in_the_record_and_in_the_log),
        cmocka_unit_test(test_pages_show_every_record_once),
        cmocka_unit_test(test_changes_come_in_order_and_by_type),
        cmocka_unit_test(test_queries_window_and_search),
        cmocka_unit_test(test_a_search_reads_the_ids_it_is_given),
        cmocka_unit_test(test_a_lease_has_one_holder_until_it_ends),
        cmocka_unit_test(test_clear_empties_all_but_leases),
        cmocka_unit_test(test_a_full_queue_and_a_late_write_are_refused),
        cmocka_unit_test(test_a_full_disk_fails_writes_and_serves_reads),
        cmocka_unit_test(test_a_read_has_a_deadline),
        cmocka_unit_test(test_writers_and_followers_agree),
        cmocka_unit_test(test_of_many_racers_one_gets_the_lease),
    };

    return cmocka_run_group_tests(tests, start_server, stop_server);
}
