/* store_world: one store of each kind for a test of what every store promises, and the calls that such
 * tests share. Included once a program: it holds the PostgreSQL server. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "databroker/store.h"
#include "databroker/writer.h"
#include "test/support/cmocka.h"
#include "test/support/postgres.h"

enum { LONG_MS = 20000 };

enum kind { IN_A_FILE = 0, IN_MEMORY, IN_POSTGRES };

struct world {
    const struct broker_store_ops *ops;
    enum kind kind;
    struct broker_store_opts opts;
    struct broker_store *store;
    char folder[64];
    char file[96];
};

static const struct {
    const struct broker_store_ops *ops;
    enum kind kind;
} stores[] = { { &broker_store_sqlite, IN_A_FILE },
               { &broker_store_sqlite, IN_MEMORY },
               { &broker_store_pg, IN_POSTGRES } };

static struct postgres pg;

static inline int64_t soon(void)
{
    return clock_mono_ms() + LONG_MS;
}

/* A refusal after so long is the machine's, which stood still beyond a bound of the store's: it says nothing of
 * what the store does, so that is asked again, three times at most. */
static inline bool stood_still(enum err err, int64_t began_ms, int *tries)
{
    *tries += 1;
    return (err == ERR_UNAVAILABLE || err == ERR_TIMEOUT) && *tries < 4 &&
           clock_mono_ms() - began_ms >= BROKER_GROUP_MS;
}

static inline void world_open(struct world *w)
{
    const char *const targets[] = { w->file, NULL, pg.target };
    struct diag d = { .text = "" };
    int64_t began_ms = 0;
    int tries = 0;
    enum err err = ERR_OK;

    w->opts.target = targets[w->kind];
    do {
        began_ms = clock_mono_ms();
        d = (struct diag){ .text = "" };
        err = w->ops->open(&w->opts, &w->store, &d);
    } while (stood_still(err, began_ms, &tries));
    if (err != ERR_OK) {
        fail_msg("%s", d.text);
    }
}

static inline void world_init(struct world *w, size_t which)
{
    *w = (struct world){ .ops = stores[which].ops, .kind = stores[which].kind };
    if (w->kind == IN_POSTGRES) {
        postgres_sql(&pg, "DROP SCHEMA IF EXISTS postern CASCADE");
    }
    (void)snprintf(w->folder, sizeof(w->folder), "/tmp/postern-store-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    (void)snprintf(w->file, sizeof(w->file), "%s/db", w->folder);
}

static inline void world_end(struct world *w)
{
    static const char *const ends[] = { "", "-wal", "-shm", ".lock" };
    size_t i = 0;

    w->ops->close(&w->store);
    for (i = 0; i < ARRAY_LEN(ends); i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), "%s%s", w->file, ends[i]);
        (void)unlink(path);
    }
    (void)rmdir(w->folder);
}

/* Puts (or deletes, data NULL) one record and returns how it went; *version_out may be NULL. */
static inline enum err put(struct world *w, const char *type, const char *id, const char *data,
                           uint64_t *version_out)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_record record = { .type = sv_from(type),
                                    .id = sv_from(id),
                                    .data_type = SV("t"),
                                    .data = sv_from(data),
                                    .deleted_us = data == NULL ? 1 : 0 };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };
    int64_t began_ms = 0;
    int tries = 0;
    enum err err = ERR_OK;

    broker_records_init(&list);
    broker_records_add(&list, &record);
    do {
        began_ms = clock_mono_ms();
        err = broker_store_write(w->ops, w->store, &write);
    } while (stood_still(err, began_ms, &tries));
    if (version_out != NULL) {
        *version_out = list.items[0].version;
    }
    return err;
}

static inline enum err get(struct world *w, const char *type, const char *id, char *data,
                           size_t room)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    enum err err = ERR_OK;

    broker_records_init(&out);
    err = w->ops->get(w->store, sv_from(type), sv_from(id), soon(), &out);
    if (err == ERR_OK) {
        (void)snprintf(data, room, "%.*s", SV_ARG(out.items[0].data));
    }
    return err;
}

static inline struct broker_info info(struct world *w)
{
    struct broker_info i = { 0 };
    int64_t began_ms = 0;
    int tries = 0;
    enum err err = ERR_OK;

    do {
        began_ms = clock_mono_ms();
        err = w->ops->info(w->store, soon(), &i);
    } while (stood_still(err, began_ms, &tries));
    assert_int_equal(err, ERR_OK);
    return i;
}

static inline enum err simple(struct world *w, enum broker_write_kind kind)
{
    struct broker_write write = { .kind = kind };

    return broker_store_write(w->ops, w->store, &write);
}

static inline uint64_t sweep(struct world *w)
{
    struct broker_write write = { .kind = BROKER_WRITE_SWEEP };

    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
    return write.swept_out;
}

static inline enum err changes(struct world *w, uint64_t server, uint64_t after, const char *type,
                               struct broker_records *out)
{
    broker_records_deinit(out);
    broker_records_init(out);
    return w->ops->changes(w->store, server, after, sv_from(type), soon(), out);
}

static inline void put_many(struct world *w, const char *type, int from, int n)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };
    int i = 0;

    broker_records_init(&list);
    for (i = from; i < from + n; i++) {
        char id[16];
        struct broker_record record = { .type = sv_from(type),
                                        .data_type = SV("t"),
                                        .data = SV("the SAME Text in all") };

        (void)snprintf(id, sizeof(id), "%05d", i);
        record.id = sv_from(id);
        broker_records_add(&list, &record);
    }
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
}

static inline void set_options(struct world *w, const char *type, uint64_t capacity, int64_t ttl_ms)
{
    struct broker_write write = { .kind = BROKER_WRITE_OPTIONS,
                                  .options = { .type = sv_from(type),
                                               .bytes = SV("bytes"),
                                               .capacity = capacity,
                                               .ttl_ms = ttl_ms } };

    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
}

static inline uint64_t sweep_all(struct world *w, uint64_t batch_max)
{
    uint64_t all = 0;
    uint64_t batch = 0;

    do {
        batch = sweep(w);
        assert_true(batch <= batch_max);
        all += batch;
    } while (batch > 0);
    return all;
}

typedef void (*case_fn)(struct world *w);

static inline void for_each_store(case_fn fn)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(stores); i++) {
        struct world w;

        world_init(&w, i);
        fn(&w);
        world_end(&w);
    }
}

#define CASE(name)                        \
    static void test_##name(void **state) \
    {                                     \
        (void)state;                      \
        for_each_store(name);             \
    }

static inline int start_server(void **state)
{
    (void)state;
    postgres_start(&pg);
    return 0;
}

static inline int stop_server(void **state)
{
    (void)state;
    postgres_stop(&pg);
    return 0;
}
