#include "databroker/store_sqlite_conn.h"

#include "common/clock.h"
#include "common/mem.h"

/* After so many instructions of SQLite's machine the deadline is looked at: some 20 µs. */
enum { PROGRESS_STEPS = 1000, BUSY_MS = 2000, NOISE_PER_S = 5, STATEMENT_MS = 5000 };

#define RECORD_COLUMNS "version, type, id, modified_us, 0, data_type, data"

static const char *const sql_texts[BROKER_SQL_COUNT] = {
    [BROKER_SQL_BEGIN] = "BEGIN",
    [BROKER_SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [BROKER_SQL_COMMIT] = "COMMIT",
    [BROKER_SQL_ROLLBACK] = "ROLLBACK",
    [BROKER_SQL_SAVEPOINT] = "SAVEPOINT one",
    [BROKER_SQL_SAVEPOINT_BACK] = "ROLLBACK TO one",
    [BROKER_SQL_SAVEPOINT_DONE] = "RELEASE one",
    [BROKER_SQL_STATE_GET] = "SELECT server_version, latest_version, log_floor FROM store",
    [BROKER_SQL_STATE_PUT] =
        "UPDATE store SET server_version = ?1, latest_version = ?2, log_floor = ?3",
    [BROKER_SQL_PROBE_PUT] = "UPDATE store SET probe = ?1",
    [BROKER_SQL_PROBE_GET] = "SELECT probe FROM store",
    [BROKER_SQL_RECORD_GET] = "SELECT " RECORD_COLUMNS " FROM records WHERE type = ?1 AND id = ?2",
    [BROKER_SQL_RECORD_VERSION] = "SELECT version FROM records WHERE type = ?1 AND id = ?2",
    [BROKER_SQL_RECORD_PUT] =
        "INSERT INTO records (version, type, id, modified_us, data_type, data, ends_us) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (type, id) DO UPDATE SET version = ?1, "
        "modified_us = ?4, data_type = ?5, data = ?6, ends_us = ?7",
    [BROKER_SQL_RECORD_DELETE] = "DELETE FROM records WHERE type = ?1 AND id = ?2",
    [BROKER_SQL_RECORD_REPLACE] =
        "UPDATE records SET data = ?1 WHERE version = ?2 AND type = ?3 AND id = ?4",
    [BROKER_SQL_RECORD_WINDOW] =
        "SELECT " RECORD_COLUMNS " FROM records WHERE type = ?1 ORDER BY id LIMIT ?2 OFFSET ?3",
    [BROKER_SQL_RECORD_COUNT] = "SELECT count(*) FROM records WHERE type = ?1",
    /* In the order of the file: by type and id every row would be a page of its own to read. */
    [BROKER_SQL_RECORD_PAGE] = "SELECT " RECORD_COLUMNS ", rowid FROM records WHERE rowid > ?1 "
                               "ORDER BY rowid LIMIT ?2",
    [BROKER_SQL_RECORD_PAGE_TYPE] =
        "SELECT " RECORD_COLUMNS " FROM records WHERE type = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
    [BROKER_SQL_RECORD_OLDER] = "SELECT type, id FROM records WHERE type = ?1 AND modified_us < ?2 "
                                "ORDER BY modified_us LIMIT ?3",
    [BROKER_SQL_RECORD_ENDED] = "SELECT type, id FROM records WHERE ends_us > 0 AND ends_us < ?1 "
                                "ORDER BY ends_us LIMIT ?2",
    [BROKER_SQL_RECORD_ALL] = "SELECT " RECORD_COLUMNS " FROM records",
    [BROKER_SQL_RECORD_SET_END] =
        "UPDATE records SET ends_us = ?1 WHERE version = ?2 AND type = ?3 AND id = ?4",
    [BROKER_SQL_TYPES] = "SELECT DISTINCT type FROM records ORDER BY type LIMIT 10000",
    [BROKER_SQL_CHANGE_PUT] =
        "INSERT INTO changes (version, type, id, modified_us, deleted_us, data_type, data) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [BROKER_SQL_CHANGE_REPLACE] =
        "UPDATE changes SET data = ?1 WHERE version = ?2 AND deleted_us = 0",
    [BROKER_SQL_CHANGES] =
        "SELECT version, type, id, modified_us, deleted_us, data_type, data FROM changes "
        "WHERE version > ?1 ORDER BY version LIMIT ?2",
    [BROKER_SQL_CHANGES_OLDEST] =
        "SELECT version, modified_us FROM changes ORDER BY version LIMIT ?1",
    [BROKER_SQL_CHANGES_PRUNE] = "DELETE FROM changes WHERE version <= ?1",
    [BROKER_SQL_OPTIONS_PUT] = "INSERT OR REPLACE INTO options (type, bytes, capacity, ttl_ms) "
                               "VALUES (?1, ?2, ?3, ?4)",
    [BROKER_SQL_OPTIONS_GET] = "SELECT type, bytes, capacity, ttl_ms FROM options WHERE type = ?1",
    [BROKER_SQL_OPTIONS_ALL] =
        "SELECT type, bytes, capacity, ttl_ms FROM options ORDER BY type LIMIT 10000",
    [BROKER_SQL_LEASE_GET] = "SELECT id, expires_us FROM leases WHERE name = ?1",
    [BROKER_SQL_LEASE_PUT] =
        "INSERT OR REPLACE INTO leases (name, id, expires_us) VALUES (?1, ?2, ?3)",
    [BROKER_SQL_LEASE_DELETE] = "DELETE FROM leases WHERE name = ?1 AND id = ?2",
    [BROKER_SQL_LEASE_EXPIRE] = "DELETE FROM leases WHERE name IN (SELECT name FROM leases "
                                "WHERE expires_us < ?1 ORDER BY expires_us LIMIT ?2)",
    [BROKER_SQL_CLEAR_RECORDS] = "DELETE FROM records WHERE type <> '" BROKER_TYPE_KEY "'",
    [BROKER_SQL_CLEAR_CHANGES] = "DELETE FROM changes",
    [BROKER_SQL_CLEAR_OPTIONS] = "DELETE FROM options",
};

static int on_progress(void *arg)
{
    const struct broker_conn *conn = arg;

    return clock_mono_ms() > conn->deadline_ms;
}

static int on_commit(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct broker_conn *conn = arg;

    (void)db;
    (void)name;
    conn->log_pages = (unsigned)pages;
    return SQLITE_OK;
}

enum err broker_conn_open(const char *name, struct broker_conn **conn_out, struct diag *d)
{
    CLEANUP(broker_conn_free) struct broker_conn *conn = MEM_NEW(struct broker_conn);
    int rc = sqlite3_open_v2(name, &conn->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                 SQLITE_OPEN_URI | SQLITE_OPEN_EXRESCODE,
                             NULL);

    if (rc != SQLITE_OK) {
        diag_set(d, "cannot open the store: %s", sqlite3_errstr(rc));
        return ERR_IO;
    }
    conn->deadline_ms = clock_mono_ms() + STATEMENT_MS;
    (void)sqlite3_busy_timeout(conn->db, BUSY_MS);
    /* in place of SQLite's own checkpoints, whose errors nobody hears of */
    (void)sqlite3_wal_hook(conn->db, on_commit, conn);
    sqlite3_progress_handler(conn->db, PROGRESS_STEPS, on_progress, conn);
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
    *conn_out = TAKE(conn);
    return ERR_OK;
}

void broker_conn_free(struct broker_conn **conn)
{
    struct broker_conn *c = TAKE(*conn);
    size_t i = 0;

    if (c == NULL) {
        return;
    }
    for (i = 0; i < BROKER_SQL_COUNT; i++) {
        (void)sqlite3_finalize(c->stmts[i]);
    }
    CHECK(sqlite3_close(c->db) == SQLITE_OK);
    mem_free(&c);
}

/* What the connection's last failure means: ERR_LIMIT disk full, ERR_TIMEOUT, ERR_UNAVAILABLE
 * locked, ERR_IO anything else. Logs it, at most five times a second. */
static enum err last_err(struct broker_conn *conn)
{
    int code = sqlite3_extended_errcode(conn->db);
    enum err err = ERR_IO;

    switch (code & 0xff) {
    case SQLITE_FULL:
        err = ERR_LIMIT;
        break;
    case SQLITE_IOERR:
        conn->io_failed = true;
        break;
    case SQLITE_INTERRUPT:
        err = ERR_TIMEOUT;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        err = ERR_UNAVAILABLE;
        break;
    default:
        break;
    }
    if (log_limit_pass(&conn->noise, NOISE_PER_S)) {
        log_error("store.failed", KV_ERR(err), KV_I64("sqlite", code),
                  KV_STR("cause", sqlite3_errmsg(conn->db)));
    }
    return err;
}

enum err broker_conn_exec(struct broker_conn *conn, const char *sql, struct diag *d)
{
    if (sqlite3_exec(conn->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        const char *file = sqlite3_db_filename(conn->db, "main");

        diag_set(d, "the store %s does not work: %s", file == NULL ? "" : file,
                 sqlite3_errmsg(conn->db));
        return ERR_IO;
    }
    return ERR_OK;
}

enum err broker_conn_number(struct broker_conn *conn, const char *sql, int64_t *number_out,
                            struct diag *d)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(conn->db, sql, -1, &stmt, NULL);

    *number_out = 0;
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
    }
    if (rc == SQLITE_ROW) {
        *number_out = sqlite3_column_int64(stmt, 0);
    } else if (rc != SQLITE_DONE) {
        diag_set(d, "the store cannot be read: %s", sqlite3_errmsg(conn->db));
    }
    (void)sqlite3_finalize(stmt);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? ERR_OK : ERR_IO;
}

sqlite3_stmt *broker_conn_stmt(struct broker_conn *conn, enum broker_sql which)
{
    sqlite3_stmt **stmt = &conn->stmts[which];

    if (*stmt == NULL) {
        (void)sqlite3_prepare_v3(conn->db, sql_texts[which], -1, SQLITE_PREPARE_PERSISTENT, stmt,
                                 NULL);
    }
    return *stmt;
}

void broker_bind_sv(sqlite3_stmt *stmt, int at, struct sv text)
{
    (void)sqlite3_bind_text64(stmt, at, text.n == 0 ? "" : text.p, text.n, SQLITE_STATIC,
                              SQLITE_UTF8);
}

void broker_bind_blob(sqlite3_stmt *stmt, int at, struct sv bytes)
{
    (void)sqlite3_bind_blob64(stmt, at, bytes.n == 0 ? "" : bytes.p, bytes.n, SQLITE_STATIC);
}

void broker_bind_i64(sqlite3_stmt *stmt, int at, int64_t v)
{
    (void)sqlite3_bind_int64(stmt, at, v);
}

void broker_bind_u64(sqlite3_stmt *stmt, int at, uint64_t v)
{
    (void)sqlite3_bind_int64(stmt, at, (int64_t)v);
}

void broker_conn_done(sqlite3_stmt *stmt)
{
    (void)sqlite3_reset(stmt); /* repeats the error of the last step */
    (void)sqlite3_clear_bindings(stmt);
}

enum err broker_conn_step(struct broker_conn *conn, sqlite3_stmt *stmt, bool *row_out)
{
    int rc = stmt == NULL ? sqlite3_errcode(conn->db) : sqlite3_step(stmt);
    enum err err = ERR_OK;

    *row_out = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW) {
        return ERR_OK;
    }
    if (rc != SQLITE_DONE) {
        err = last_err(conn);
    }
    if (stmt != NULL) {
        broker_conn_done(stmt);
    }
    return err;
}

enum err broker_conn_run(struct broker_conn *conn, sqlite3_stmt *stmt)
{
    bool row = false;
    enum err err = broker_conn_step(conn, stmt, &row);

    if (row) {
        broker_conn_done(stmt);
    }
    return err;
}

struct sv broker_col_sv(sqlite3_stmt *stmt, int at)
{
    const void *p = sqlite3_column_blob(stmt, at); /* text comes as its bytes, too */

    return sv_of(p, (size_t)sqlite3_column_bytes(stmt, at));
}

uint64_t broker_col_u64(sqlite3_stmt *stmt, int at)
{
    return (uint64_t)sqlite3_column_int64(stmt, at);
}

void broker_col_record(sqlite3_stmt *stmt, struct broker_record *record_out)
{
    *record_out = (struct broker_record){
        .version = broker_col_u64(stmt, 0),
        .type = broker_col_sv(stmt, 1),
        .id = broker_col_sv(stmt, 2),
        .modified_us = sqlite3_column_int64(stmt, 3),
        .deleted_us = sqlite3_column_int64(stmt, 4),
        .data_type = broker_col_sv(stmt, 5),
        .data = broker_col_sv(stmt, 6),
        .place = sqlite3_column_count(stmt) > 7 ? broker_col_u64(stmt, 7) : 0,
    };
}

enum err broker_conn_state(struct broker_conn *conn, struct broker_state *state_out)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_STATE_GET);
    bool row = false;
    enum err err = broker_conn_step(conn, stmt, &row);

    if (!row) {
        return err == ERR_OK ? ERR_IO : err;
    }
    state_out->server_version = broker_col_u64(stmt, 0);
    state_out->latest_version = broker_col_u64(stmt, 1);
    state_out->log_floor = broker_col_u64(stmt, 2);
    broker_conn_done(stmt);
    return ERR_OK;
}

void broker_conn_rollback(struct broker_conn *conn)
{
    enum err err = ERR_OK;

    conn->deadline_ms = INT64_MAX;
    if (sqlite3_get_autocommit(conn->db) == 0) {
        err = broker_conn_run(conn, broker_conn_stmt(conn, BROKER_SQL_ROLLBACK));
    }
    if (err != ERR_OK) {
        log_error("store.rollback-failed", KV_ERR(err)); /* the next BEGIN fails, and says so */
    }
}

enum err broker_conn_checkpoint(struct broker_conn *conn, bool whole)
{
    int rc = sqlite3_wal_checkpoint_v2(
        conn->db, "main", whole ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, NULL,
        NULL);

    if (rc == SQLITE_OK) {
        conn->log_pages = 0;
        return ERR_OK;
    }
    if ((rc & 0xff) == SQLITE_BUSY) {
        return ERR_UNAVAILABLE;
    }
    return last_err(conn);
}

void broker_conn_distrust(struct broker_conn *conn)
{
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
}

enum err broker_conn_alone(struct broker_conn *conn)
{
    int rc = SQLITE_OK;

    (void)sqlite3_busy_timeout(conn->db, 0);
    broker_conn_distrust(conn);
    rc = sqlite3_exec(conn->db,
                      "PRAGMA locking_mode = EXCLUSIVE; SELECT count(*) FROM sqlite_schema", NULL,
                      NULL, NULL);
    return rc == SQLITE_OK ? ERR_OK : (rc & 0xff) == SQLITE_BUSY ? ERR_UNAVAILABLE : last_err(conn);
}
