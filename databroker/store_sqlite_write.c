/* What the writer's thread does: applies many writes in one transaction. */
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "databroker/store_sqlite_int.h"

enum err broker_store_put_record(struct broker_store *store, struct broker_record *record)
{
    struct broker_conn *conn = store->writer;
    bool deletion = record->deleted_us != 0;
    sqlite3_stmt *stmt = NULL;
    enum err err = ERR_OK;

    record->version = store->state.latest_version + 1;
    record->modified_us = clock_wall_us();
    if (deletion) {
        record->deleted_us = record->modified_us;
        record->data = SV("");
        stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_DELETE);
        broker_bind_sv(stmt, 1, record->type);
        broker_bind_sv(stmt, 2, record->id);
    } else {
        stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_PUT);
        broker_bind_u64(stmt, 1, record->version);
        broker_bind_sv(stmt, 2, record->type);
        broker_bind_sv(stmt, 3, record->id);
        broker_bind_i64(stmt, 4, record->modified_us);
        broker_bind_sv(stmt, 5, record->data_type);
        broker_bind_blob(stmt, 6, record->data);
        broker_bind_i64(stmt, 7, record->ends_us);
    }
    err = broker_conn_run(conn, stmt);
    if (err != ERR_OK) {
        return err;
    }
    stmt = broker_conn_stmt(conn, BROKER_SQL_CHANGE_PUT);
    broker_bind_u64(stmt, 1, record->version);
    broker_bind_sv(stmt, 2, record->type);
    broker_bind_sv(stmt, 3, record->id);
    broker_bind_i64(stmt, 4, record->modified_us);
    broker_bind_i64(stmt, 5, record->deleted_us);
    broker_bind_sv(stmt, 6, record->data_type);
    broker_bind_blob(stmt, 7, record->data);
    err = broker_conn_run(conn, stmt);
    if (err == ERR_OK) {
        store->state.latest_version = record->version;
    }
    return err;
}

static enum err check_version(struct broker_conn *conn, const struct broker_record *record)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_VERSION);
    bool row = false;
    bool same = false;
    enum err err = ERR_OK;

    broker_bind_sv(stmt, 1, record->type);
    broker_bind_sv(stmt, 2, record->id);
    err = broker_conn_step(conn, stmt, &row);
    if (row) {
        same = broker_col_u64(stmt, 0) == record->if_version;
        broker_conn_done(stmt);
    }
    return err != ERR_OK || same ? err : ERR_ABORTED;
}

static enum err apply_put(struct broker_store *store, struct broker_write *w)
{
    size_t i = 0;
    enum err err = ERR_OK;

    for (i = 0; i < w->records->count && err == ERR_OK; i++) {
        struct broker_record *record = &w->records->items[i];

        if (record->if_version != 0) {
            err = check_version(store->writer, record);
        }
        if (err == ERR_OK) {
            err = broker_store_put_record(store, record);
        }
    }
    return err;
}

static enum err replace_one(struct broker_conn *conn, const struct broker_record *record)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_REPLACE);
    enum err err = ERR_OK;

    broker_bind_blob(stmt, 1, record->data);
    broker_bind_u64(stmt, 2, record->version);
    broker_bind_sv(stmt, 3, record->type);
    broker_bind_sv(stmt, 4, record->id);
    err = broker_conn_run(conn, stmt);
    if (err != ERR_OK) {
        return err;
    }
    stmt = broker_conn_stmt(conn, BROKER_SQL_CHANGE_REPLACE);
    broker_bind_blob(stmt, 1, record->data);
    broker_bind_u64(stmt, 2, record->version);
    return broker_conn_run(conn, stmt);
}

static enum err apply_replace(struct broker_store *store, const struct broker_write *w)
{
    enum err err = ERR_OK;

    for (size_t i = 0; i < w->records->count && err == ERR_OK; i++) {
        err = replace_one(store->writer, &w->records->items[i]);
    }
    return err;
}

static enum err apply_options(struct broker_store *store, struct broker_write *w)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_OPTIONS_PUT);

    broker_bind_sv(stmt, 1, w->options.type);
    broker_bind_blob(stmt, 2, w->options.bytes);
    broker_bind_u64(stmt, 3, w->options.capacity);
    broker_bind_i64(stmt, 4, w->options.ttl_ms);
    return broker_conn_run(store->writer, stmt);
}

/* Leases stay: they guard things that must happen once, whatever becomes of the records. */
static enum err apply_clear(struct broker_store *store, struct broker_write *w)
{
    static const enum broker_sql steps[] = { BROKER_SQL_CLEAR_RECORDS, BROKER_SQL_CLEAR_CHANGES,
                                             BROKER_SQL_CLEAR_OPTIONS };

    size_t i = 0;
    enum err err = ERR_OK;

    for (i = 0; i < ARRAY_LEN(steps) && err == ERR_OK; i++) {
        err = broker_conn_run(store->writer, broker_conn_stmt(store->writer, steps[i]));
    }
    w->old_server_version_out = store->state.server_version;
    do {
        store->state.server_version = rand_u64();
    } while (store->state.server_version == 0 ||
             store->state.server_version == w->old_server_version_out);
    store->state.log_floor = store->state.latest_version;
    return err;
}

/* Who holds w's lease now. *held_out: somebody; *mine_out: whoever shows w->lease_id. */
static enum err lease_look(struct broker_store *store, const struct broker_write *w, bool *held_out,
                           bool *mine_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_LEASE_GET);
    bool row = false;
    enum err err = ERR_OK;

    *held_out = false;
    *mine_out = false;
    broker_bind_sv(stmt, 1, w->lease_name);
    err = broker_conn_step(store->writer, stmt, &row);
    if (row) {
        *held_out =
            sqlite3_column_int64(stmt, 1) > broker_steady_us(&store->steady, clock_wall_us());
        *mine_out = *held_out && sv_eq(broker_col_sv(stmt, 0), w->lease_id);
        broker_conn_done(stmt);
    }
    return err;
}

static enum err lease_put(struct broker_store *store, const struct broker_write *w, struct sv id)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_LEASE_PUT);

    broker_bind_sv(stmt, 1, w->lease_name);
    broker_bind_sv(stmt, 2, id);
    broker_bind_i64(stmt, 3,
                    broker_steady_us(&store->steady, clock_wall_us()) + w->lease_ms * 1000);
    return broker_conn_run(store->writer, stmt);
}

static enum err apply_lease(struct broker_store *store, struct broker_write *w)
{
    bool held = false;
    bool mine = false;
    sqlite3_stmt *stmt = NULL;
    enum err err = lease_look(store, w, &held, &mine);

    if (err != ERR_OK) {
        return err;
    }
    if (w->kind == BROKER_WRITE_LEASE_ACQUIRE) {
        if (held) {
            return ERR_EXISTS;
        }
        rand_uuid(w->lease_id_out);
        return lease_put(store, w, sv_from(w->lease_id_out));
    }
    if (w->kind == BROKER_WRITE_LEASE_RENEW) {
        return mine ? lease_put(store, w, w->lease_id) : ERR_EXISTS;
    }
    stmt = broker_conn_stmt(store->writer, BROKER_SQL_LEASE_DELETE);
    broker_bind_sv(stmt, 1, w->lease_name);
    broker_bind_sv(stmt, 2, w->lease_id);
    return broker_conn_run(store->writer, stmt);
}

/* A log that cannot be moved to the file fills the disk: that is said before it is full. */
static enum err apply_probe(struct broker_store *store)
{
    struct broker_conn *conn = store->writer;
    int64_t now = clock_wall_us();
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_PROBE_PUT);
    bool row = false;
    enum err err = store->settle.checkpoint_err;

    if (err != ERR_OK) {
        return err;
    }
    broker_bind_i64(stmt, 1, now);
    err = broker_conn_run(conn, stmt);
    if (err != ERR_OK) {
        return err;
    }
    stmt = broker_conn_stmt(conn, BROKER_SQL_PROBE_GET);
    err = broker_conn_step(conn, stmt, &row);
    if (row) {
        err = sqlite3_column_int64(stmt, 0) == now ? ERR_OK : ERR_IO;
        broker_conn_done(stmt);
    }
    return err;
}

static enum err apply(struct broker_store *store, struct broker_write *w)
{
    switch (w->kind) {
    case BROKER_WRITE_PUT:
        return apply_put(store, w);
    case BROKER_WRITE_REPLACE:
        return apply_replace(store, w);
    case BROKER_WRITE_OPTIONS:
        return apply_options(store, w);
    case BROKER_WRITE_CLEAR:
        return apply_clear(store, w);
    case BROKER_WRITE_LEASE_ACQUIRE:
    case BROKER_WRITE_LEASE_RENEW:
    case BROKER_WRITE_LEASE_RELEASE:
        return apply_lease(store, w);
    case BROKER_WRITE_PROBE:
        return apply_probe(store);
    case BROKER_WRITE_SWEEP:
        return broker_store_sweep(store, &w->swept_out);
    case BROKER_WRITE_CONFIRMED:
    case BROKER_WRITE_NONE:
        break;
    }
    return ERR_INTERNAL;
}

static enum err run(struct broker_store *store, enum broker_sql which)
{
    return broker_conn_run(store->writer, broker_conn_stmt(store->writer, which));
}

/* SQLite itself has rolled all back: disk full, I/O error, interrupt. */
static bool is_lost(const struct broker_store *store)
{
    return sqlite3_get_autocommit(store->writer->db) != 0;
}

/* A write of one record needs no savepoint: if its version does not fit nothing has been written, and
 * what fails after that fails the group, whose writes are then tried one by one. */
static enum err apply_single(struct broker_store *store, struct broker_write *w)
{
    struct broker_record *record = &w->records->items[0];

    w->server_version_out = store->state.server_version;
    w->err = record->if_version != 0 ? check_version(store->writer, record) : ERR_OK;
    if (w->err != ERR_OK) {
        return is_lost(store) ? w->err : ERR_OK;
    }
    return broker_store_put_record(store, record);
}

/* Applies w within the transaction, whole or not at all. Returns an error only if the transaction
 * is beyond repair; what became of w alone is in w->err. */
static enum err apply_one(struct broker_store *store, struct broker_write *w)
{
    struct broker_state before = store->state;
    enum err err = ERR_OK;

    if (w->kind == BROKER_WRITE_PUT && w->records->count == 1) {
        return apply_single(store, w);
    }
    err = run(store, BROKER_SQL_SAVEPOINT);
    if (err != ERR_OK) {
        return err;
    }
    w->err = apply(store, w);
    if (w->err != ERR_OK) {
        store->state = before;
        if (is_lost(store)) {
            return w->err;
        }
        err = run(store, BROKER_SQL_SAVEPOINT_BACK);
    }
    w->server_version_out = store->state.server_version;
    return err == ERR_OK ? run(store, BROKER_SQL_SAVEPOINT_DONE) : err;
}

static enum err save_state(struct broker_store *store)
{
    sqlite3_stmt *stmt = broker_conn_stmt(store->writer, BROKER_SQL_STATE_PUT);

    broker_bind_u64(stmt, 1, store->state.server_version);
    broker_bind_u64(stmt, 2, store->state.latest_version);
    broker_bind_u64(stmt, 3, store->state.log_floor);
    return broker_conn_run(store->writer, stmt);
}

/* It takes all of them. NOLINTBEGIN(readability-non-const-parameter): it is a broker_transact_fn */
enum err broker_store_transact(struct broker_store *store, struct broker_write *const *group,
                               size_t *n)
/* NOLINTEND(readability-non-const-parameter) */
{
    struct broker_state before;
    size_t i = 0;
    enum err err = ERR_OK;

    err = broker_store_settle(store);
    if (err != ERR_OK) {
        return err;
    }
    before = store->state;
    store->writer->deadline_ms = clock_mono_ms() + BROKER_GROUP_MS;
    err = run(store, BROKER_SQL_BEGIN_WRITE);
    for (i = 0; i < *n && err == ERR_OK; i++) {
        err = apply_one(store, group[i]);
    }
    if (err == ERR_OK && memcmp(&before, &store->state, sizeof(before)) != 0) {
        err = save_state(store);
    }
    if (err == ERR_OK) {
        err = run(store, BROKER_SQL_COMMIT);
    }
    if (err != ERR_OK) {
        store->state = before;
        broker_conn_rollback(store->writer);
    }
    if (err == ERR_OK || err == ERR_LIMIT) { /* once it is empty, the log has room on a full disk */
        broker_store_checkpoint(store, err == ERR_LIMIT);
    }
    return err;
}
