/* The inside of the PostgreSQL store, shared by store_pg*.c only.
 *
 * Versions. The one row of postern.store holds the last version. A writing transaction locks that row
 * first (SELECT … FOR UPDATE), counts on from what it finds and writes the row back before it commits.
 * So the transactions of all databrokers follow one another, versions have no gaps, and n is seen by
 * everybody before n + 1 exists: a sequence, which counts outside of transactions, promises neither.
 * The lock is held for two round trips and a commit; many writes share it (writer.h).
 *
 * Isolation. What a transaction reads to decide (a version, a lease) it reads behind that lock, in READ
 * COMMITTED, so it sees all that was committed before and nothing can change until it commits. Where a
 * server makes SERIALIZABLE of that, a lost race is ERR_AGAIN and tried again. Reads are one REPEATABLE
 * READ snapshot each.
 *
 * A connection that breaks in COMMIT. Each transaction writes its number to the databroker's own row of
 * postern.writers. On the next connection a transaction locks the store's row, which waits for the old
 * one to end either way, and reads that number: it tells whether the old one committed. Only when this
 * transaction, too, has committed (so that a standby that takes part has both) is anything acknowledged.
 *
 * History. A promoted standby may lack what the old primary had; a follower that had seen it would miss
 * what is counted anew. The row keeps the cluster's identifier and timeline; where they change, so does
 * the server version, and everybody reads a snapshot.
 *
 * Replicas. A databroker writes to its row of postern.writers, too, how far the replicas are that follow
 * it, and each transaction writes when it was: so every databroker can wait for the replicas of all that
 * live (confirm.c).
 *
 * Time is the database's: two databrokers' clocks need not agree.
 *
 * Threads: the writer's thread owns writer, number and steady; the watcher's thread owns its connection;
 * idle readers and what is known of the server are under mutex; a reader belongs to who took it. */
#pragma once

#include <pthread.h>

#include "databroker/steady.h"
#include "databroker/store.h"
#include "databroker/store_pg_conn.h"
#include "databroker/writer.h"

enum {
    BROKER_PG_PATIENCE_MS = 2500, /* a call waits for a server that went, so long after it went */
    BROKER_PG_POLL_MS = 250,      /* changes are looked for, whether or not a notification came */
    BROKER_PG_PAUSE_MS = 1000     /* between two attempts to connect, at most */
};

/* The one row of postern.store. */
struct broker_pg_state {
    uint64_t server_version;
    uint64_t latest_version;
    uint64_t log_floor;       /* changes up to here are no longer in the log */
    uint64_t options_version; /* grows with every change of a type's options */
    uint64_t wanted_version;  /* somebody waits for the replicas to have it: the last deletion's */
};

struct broker_store {
    struct broker_store_opts opts;
    char *conninfo; /* holds a password */
    char id[RAND_UUID_SIZE];
    bool notify; /* the server knows LISTEN and NOTIFY */

    pthread_mutex_t mutex;
    pthread_cond_t idle;  /* readers: one came back */
    pthread_cond_t awake; /* watcher: stop */
    struct broker_pg_conn *readers;
    unsigned readers_out;
    int64_t down_since_ms;       /* 0: the server was there when last asked */
    int64_t down_line_ms;        /* when the log may say so again */
    struct broker_pg_state seen; /* what on_commit was last called for */
    int writer_pid;
    bool stopping;

    struct broker_writer queue;
    struct broker_pg_conn *writer;
    uint64_t number; /* of the last transaction that was begun */
    bool full;       /* the server had no room for a write, and none for a probe since */
    struct broker_steady steady;

    pthread_t watcher;
    bool watching;
};

/* A writing transaction that holds the lock. */
struct broker_pg_txn {
    struct broker_store *store;
    struct broker_pg_conn *conn;
    struct broker_pg_state before;
    struct broker_pg_state state;
    int64_t now_us;
    int64_t probe_us; /* when the store was last probed */
    char history[64];
    bool write; /* there is something to commit */
    bool roomy; /* it takes room that the server must find on its disk */
};

/* store_pg.c: connects and prepares. While the server is away it tries again, until deadline_ms or until
 * that lasts longer than BROKER_PG_PATIENCE_MS: then only the watcher (persistent) knocks. */
MUST_CHECK enum err broker_pg_connect(struct broker_store *store, int64_t deadline_ms,
                                      bool persistent, struct broker_pg_conn **conn_out);

/* store_pg_schema.c: makes the tables or brings them to this schema. ERR_UNSUPPORTED: they are newer. */
MUST_CHECK enum err broker_pg_migrate(struct broker_pg_conn *conn, struct diag *d);

/* store_pg_write.c */
MUST_CHECK enum err broker_pg_transact(struct broker_store *store,
                                       struct broker_write *const *group, size_t *n);
/* Locks the store's row and reads it: the first thing in a transaction. */
MUST_CHECK enum err broker_pg_txn_begin(struct broker_store *store, struct broker_pg_txn *txn);
/* ERR_ABORTED: nobody knows whether it committed. Any other error: it did not. */
MUST_CHECK enum err broker_pg_txn_commit(struct broker_pg_txn *txn);
/* Writes one record or tombstone at the next version; it is answered with the commit. */
void broker_pg_put_record(struct broker_pg_txn *txn, struct broker_record *record);
uint64_t broker_pg_new_server_version(uint64_t old);
MUST_CHECK enum err broker_pg_read_state(struct broker_pg_conn *conn,
                                         struct broker_pg_state *state_out);

/* store_pg_history.c: notices that the writer's connection leads to a server with another past. */
MUST_CHECK enum err broker_pg_check_history(struct broker_store *store);

/* store_pg_sweep.c: one small batch, within the transaction. */
MUST_CHECK enum err broker_pg_sweep(struct broker_pg_txn *txn, uint64_t *swept_out);

/* store_pg_watch.c */
void broker_pg_watch_start(struct broker_store *store);
void broker_pg_watch_stop(struct broker_store *store);
/* Another than the watcher has told of state. */
void broker_pg_watch_told(struct broker_store *store, const struct broker_pg_state *state);

/* store_pg_read.c */
broker_get_fn broker_pg_get;
broker_query_fn broker_pg_query;
broker_page_fn broker_pg_page;
broker_changes_fn broker_pg_changes;
broker_types_fn broker_pg_types;
broker_options_fn broker_pg_options;
broker_info_fn broker_pg_info;
broker_peers_fn broker_pg_peers;
