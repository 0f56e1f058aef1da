/* Reads: each takes an idle connection, reads inside one transaction and gives it back. */
#include "common/clock.h"
#include "databroker/store_sqlite_int.h"

enum { PAGE_RECORDS = 500, SCAN_ROWS = 4096 };

/* Takes a reader and opens a transaction: what is read until read_end is one state. */
static enum err read_begin(struct broker_store *store, int64_t deadline_ms,
                           struct broker_conn **conn_out, struct broker_state *state_out)
{
    struct broker_conn *conn = NULL;
    enum err err = broker_readers_take(store, deadline_ms, &conn);

    if (err != ERR_OK) {
        return err;
    }
    err = broker_conn_run(conn, broker_conn_stmt(conn, BROKER_SQL_BEGIN));
    if (err == ERR_OK) {
        err = broker_conn_state(conn, state_out);
    }
    *conn_out = conn;
    return err;
}

static void read_end(struct broker_store *store, struct broker_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    broker_conn_rollback(conn);
    broker_readers_give(store, conn);
}

static void set_state(struct broker_records *out, const struct broker_state *state)
{
    out->server_version = state->server_version;
    out->latest_version = state->latest_version;
}

/* Adds the statement's rows while they fit limit; sets more if one does not. */
static enum err read_rows(struct broker_conn *conn, sqlite3_stmt *stmt, size_t limit,
                          struct broker_records *out)
{
    struct broker_record record = { .version = 0 };
    bool row = false;
    enum err err = broker_conn_step(conn, stmt, &row);

    while (row) {
        broker_col_record(stmt, &record);
        if (!broker_records_fit(out, &record, limit)) {
            out->more = true;
            broker_conn_done(stmt);
            return ERR_OK;
        }
        broker_records_add(out, &record);
        err = broker_conn_step(conn, stmt, &row);
    }
    return err;
}

static enum err read_one(struct broker_conn *conn, struct sv type, struct sv id,
                         struct broker_records *out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_GET);

    broker_bind_sv(stmt, 1, type);
    broker_bind_sv(stmt, 2, id);
    return read_rows(conn, stmt, SIZE_MAX, out);
}

enum err broker_store_get(struct broker_store *store, struct sv type, struct sv id,
                          int64_t deadline_ms, struct broker_records *out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    size_t before = out->count;
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    if (err == ERR_OK) {
        err = read_one(conn, type, id, out);
    }
    read_end(store, conn);
    set_state(out, &state);
    return err == ERR_OK && out->count == before ? ERR_NOT_FOUND : err;
}

static enum err query_ids(struct broker_conn *conn, const struct broker_query *query,
                          struct broker_records *out)
{
    size_t i = 0;
    enum err err = ERR_OK;

    for (i = 0; i < query->id_count && err == ERR_OK; i++) {
        CLEANUP(broker_records_deinit) struct broker_records one = { .items = NULL };

        broker_records_init(&one);
        err = read_one(conn, query->type, query->ids[i], &one);
        if (err == ERR_OK && one.count > 0) {
            broker_records_match(out, &one.items[0], query->offset, query->limit);
        }
    }
    return err;
}

static enum err query_window(struct broker_conn *conn, const struct broker_query *query,
                             struct broker_records *out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_COUNT);
    bool row = false;
    enum err err = ERR_OK;

    broker_bind_sv(stmt, 1, query->type);
    err = broker_conn_step(conn, stmt, &row);
    if (!row) {
        return err;
    }
    out->total = broker_col_u64(stmt, 0);
    broker_conn_done(stmt);
    stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_WINDOW);
    broker_bind_sv(stmt, 1, query->type);
    broker_bind_u64(stmt, 2, query->limit);
    broker_bind_u64(stmt, 3, MIN(query->offset, (uint64_t)INT64_MAX));
    return read_rows(conn, stmt, query->limit, out);
}

enum err broker_store_query(struct broker_store *store, const struct broker_query *query,
                            int64_t deadline_ms, struct broker_records *out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    if (err == ERR_OK) {
        if (query->ids != NULL) {
            err = query_ids(conn, query, out);
        } else {
            err = query_window(conn, query, out);
        }
    }
    read_end(store, conn);
    set_state(out, &state);
    return err;
}

enum err broker_store_page(struct broker_store *store, struct sv type,
                           const struct broker_record *after, int64_t deadline_ms,
                           struct broker_records *out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    sqlite3_stmt *stmt = NULL;
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    if (err == ERR_OK && type.n > 0) {
        stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_PAGE_TYPE);
        broker_bind_sv(stmt, 1, type);
        broker_bind_sv(stmt, 2, after->id);
        broker_bind_i64(stmt, 3, PAGE_RECORDS + 1);
    } else if (err == ERR_OK) {
        stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_PAGE);
        broker_bind_u64(stmt, 1, after->place);
        broker_bind_i64(stmt, 2, PAGE_RECORDS + 1);
    }
    if (err == ERR_OK) {
        err = read_rows(conn, stmt, PAGE_RECORDS, out);
    }
    read_end(store, conn);
    set_state(out, &state);
    return err;
}

static enum err read_changes(struct broker_conn *conn, struct sv type, struct broker_records *out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_CHANGES);
    struct broker_record record = { .version = 0 };
    bool row = false;
    enum err err = ERR_OK;

    broker_bind_u64(stmt, 1, out->position);
    broker_bind_i64(stmt, 2, SCAN_ROWS);
    err = broker_conn_step(conn, stmt, &row);
    while (row) {
        broker_col_record(stmt, &record);
        if (type.n == 0 || sv_eq(type, record.type)) {
            if (!broker_records_fit(out, &record, PAGE_RECORDS)) {
                broker_conn_done(stmt);
                return ERR_OK;
            }
            broker_records_add(out, &record);
        }
        out->position = record.version;
        err = broker_conn_step(conn, stmt, &row);
    }
    return err;
}

enum err broker_store_changes(struct broker_store *store, uint64_t server_version, uint64_t after,
                              struct sv type, int64_t deadline_ms, struct broker_records *out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    set_state(out, &state);
    out->position = after;
    if (err == ERR_OK && (server_version != state.server_version || after < state.log_floor ||
                          after > state.latest_version)) {
        err = ERR_ABORTED;
    }
    if (err == ERR_OK && after < state.latest_version) {
        err = read_changes(conn, type, out);
    }
    read_end(store, conn);
    out->more = out->position < out->latest_version;
    return err;
}

enum err broker_store_types(struct broker_store *store, int64_t deadline_ms,
                            struct broker_records *out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    if (err == ERR_OK) {
        stmt = broker_conn_stmt(conn, BROKER_SQL_TYPES);
        err = broker_conn_step(conn, stmt, &row);
    }
    while (row) {
        struct broker_record record = { .type = broker_col_sv(stmt, 0) };

        broker_records_add(out, &record);
        err = broker_conn_step(conn, stmt, &row);
    }
    read_end(store, conn);
    set_state(out, &state);
    return err;
}

enum err broker_store_options(struct broker_store *store, struct sv type, int64_t deadline_ms,
                              struct broker_records *out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    if (err == ERR_OK) {
        stmt = broker_conn_stmt(conn, type.n > 0 ? BROKER_SQL_OPTIONS_GET : BROKER_SQL_OPTIONS_ALL);
        if (type.n > 0) {
            broker_bind_sv(stmt, 1, type);
        }
        err = broker_conn_step(conn, stmt, &row);
    }
    while (row) {
        struct broker_record record = { .type = broker_col_sv(stmt, 0),
                                        .data = broker_col_sv(stmt, 1) };

        broker_records_add(out, &record);
        err = broker_conn_step(conn, stmt, &row);
    }
    read_end(store, conn);
    set_state(out, &state);
    return err;
}

enum err broker_store_info(struct broker_store *store, int64_t deadline_ms,
                           struct broker_info *info_out)
{
    struct broker_conn *conn = NULL;
    struct broker_state state = { 0 };
    enum err err = read_begin(store, deadline_ms, &conn, &state);

    read_end(store, conn);
    if (err == ERR_OK) {
        *info_out = (struct broker_info){
            .server_version = state.server_version,
            .earliest_version = MIN(state.log_floor + 1, state.latest_version),
            .latest_version = state.latest_version,
        };
    }
    return err;
}
