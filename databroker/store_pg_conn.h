/* broker_pg_conn: one connection to a PostgreSQL server with its prepared statements, always in
 * pipeline mode: statements are added, sent off together, and their results read in order. Used by one
 * thread at a time. Only store_pg*.c include this.
 *
 *   broker_pg_add .. broker_pg_add, broker_pg_send, broker_pg_next .. broker_pg_next, broker_pg_finish
 *
 * After an error the statements behind it up to the next send are not executed by the server; every
 * call returns that error until broker_pg_finish has read to the end. A connection that broke, or whose
 * answer did not come in time, is good for nothing but broker_pg_free. */
#pragma once

#include <libpq-fe.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"
#include "databroker/record.h"

enum broker_pg_sql {
    BROKER_PG_BEGIN_READ = 0,
    BROKER_PG_BEGIN_WRITE,
    BROKER_PG_COMMIT,
    BROKER_PG_NOTIFY,
    BROKER_PG_CLOCK,
    BROKER_PG_STATE_GET,
    BROKER_PG_STATE_LOCK,
    BROKER_PG_STATE_PUT,
    BROKER_PG_PROBE_PUT,
    BROKER_PG_ROOM_PUT,
    BROKER_PG_HISTORY_PUT,
    BROKER_PG_WRITER_GET,
    BROKER_PG_WRITER_PUT,
    BROKER_PG_WRITER_CONFIRMED,
    BROKER_PG_WRITERS_PRUNE,
    BROKER_PG_PEERS,
    BROKER_PG_RECORD_GET,
    BROKER_PG_RECORD_VERSION,
    BROKER_PG_RECORD_PUT,
    BROKER_PG_RECORD_DELETE,
    BROKER_PG_RECORD_REPLACE,
    BROKER_PG_RECORD_WINDOW,
    BROKER_PG_RECORD_COUNT,
    BROKER_PG_RECORD_PAGE,
    BROKER_PG_RECORD_PAGE_TYPE,
    BROKER_PG_RECORD_OLDER,
    BROKER_PG_RECORD_ENDED,
    BROKER_PG_TYPES,
    BROKER_PG_CHANGE_DELETE,
    BROKER_PG_CHANGE_REPLACE,
    BROKER_PG_CHANGES,
    BROKER_PG_CHANGES_TYPE,
    BROKER_PG_CHANGES_OLDEST,
    BROKER_PG_CHANGES_PRUNE,
    BROKER_PG_OPTIONS_PUT,
    BROKER_PG_OPTIONS_GET,
    BROKER_PG_OPTIONS_ALL,
    BROKER_PG_LEASE_GET,
    BROKER_PG_LEASE_PUT,
    BROKER_PG_LEASE_DELETE,
    BROKER_PG_LEASE_EXPIRE,
    BROKER_PG_CLEAR_RECORDS,
    BROKER_PG_CLEAR_CHANGES,
    BROKER_PG_CLEAR_OPTIONS,
    BROKER_PG_COUNT
};

struct broker_pg_conn {
    PGconn *pg;
    int64_t
        deadline_ms; /* an answer that has not come by then: ERR_TIMEOUT, the connection is lost */
    enum err err;    /* of the pipeline, until broker_pg_finish */
    unsigned syncs;  /* sends whose end was not read yet */
    char why[200];   /* the server's last refusal, for a diag */
    bool lost;
    bool committed; /* the last statement that was answered was a COMMIT, and it did */
    bool doubtful;  /* the server warned that a commit is not where it should be */
    struct broker_pg_conn *next;
};

/* A parameter: text, bytes or a number, as the statement wants them. */
struct broker_pg_arg {
    char kind; /* 't', 'b', 'i' */
    struct sv bytes;
    int64_t number;
};

#define PG_TEXT(s)  ((struct broker_pg_arg){ .kind = 't', .bytes = (s) })
#define PG_BYTES(s) ((struct broker_pg_arg){ .kind = 'b', .bytes = (s) })
#define PG_I64(n)   ((struct broker_pg_arg){ .kind = 'i', .number = (n) })
#define PG_U64(n)   PG_I64((int64_t)(n)) /* the same 64 bits, signed */

/* Whether conninfo can be read, and where it leads, without a secret: for the log. ERR_INVALID. */
MUST_CHECK enum err broker_pg_where(const char *conninfo, struct sv *where_out, struct arena *arena,
                                    struct diag *d);
/* The connection string's server is not this machine and its certificate is not verified. */
bool broker_pg_is_exposed(const char *conninfo);

/* Connects, to a server that takes writes; without the statements. ERR_UNAVAILABLE: not reached or not
 * let in. ERR_UNSUPPORTED: its texts are not UTF-8. d never holds a secret. */
MUST_CHECK enum err broker_pg_open(const char *conninfo, struct broker_pg_conn **conn_out,
                                   struct diag *d);
/* Prepares the statements; the tables must be there. notify: the server knows NOTIFY; one that does not
 * refuses to prepare it. */
MUST_CHECK enum err broker_pg_prepare(struct broker_pg_conn *conn, bool notify);
void broker_pg_free(struct broker_pg_conn **conn);

/* SQL without parameters that is not prepared. */
void broker_pg_add_text(struct broker_pg_conn *conn, const char *sql);
void broker_pg_add_args(struct broker_pg_conn *conn, enum broker_pg_sql which,
                        const struct broker_pg_arg *args, size_t n);
/* It reads like the other functions. NOLINTBEGIN(readability-identifier-naming) */
#define broker_pg_add(conn, which, ...)                                           \
    do {                                                                          \
        const struct broker_pg_arg args_[] = { { .kind = '\0' }, ##__VA_ARGS__ }; \
        broker_pg_add_args((conn), (which), args_ + 1, ARRAY_LEN(args_) - 1);     \
    } while (0)
/* NOLINTEND(readability-identifier-naming) */
void broker_pg_send(struct broker_pg_conn *conn);
/* The result of the next statement, for PQclear. ERR_LIMIT: the disk is full. ERR_TIMEOUT,
 * ERR_UNAVAILABLE: later it may work, perhaps at another server. ERR_AGAIN: the transaction lost
 * against another and may be tried at once. ERR_IO: anything else. Logged, at most five a second. */
MUST_CHECK enum err broker_pg_next(struct broker_pg_conn *conn, PGresult **result_out);
/* Likewise, for a statement whose rows do not matter. */
MUST_CHECK enum err broker_pg_skip(struct broker_pg_conn *conn);
/* Reads to the end of what was sent and returns its first error. */
MUST_CHECK enum err broker_pg_finish(struct broker_pg_conn *conn);
/* Runs sql by itself, which not every server knows: *result_out is NULL where it does not (classes 0A
 * and 42). For PQclear. */
MUST_CHECK enum err broker_pg_try(struct broker_pg_conn *conn, const char *sql,
                                  PGresult **result_out);
/* Ends what was added and sent, and the transaction, if one is open, without its changes. */
void broker_pg_rollback(struct broker_pg_conn *conn);
/* Waits until the server has something to say or until_ms has come; reads what notifications there
 * are. *foreign_out: one is of another than pid. ERR_UNAVAILABLE: lost. */
MUST_CHECK enum err broker_pg_listen(struct broker_pg_conn *conn, int64_t until_ms, int pid,
                                     bool *foreign_out);

struct sv broker_pg_sv(const PGresult *result, int row, int at); /* until PQclear */
int64_t broker_pg_i64(const PGresult *result, int row, int at);
uint64_t broker_pg_u64(const PGresult *result, int row, int at);
/* Columns version, type, id, modified_us, deleted_us, data_type, data. Until PQclear. */
void broker_pg_record(const PGresult *result, int row, struct broker_record *record_out);
