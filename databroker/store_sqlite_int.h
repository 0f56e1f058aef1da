/* The inside of the SQLite store, shared by store_sqlite*.c only.
 * Threads: the writer's thread owns writer and state; idle readers are under mutex; a reader belongs to
 * the thread that took it. No lock is held while SQLite runs. */
#pragma once

#include <pthread.h>

#include "databroker/steady.h"
#include "databroker/store.h"
#include "databroker/store_sqlite_conn.h"
#include "databroker/writer.h"

struct broker_store {
    struct broker_store_opts opts;
    char *name; /* file or URI */
    int lock_fd;

    pthread_mutex_t mutex;
    pthread_cond_t idle; /* readers: one came back */
    struct broker_conn *readers;

    struct broker_writer queue;
    struct broker_conn *writer;
    struct broker_state state;
    struct broker_steady steady;
};

/* store_sqlite_write.c */
MUST_CHECK enum err broker_store_transact(struct broker_store *store,
                                          struct broker_write *const *group, size_t *n);

/* store_sqlite_sweep.c: one small batch; *swept_out counts its rows. Within the transaction. */
MUST_CHECK enum err broker_store_sweep(struct broker_store *store, uint64_t *swept_out);
/* store_sqlite_write.c: writes one record or tombstone at the next version. */
MUST_CHECK enum err broker_store_put_record(struct broker_store *store,
                                            struct broker_record *record);

/* store_sqlite_read.c */
MUST_CHECK enum err broker_store_get(struct broker_store *store, struct sv type, struct sv id,
                                     int64_t deadline_ms, struct broker_records *out);
MUST_CHECK enum err broker_store_query(struct broker_store *store, const struct broker_query *query,
                                       int64_t deadline_ms, struct broker_records *out);
MUST_CHECK enum err broker_store_page(struct broker_store *store, struct sv type,
                                      const struct broker_record *after, int64_t deadline_ms,
                                      struct broker_records *out);
MUST_CHECK enum err broker_store_changes(struct broker_store *store, uint64_t server_version,
                                         uint64_t after, struct sv type, int64_t deadline_ms,
                                         struct broker_records *out);
MUST_CHECK enum err broker_store_types(struct broker_store *store, int64_t deadline_ms,
                                       struct broker_records *out);
MUST_CHECK enum err broker_store_options(struct broker_store *store, struct sv type,
                                         int64_t deadline_ms, struct broker_records *out);
MUST_CHECK enum err broker_store_info(struct broker_store *store, int64_t deadline_ms,
                                      struct broker_info *info_out);
