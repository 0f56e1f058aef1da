/* What the writer does between writes: prune the change log, drop leases that ended, delete records
 * beyond their type's ttl and capacity. Small batches, so that no write waits long. */
#include "common/clock.h"
#include "databroker/store_sqlite_int.h"

enum { SWEEP_ROWS = 200, LEASE_KEEP_US = 60 * 1000000 };

/* Only a run from the oldest change on is pruned: a clock that jumped makes no hole. */
static enum err prune_changes(struct broker_store *store, uint64_t *swept_out)
{
    int64_t before_us = clock_wall_us() - store->opts.retention_ms * 1000;
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_CHANGES_OLDEST);
    uint64_t up_to = 0;
    uint64_t count = 0;
    bool row = false;
    enum err err = ERR_OK;

    broker_bind_i64(stmt, 1, SWEEP_ROWS);
    err = broker_conn_step(store->writer, stmt, &row);
    while (row && sqlite3_column_int64(stmt, 1) < before_us) {
        up_to = broker_col_u64(stmt, 0);
        count++;
        err = broker_conn_step(store->writer, stmt, &row);
    }
    if (row) {
        broker_conn_done(stmt);
    }
    if (err != ERR_OK || count == 0) {
        return err;
    }
    stmt = broker_conn_stmt(store->writer, BROKER_SQL_CHANGES_PRUNE);
    broker_bind_u64(stmt, 1, up_to);
    err = broker_conn_run(store->writer, stmt);
    if (err == ERR_OK) {
        store->state.log_floor = up_to;
        *swept_out += count;
    }
    return err;
}

static enum err expire_leases(struct broker_store *store, uint64_t *swept_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_LEASE_EXPIRE);
    enum err err = ERR_OK;

    broker_bind_i64(stmt, 1, clock_wall_us() - LEASE_KEEP_US);
    broker_bind_i64(stmt, 2, SWEEP_ROWS);
    err = broker_conn_run(store->writer, stmt);
    if (err == ERR_OK) {
        *swept_out += (uint64_t)sqlite3_changes64(store->writer->db);
    }
    return err;
}

/* Deletes the oldest records of type, up to max of those last written before before_us. */
static enum err delete_oldest(struct broker_store *store, struct sv type, int64_t before_us,
                              uint64_t max, uint64_t *swept_out)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_RECORD_OLDER);
    size_t i = 0;
    bool row = false;
    enum err err = ERR_OK;

    broker_records_init(&list);
    broker_bind_sv(stmt, 1, type);
    broker_bind_i64(stmt, 2, before_us);
    broker_bind_u64(stmt, 3, MIN(max, (uint64_t)SWEEP_ROWS));
    err = broker_conn_step(store->writer, stmt, &row);
    while (row) {
        struct broker_record record = { .type = broker_col_sv(stmt, 0),
                                        .id = broker_col_sv(stmt, 1),
                                        .deleted_us = 1 };

        broker_records_add(&list, &record);
        err = broker_conn_step(store->writer, stmt, &row);
    }
    for (i = 0; i < list.count && err == ERR_OK; i++) {
        err = broker_store_put_record(store, &list.items[i]);
    }
    if (err == ERR_OK && list.count > 0) {
        *swept_out += list.count;
        log_info("databroker.expired", KV_SV("type", type), KV_U64("records", list.count));
    }
    return err;
}

static enum err count_records(struct broker_store *store, struct sv type, uint64_t *count_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_RECORD_COUNT);
    bool row = false;
    enum err err = ERR_OK;

    *count_out = 0;
    broker_bind_sv(stmt, 1, type);
    err = broker_conn_step(store->writer, stmt, &row);
    if (row) {
        *count_out = broker_col_u64(stmt, 0);
        broker_conn_done(stmt);
    }
    return err;
}

/* One type's ttl and capacity. */
static enum err apply_options(struct broker_store *store, const struct broker_options *options,
                              uint64_t *swept_out)
{
    uint64_t count = 0;
    enum err err = ERR_OK;

    if (options->ttl_ms > 0) {
        err = delete_oldest(store, options->type, clock_wall_us() - options->ttl_ms * 1000,
                            SWEEP_ROWS, swept_out);
    }
    if (err == ERR_OK && options->capacity > 0) {
        err = count_records(store, options->type, &count);
        if (err == ERR_OK && count > options->capacity) {
            err = delete_oldest(store, options->type, INT64_MAX, count - options->capacity,
                                swept_out);
        }
    }
    return err;
}

static enum err expire_records(struct broker_store *store, uint64_t *swept_out)
{
    CLEANUP(broker_records_deinit) struct broker_records types = { .items = NULL };
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_OPTIONS_ALL);
    size_t i = 0;
    bool row = false;
    enum err err = broker_conn_step(store->writer, stmt, &row);

    broker_records_init(&types);
    while (row) {
        /* capacity and ttl travel in the fields of a record that are free here */
        struct broker_record record = { .type = broker_col_sv(stmt, 0),
                                        .version = broker_col_u64(stmt, 2),
                                        .modified_us = sqlite3_column_int64(stmt, 3) };

        broker_records_add(&types, &record);
        err = broker_conn_step(store->writer, stmt, &row);
    }
    for (i = 0; i < types.count && err == ERR_OK; i++) {
        const struct broker_options options = { .type = types.items[i].type,
                                                .capacity = types.items[i].version,
                                                .ttl_ms = types.items[i].modified_us };

        err = apply_options(store, &options, swept_out);
    }
    return err;
}

enum err broker_store_sweep(struct broker_store *store, uint64_t *swept_out)
{
    enum err err = ERR_OK;

    *swept_out = 0;
    err = prune_changes(store, swept_out);
    if (err == ERR_OK) {
        err = expire_leases(store, swept_out);
    }
    if (err == ERR_OK) {
        err = expire_records(store, swept_out);
    }
    return err;
}
