/* broker_conn: one connection to the SQLite file with its prepared statements. Used by one thread
 * at a time. Only store_sqlite*.c include this. */
#pragma once

#include <sqlite3.h>

#include "common/base.h"
#include "common/diag.h"
#include "common/log.h"
#include "common/sv.h"
#include "databroker/record.h"

enum broker_sql {
    BROKER_SQL_BEGIN = 0,
    BROKER_SQL_BEGIN_WRITE,
    BROKER_SQL_COMMIT,
    BROKER_SQL_ROLLBACK,
    BROKER_SQL_SAVEPOINT,
    BROKER_SQL_SAVEPOINT_BACK,
    BROKER_SQL_SAVEPOINT_DONE,
    BROKER_SQL_STATE_GET,
    BROKER_SQL_STATE_PUT,
    BROKER_SQL_PROBE_PUT,
    BROKER_SQL_PROBE_GET,
    BROKER_SQL_RECORD_GET,
    BROKER_SQL_RECORD_VERSION,
    BROKER_SQL_RECORD_PUT,
    BROKER_SQL_RECORD_DELETE,
    BROKER_SQL_RECORD_REPLACE,
    BROKER_SQL_RECORD_WINDOW,
    BROKER_SQL_RECORD_COUNT,
    BROKER_SQL_RECORD_PAGE,
    BROKER_SQL_RECORD_PAGE_TYPE,
    BROKER_SQL_RECORD_OLDER,
    BROKER_SQL_RECORD_ENDED,
    BROKER_SQL_RECORD_ALL,
    BROKER_SQL_RECORD_SET_END,
    BROKER_SQL_TYPES,
    BROKER_SQL_CHANGE_PUT,
    BROKER_SQL_CHANGE_REPLACE,
    BROKER_SQL_CHANGES,
    BROKER_SQL_CHANGES_OLDEST,
    BROKER_SQL_CHANGES_PRUNE,
    BROKER_SQL_OPTIONS_PUT,
    BROKER_SQL_OPTIONS_GET,
    BROKER_SQL_OPTIONS_ALL,
    BROKER_SQL_LEASE_GET,
    BROKER_SQL_LEASE_PUT,
    BROKER_SQL_LEASE_DELETE,
    BROKER_SQL_LEASE_EXPIRE,
    BROKER_SQL_CLEAR_RECORDS,
    BROKER_SQL_CLEAR_CHANGES,
    BROKER_SQL_CLEAR_OPTIONS,
    BROKER_SQL_COUNT
};

struct broker_conn {
    sqlite3 *db;
    sqlite3_stmt *stmts[BROKER_SQL_COUNT];
    int64_t deadline_ms; /* a statement that runs beyond it ends with ERR_TIMEOUT */
    struct log_limit noise;
    bool io_failed;           /* at least once */
    unsigned log_pages;       /* of the write-ahead log, after the last commit */
    struct broker_conn *next; /* in the store's list of idle readers */
};

/* The one row of the table store. */
struct broker_state {
    uint64_t server_version;
    uint64_t latest_version;
    uint64_t log_floor; /* changes up to here are no longer in the log */
};

/* name: a file, or an URI for a database in memory. ERR_IO. */
MUST_CHECK enum err broker_conn_open(const char *name, struct broker_conn **conn_out,
                                     struct diag *d);
void broker_conn_free(struct broker_conn **conn);
/* Runs SQL text that returns nothing of interest; at start only. */
MUST_CHECK enum err broker_conn_exec(struct broker_conn *conn, const char *sql, struct diag *d);
/* The first column of the first row as a number; 0 where there is none. */
MUST_CHECK enum err broker_conn_number(struct broker_conn *conn, const char *sql,
                                       int64_t *number_out, struct diag *d);

/* A statement, ready for its parameters. Bind what it takes, then step; broker_conn_done when a
 * statement's rows are not read to the end. A failure to prepare shows in the first step. */
sqlite3_stmt *broker_conn_stmt(struct broker_conn *conn, enum broker_sql which);
void broker_bind_sv(sqlite3_stmt *stmt, int at, struct sv text);    /* text; lives until done */
void broker_bind_blob(sqlite3_stmt *stmt, int at, struct sv bytes); /* likewise */
void broker_bind_i64(sqlite3_stmt *stmt, int at, int64_t v);
void broker_bind_u64(sqlite3_stmt *stmt, int at, uint64_t v); /* the same 64 bits, signed */
/* *row_out: a row is there to be read. At the end the statement is reset. */
MUST_CHECK enum err broker_conn_step(struct broker_conn *conn, sqlite3_stmt *stmt, bool *row_out);
/* For a statement without rows. */
MUST_CHECK enum err broker_conn_run(struct broker_conn *conn, sqlite3_stmt *stmt);
void broker_conn_done(sqlite3_stmt *stmt);
/* Ends the transaction, if one is open, without its changes; no deadline stops that. */
void broker_conn_rollback(struct broker_conn *conn);
struct sv broker_col_sv(sqlite3_stmt *stmt, int at); /* until the next step */
uint64_t broker_col_u64(sqlite3_stmt *stmt, int at);
/* Columns version, type, id, modified_us, deleted_us, data_type, data. Until the next step. */
void broker_col_record(sqlite3_stmt *stmt, struct broker_record *record_out);
MUST_CHECK enum err broker_conn_state(struct broker_conn *conn, struct broker_state *state_out);
/* Copies the write-ahead log to the file and syncs that. whole: to its end, and the log begins anew;
 * ERR_UNAVAILABLE: a reader, of another process perhaps, is in the way. Else as far as readers allow. */
MUST_CHECK enum err broker_conn_checkpoint(struct broker_conn *conn, bool whole);
/* The store for this new connection alone. ERR_UNAVAILABLE: it is open elsewhere. */
MUST_CHECK enum err broker_conn_alone(struct broker_conn *conn);
/* When the connection is closed the log stays as it is. */
void broker_conn_distrust(struct broker_conn *conn);
