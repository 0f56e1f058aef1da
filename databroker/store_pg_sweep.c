/* What the writer does between writes; what is swept is store_sqlite_sweep.c's. Every databroker does it,
 * and finds what another has left. */
#include "common/clock.h"
#include "common/log.h"
#include "databroker/store_pg_int.h"

enum { SWEEP_ROWS = 200 };

static const int64_t lease_keep_us = INT64_C(60) * 1000000;
static const int64_t writer_keep_us = INT64_C(86400) * 1000000;

static bool is_prunable(const struct broker_pg_txn *txn, int64_t modified_us)
{
    int64_t retention_us = txn->store->opts.retention_ms * 1000;

    return modified_us < txn->now_us - retention_us ||
           modified_us > txn->now_us + retention_us + BROKER_JUMP_MS * INT64_C(1000);
}

/* Only a run from the oldest change on is pruned: a clock that jumped makes no hole. */
static enum err prune_changes(struct broker_pg_txn *txn, uint64_t *swept_out)
{
    PGresult *result = NULL;
    int rows = 0;
    enum err err = broker_pg_next(txn->conn, &result);

    if (err != ERR_OK) {
        return err;
    }
    while (rows < PQntuples(result) && is_prunable(txn, broker_pg_i64(result, rows, 1))) {
        rows++;
    }
    if (rows > 0) {
        txn->state.log_floor = broker_pg_u64(result, rows - 1, 0);
        txn->write = true;
        *swept_out += (uint64_t)rows;
        broker_pg_add(txn->conn, BROKER_PG_CHANGES_PRUNE, PG_U64(txn->state.log_floor));
    }
    PQclear(result);
    return ERR_OK;
}

static enum err expire_leases(struct broker_pg_txn *txn, uint64_t *swept_out)
{
    PGresult *result = NULL;
    uint64_t rows = 0;
    enum err err = broker_pg_next(txn->conn, &result);

    if (err == ERR_OK && sv_u64(sv_from(PQcmdTuples(result)), UINT64_MAX, &rows) == ERR_OK) {
        txn->write = txn->write || rows > 0;
        *swept_out += rows;
    }
    PQclear(result);
    return err;
}

/* Deletes the records whose type and id come next. */
static enum err delete_found(struct broker_pg_txn *txn, uint64_t *swept_out)
{
    PGresult *result = NULL;
    int row = 0;
    enum err err = broker_pg_next(txn->conn, &result);

    if (err != ERR_OK) {
        return err;
    }
    for (row = 0; row < PQntuples(result); row++) {
        struct broker_record record = { .type = broker_pg_sv(result, row, 0),
                                        .id = broker_pg_sv(result, row, 1),
                                        .deleted_us = 1 };

        broker_pg_put_record(txn, &record);
    }
    if (row > 0) {
        *swept_out += (uint64_t)row;
        log_debug("databroker.expired", KV_SV("type", broker_pg_sv(result, 0, 0)),
                  KV_U64("records", (uint64_t)row));
    }
    PQclear(result);
    return ERR_OK;
}

/* Runs the added statement, which finds records, and deletes these. */
static enum err find_and_delete(struct broker_pg_txn *txn, uint64_t *swept_out)
{
    enum err err = ERR_OK;

    broker_pg_send(txn->conn);
    err = delete_found(txn, swept_out);
    return err == ERR_OK ? broker_pg_finish(txn->conn) : err;
}

/* Has done what was added: what is asked next sees it, and its answer is the next one. */
static enum err catch_up(struct broker_pg_txn *txn)
{
    broker_pg_send(txn->conn);
    return broker_pg_finish(txn->conn);
}

static enum err count_records(struct broker_pg_txn *txn, struct sv type, uint64_t *count_out)
{
    PGresult *result = NULL;
    enum err err = catch_up(txn);

    if (err != ERR_OK) {
        return err;
    }
    broker_pg_add(txn->conn, BROKER_PG_RECORD_COUNT, PG_TEXT(type));
    broker_pg_send(txn->conn);
    err = broker_pg_next(txn->conn, &result);
    if (err == ERR_OK) {
        *count_out = broker_pg_u64(result, 0, 0);
        PQclear(result);
        err = broker_pg_finish(txn->conn);
    }
    return err;
}

/* One type's ttl and capacity. */
static enum err apply_options(struct broker_pg_txn *txn, const struct broker_options *options,
                              bool steady, uint64_t *swept_out)
{
    uint64_t count = 0;
    enum err err = catch_up(txn);

    if (err == ERR_OK && options->ttl_ms > 0 && steady) {
        broker_pg_add(txn->conn, BROKER_PG_RECORD_OLDER, PG_TEXT(options->type),
                      PG_I64(txn->now_us - options->ttl_ms * 1000), PG_I64(SWEEP_ROWS));
        err = find_and_delete(txn, swept_out);
    }
    if (err == ERR_OK && options->capacity > 0) {
        err = count_records(txn, options->type, &count);
    }
    if (err == ERR_OK && options->capacity > 0 && count > options->capacity) {
        uint64_t beyond = MIN(count - options->capacity, (uint64_t)SWEEP_ROWS);

        broker_pg_add(txn->conn, BROKER_PG_RECORD_OLDER, PG_TEXT(options->type), PG_I64(INT64_MAX),
                      PG_U64(beyond));
        err = find_and_delete(txn, swept_out);
    }
    return err;
}

static enum err expire_records(struct broker_pg_txn *txn, const PGresult *types, bool steady,
                               uint64_t *swept_out)
{
    int row = 0;
    enum err err = ERR_OK;

    for (row = 0; row < PQntuples(types) && err == ERR_OK; row++) {
        const struct broker_options options = { .type = broker_pg_sv(types, row, 0),
                                                .capacity = broker_pg_u64(types, row, 2),
                                                .ttl_ms = broker_pg_i64(types, row, 3) };

        err = apply_options(txn, &options, steady, swept_out);
    }
    return err;
}

enum err broker_pg_sweep(struct broker_pg_txn *txn, uint64_t *swept_out)
{
    struct broker_pg_conn *conn = txn->conn;
    bool steady = broker_steady_now(&txn->store->steady, txn->now_us);
    int64_t keep_us = BROKER_END_KEEP_MS * INT64_C(1000);
    PGresult *types = NULL;
    enum err err = broker_pg_finish(conn); /* what began the transaction */

    *swept_out = 0;
    if (err != ERR_OK) {
        return err;
    }
    broker_pg_add(conn, BROKER_PG_CHANGES_OLDEST, PG_I64(SWEEP_ROWS));
    broker_pg_add(conn, BROKER_PG_LEASE_EXPIRE, PG_I64(txn->now_us - lease_keep_us),
                  PG_I64(SWEEP_ROWS));
    broker_pg_add(conn, BROKER_PG_WRITERS_PRUNE, PG_I64(txn->now_us - writer_keep_us));
    broker_pg_add(conn, BROKER_PG_RECORD_ENDED, PG_I64(steady ? txn->now_us - keep_us : INT64_MIN),
                  PG_I64(SWEEP_ROWS));
    broker_pg_add(conn, BROKER_PG_OPTIONS_ALL);
    broker_pg_send(conn);
    err = prune_changes(txn, swept_out);
    if (err == ERR_OK) {
        err = expire_leases(txn, swept_out);
    }
    if (err == ERR_OK) {
        err = broker_pg_skip(conn);
    }
    if (err == ERR_OK) {
        err = delete_found(txn, swept_out);
    }
    if (err == ERR_OK) {
        err = broker_pg_next(conn, &types);
    }
    if (err == ERR_OK) {
        err = broker_pg_finish(conn);
    }
    if (err == ERR_OK) {
        err = expire_records(txn, types, steady, swept_out);
    }
    PQclear(types);
    return err;
}
