/* What the writer does between writes: prune the change log, drop leases that ended, delete records past
 * their end and beyond their type's ttl and capacity. Small batches, so that no write waits long. */
#include "common/clock.h"
#include "databroker/store_sqlite_int.h"

enum { SWEEP_ROWS = 200, LEASE_KEEP_US = 60 * 1000000 };

/* Written before the retention began, or by a clock that ran ahead: such a change must not keep those
 * behind it until the time that it tells has come. */
static bool is_prunable(const struct broker_store *store, int64_t modified_us)
{
    int64_t now = clock_wall_us();
    int64_t retention_us = store->opts.retention_ms * 1000;

    return modified_us < now - retention_us ||
           modified_us > now + retention_us + BROKER_JUMP_MS * INT64_C(1000);
}

/* Only a run from the oldest change on is pruned: a clock that jumped makes no hole. */
static enum err prune_changes(struct broker_store *store, uint64_t *swept_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_CHANGES_OLDEST);
    uint64_t up_to = 0;
    uint64_t count = 0;
    bool row = false;
    enum err err = ERR_OK;

    broker_bind_i64(stmt, 1, SWEEP_ROWS);
    err = broker_conn_step(store->writer, stmt, &row);
    while (row && is_prunable(store, sqlite3_column_int64(stmt, 1))) {
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

    broker_bind_i64(stmt, 1, broker_steady_us(&store->steady, clock_wall_us()) - LEASE_KEEP_US);
    broker_bind_i64(stmt, 2, SWEEP_ROWS);
    err = broker_conn_run(store->writer, stmt);
    if (err == ERR_OK) {
        *swept_out += (uint64_t)sqlite3_changes64(store->writer->db);
    }
    return err;
}

/* Deletes the records whose type and id stmt tells. */
static enum err delete_found(struct broker_store *store, sqlite3_stmt *stmt, uint64_t *swept_out)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    size_t i = 0;
    bool row = false;
    enum err err = broker_conn_step(store->writer, stmt, &row);

    broker_records_init(&list);
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
        log_debug("databroker.expired", KV_SV("type", list.items[0].type),
                  KV_U64("records", list.count));
    }
    return err;
}

/* Deletes the oldest records of type, up to max of those last written before before_us. */
static enum err delete_oldest(struct broker_store *store, struct sv type, int64_t before_us,
                              uint64_t max, uint64_t *swept_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_RECORD_OLDER);

    broker_bind_sv(stmt, 1, type);
    broker_bind_i64(stmt, 2, before_us);
    broker_bind_u64(stmt, 3, MIN(max, (uint64_t)SWEEP_ROWS));
    return delete_found(store, stmt, swept_out);
}

/* Sessions and service accounts past their end. */
static enum err delete_ended(struct broker_store *store, uint64_t *swept_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_RECORD_ENDED);

    broker_bind_i64(stmt, 1, clock_wall_us() - BROKER_END_KEEP_MS * INT64_C(1000));
    broker_bind_i64(stmt, 2, SWEEP_ROWS);
    return delete_found(store, stmt, swept_out);
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
                              bool steady, uint64_t *swept_out)
{
    uint64_t count = 0;
    enum err err = ERR_OK;

    if (steady && options->ttl_ms > 0) {
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

static enum err expire_records(struct broker_store *store, bool steady, uint64_t *swept_out)
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

        err = apply_options(store, &options, steady, swept_out);
    }
    return err;
}

enum err broker_store_sweep(struct broker_store *store, uint64_t *swept_out)
{
    bool steady = broker_steady_now(&store->steady, clock_wall_us());
    enum err err = ERR_OK;

    *swept_out = 0;
    err = prune_changes(store, swept_out);
    if (err == ERR_OK) {
        err = expire_leases(store, swept_out);
    }
    if (err == ERR_OK && steady) {
        err = delete_ended(store, swept_out);
    }
    if (err == ERR_OK) {
        err = expire_records(store, steady, swept_out);
    }
    return err;
}
