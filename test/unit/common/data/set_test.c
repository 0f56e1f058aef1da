/* set: what is written of a type so that rows come into force, all or none, and nothing in vain. */
#include "common/data/set.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/map.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

/* A store in memory that may be told to fail at its n-th put. */
struct store {
    struct map *records; /* id: struct buf * */
    size_t puts;
    size_t written;
    size_t fail_at; /* 0: never */
};

static void record_free(struct buf **b)
{
    if (*b != NULL) {
        buf_deinit(*b);
        mem_free(b);
    }
}

struct reading {
    data_record_fn each;
    void *arg;
};

static void read_one(struct sv id, void *value, void *arg)
{
    const struct reading *r = arg;

    r->each(id, buf_sv(value), r->arg);
}

static enum err read_all(void *arg, const char *type, data_record_fn each, void *each_arg,
                         struct diag *d)
{
    const struct store *store = arg;
    struct reading r = { .each = each, .arg = each_arg };

    (void)d;
    assert_string_equal(type, "acme.test/t");
    map_each(store->records, read_one, &r);
    return ERR_OK;
}

static enum err put(void *arg, const char *type, const struct data_record *records, size_t n,
                    struct diag *d)
{
    struct store *store = arg;

    (void)type;
    assert_true(n <= DATA_SET_BATCH);
    if (++store->puts == store->fail_at) {
        diag_set(d, "the disk is full");
        return ERR_LIMIT;
    }
    for (size_t i = 0; i < n; i++) {
        struct buf *b = NULL;

        if (records[i].data.p != NULL) {
            b = MEM_NEW(struct buf);
            buf_init(b, DATA_ROW_MAX);
            buf_add_sv(b, records[i].data);
        }
        struct buf *old = b != NULL ? map_set(store->records, records[i].id, b)
                                    : map_take(store->records, records[i].id);
        record_free(&old);
    }
    store->written += n;
    return ERR_OK;
}

static void free_one(struct sv id, void *value, void *arg)
{
    struct buf *b = value;

    (void)id;
    (void)arg;
    record_free(&b);
}

static void store_free(struct store *store)
{
    map_each(store->records, free_one, NULL);
    map_free(&store->records);
}

/* n rows from `first` on, all with the same note. */
static struct data_rows *make(size_t first, size_t n, const char *note)
{
    const struct data_source source = { .name = "t.csv",
                                        .format = DATA_CSV,
                                        .key = DATA_KEY_EMAIL };
    struct data_rows *rows = NULL;
    struct diag d = { .line = 0 };
    struct buf text;

    buf_init(&text, DATA_BYTES_MAX);
    buf_add_str(&text, "email,note\n");
    for (size_t i = 0; i < n; i++) {
        buf_printf(&text, "u%zu@x.test,%s\n", first + i, note);
    }
    assert_int_equal(data_rows_read(buf_sv(&text), &source, &rows, &d), ERR_OK);
    buf_deinit(&text);
    return rows;
}

static enum err apply(struct store *store, struct data_rows *rows, bool may_be_empty,
                      struct data_counts *counts_out)
{
    const struct data_store at = { .read = read_all, .put = put, .arg = store };
    const struct data_change change = {
        .type = "acme.test/t", .key = DATA_KEY_EMAIL, .rows = rows, .may_be_empty = may_be_empty
    };
    struct diag d = { .line = 0 };
    enum err err = data_set_apply(&at, &change, counts_out, &d);

    data_rows_free(&rows);
    return err;
}

static void a_small_change_is_one_put_and_none_is_no_put(void **state)
{
    struct store store = { .records = map_new() };
    struct data_counts c;

    (void)state;
    assert_int_equal(apply(&store, make(0, 10, "a"), false, &c), ERR_OK);
    assert_int_equal(c.added, 10);
    assert_int_equal(map_count(store.records), 11);
    store.puts = 0;
    store.written = 0;
    assert_int_equal(apply(&store, make(0, 10, "a"), false, &c), ERR_OK);
    assert_int_equal(c.same, 10);
    assert_int_equal(store.puts, 0);
    assert_int_equal(apply(&store, make(1, 10, "a"), false, &c), ERR_OK);
    assert_int_equal(c.added, 1);
    assert_int_equal(c.removed, 1);
    assert_int_equal(store.puts, 1);
    assert_int_equal(store.written, 2); /* as many rows as before: "set" says the same */
    store_free(&store);
}

static void a_large_change_that_is_cut_off_anywhere_changes_nothing_in_force(void **state)
{
    struct store store = { .records = map_new() };
    struct data_counts c;

    (void)state;
    assert_int_equal(apply(&store, make(0, 1200, "a"), false, &c), ERR_OK);
    for (size_t at = 1; at <= 3; at++) {
        store.puts = 0;
        store.fail_at = at;
        assert_int_equal(apply(&store, make(0, 1200, "b"), false, &c), ERR_LIMIT);
        store.fail_at = 0;
        assert_int_equal(apply(&store, make(0, 1200, "a"), false, &c), ERR_OK);
        assert_int_equal(c.same, 1200);
        assert_int_equal(map_count(store.records), 1201); /* and what was left over is gone */
    }
    store.puts = 0;
    store.fail_at = 4; /* the new rows are in force then; the old ones wait for the next time */
    assert_int_equal(apply(&store, make(0, 1200, "b"), false, &c), ERR_OK);
    assert_true(c.is_littered);
    store.fail_at = 0;
    assert_int_equal(apply(&store, make(0, 1200, "b"), false, &c), ERR_OK);
    assert_int_equal(c.same, 1200);
    assert_false(c.is_littered);
    assert_int_equal(map_count(store.records), 1201);
    store_free(&store);
}

static void no_rows_end_those_in_force_only_where_they_may(void **state)
{
    struct store store = { .records = map_new() };
    struct data_counts c;

    (void)state;
    assert_int_equal(apply(&store, make(0, 0, "a"), false, &c), ERR_OK);
    assert_int_equal(apply(&store, make(0, 3, "a"), false, &c), ERR_OK);
    assert_int_equal(apply(&store, make(0, 0, "a"), false, &c), ERR_DENIED);
    assert_int_equal(c.removed, 3);
    assert_int_equal(map_count(store.records), 4);
    assert_int_equal(apply(&store, make(0, 0, "a"), true, &c), ERR_OK);
    assert_int_equal(map_count(store.records), 1);
    store_free(&store);
}

static void the_word_of_a_source_is_none_of_the_rows(void **state)
{
    struct store store = { .records = map_new() };
    const struct data_record source = { .id = SV(DATA_SOURCE_ID), .data = SV("x") };
    struct data_counts c;

    (void)state;
    assert_int_equal(put(&store, "", &source, 1, NULL), ERR_OK);
    assert_int_equal(apply(&store, make(0, 2, "a"), false, &c), ERR_OK);
    assert_int_equal(apply(&store, make(0, 1, "b"), false, &c), ERR_OK);
    assert_int_equal(c.removed, 1);
    assert_non_null(map_get(store.records, SV(DATA_SOURCE_ID)));
    store_free(&store);
}

static enum err apply_weighed(struct store *store, size_t n, size_t weight, bool may_shrink,
                              struct data_counts *counts_out)
{
    const struct data_store at = { .read = read_all, .put = put, .arg = store };
    struct data_rows *rows = make(0, n, "a");
    struct data_change change = {
        .type = "acme.test/t", .key = DATA_KEY_EMAIL, .rows = rows, .may_shrink = may_shrink
    };
    struct diag d = { .line = 0 };

    rows->weight = weight;
    enum err err = data_set_apply(&at, &change, counts_out, &d);

    data_rows_free(&rows);
    return err;
}

static void a_loss_is_refused_where_it_may_be_a_mistake(void **state)
{
    struct store store = { .records = map_new() };
    struct data_counts c;

    (void)state;
    assert_false(data_set_is_loss(10, 4));
    assert_true(data_set_is_loss(10, 5));
    assert_false(data_set_is_loss(40, 8));
    assert_true(data_set_is_loss(40, 9));
    assert_false(data_set_is_loss(0, 0));
    assert_int_equal(apply_weighed(&store, 40, 100, false, &c), ERR_OK);
    assert_int_equal(apply_weighed(&store, 31, 100, false, &c), ERR_DENIED);
    assert_int_equal(c.removed, 9);
    assert_int_equal(apply_weighed(&store, 40, 79, false, &c), ERR_DENIED);
    assert_int_equal(c.weight_before, 100);
    assert_int_equal(apply_weighed(&store, 40, 80, false, &c), ERR_OK);
    /* What it weighs now is what counts next. */
    assert_int_equal(apply_weighed(&store, 40, 64, false, &c), ERR_OK);
    assert_int_equal(apply_weighed(&store, 1, 1, true, &c), ERR_OK);
    assert_int_equal(map_count(store.records), 2);
    store_free(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_change_is_one_put_and_none_is_no_put),
        cmocka_unit_test(a_large_change_that_is_cut_off_anywhere_changes_nothing_in_force),
        cmocka_unit_test(no_rows_end_those_in_force_only_where_they_may),
        cmocka_unit_test(the_word_of_a_source_is_none_of_the_rows),
        cmocka_unit_test(a_loss_is_refused_where_it_may_be_a_mistake),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
