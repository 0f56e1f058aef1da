/* The inside of the SQLite store, shared by store_sqlite*.c only.
 * Threads: the writer's thread owns writer and state; idle readers are under mutex; a reader belongs to
 * the thread that took it. No lock is held while SQLite runs. */
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include "databroker/steady.h"
#include "databroker/store.h"
#include "databroker/store_sqlite_conn.h"
#include "databroker/writer.h"

enum { BROKER_FILES = 3 }; /* the file, its log, what its connections share */

struct broker_file_id {
    dev_t device;
    ino_t inode;
};

/* What store_sqlite_settle.c knows. */
struct broker_settle {
    bool settled; /* all that was acknowledged is on disk, and what we hold is what is there */
    int64_t not_before_ms; /* the next try */
    int64_t checkpoint_at_ms;
    enum err err; /* what came of the last one */
    enum err checkpoint_err;
};

struct broker_store {
    struct broker_store_opts opts;
    char *name; /* file or URI */
    int lock_fd;

    pthread_mutex_t mutex;
    pthread_cond_t idle; /* readers: one came back, or there are none */
    struct broker_conn *readers;
    unsigned readers_out;
    bool readers_closing; /* those that come back are not given out again */
    bool readers_failed;  /* there are none */

    struct broker_writer queue;
    struct broker_conn *writer; /* NULL: the file does not open */
    struct broker_state state;
    struct broker_steady steady;
    struct broker_file_id files[BROKER_FILES];
    struct log_limit noise;
    struct broker_settle settle;
};

/* store_sqlite_file.c. Errors of open: store.h's. */
MUST_CHECK enum err broker_file_open(struct broker_store *store, struct diag *d);
void broker_file_close(struct broker_store *store);
/* The files that are open now are those of the store. */
void broker_file_remember(struct broker_store *store);
/* Whether their names still lead to them: what is written to a file that was deleted is gone with the
 * process. ERR_UNAVAILABLE, and logged. */
MUST_CHECK enum err broker_file_stays(struct broker_store *store);
/* Writes the log over itself and syncs it: only that proves that it is on disk. */
MUST_CHECK enum err broker_file_renew_log(const struct broker_store *store);

/* store_sqlite_readers.c. take: ERR_TIMEOUT; ERR_UNAVAILABLE: there are none. */
MUST_CHECK enum err broker_readers_take(struct broker_store *store, int64_t deadline_ms,
                                        struct broker_conn **conn_out);
void broker_readers_give(struct broker_store *store, struct broker_conn *conn);
MUST_CHECK enum err broker_readers_open(struct broker_store *store, struct diag *d);
/* Lets no read begin and waits for those under way. ERR_TIMEOUT: they take too long, the readers stay. */
MUST_CHECK enum err broker_readers_close(struct broker_store *store, int64_t deadline_ms);
/* There will be none for a while: refuses those who wait. */
void broker_readers_fail(struct broker_store *store);

/* store_sqlite.c: opens the writing connection as durably as we promise. */
MUST_CHECK enum err broker_store_connect(struct broker_store *store, struct diag *d);

/* store_sqlite_settle.c; the writer's thread. Before each transaction: whether it may begin. */
MUST_CHECK enum err broker_store_settle(struct broker_store *store);
/* Before the store is opened. Where it does not come off, what follows says so. */
void broker_store_settle_first(struct broker_store *store);
/* After each: moves what is in the log to the file when that is due, or now. Its failure is no write's. */
void broker_store_checkpoint(struct broker_store *store, bool now);

/* store_sqlite_write.c */
MUST_CHECK enum err broker_store_transact(struct broker_store *store,
                                          struct broker_write *const *group, size_t *n);

/* store_sqlite_sweep.c: one small batch; *swept_out counts its rows. Within the transaction. */
MUST_CHECK enum err broker_store_sweep(struct broker_store *store, uint64_t *swept_out);
/* store_sqlite_write.c: writes one record or tombstone at the next version. */
MUST_CHECK enum err broker_store_put_record(struct broker_store *store,
                                            struct broker_record *record);

/* store_sqlite_read.c */
broker_get_fn broker_store_get;
broker_query_fn broker_store_query;
broker_page_fn broker_store_page;
broker_changes_fn broker_store_changes;
broker_types_fn broker_store_types;
broker_options_fn broker_store_options;
broker_info_fn broker_store_info;
