/* broker_writer: the queue of writes of a store and the one thread that empties it. It takes what is
 * queued, has it applied in one transaction and tells each caller after the commit; while a commit
 * waits for the disk the next writes gather. Between the writes it sweeps.
 * Submit is for any thread; everything else happens on the writer's. */
#pragma once

#include <pthread.h>

#include "databroker/store.h"

enum {
    BROKER_GROUP_MAX = 256,               /* writes of one transaction */
    BROKER_GROUP_BYTES = 8 * 1024 * 1024, /* and their records' bytes */
    BROKER_GROUP_MS = 5000                /* and its time */
};

/* Applies the first *n writes of group in one transaction, each whole or not at all, and sets their
 * err. It may take fewer, at least one, and says how many in *n. An error: none of them was applied. */
typedef enum err (*broker_transact_fn)(struct broker_store *store,
                                       struct broker_write *const *group, size_t *n);

struct broker_writer {
    struct broker_store *store;
    broker_transact_fn transact;
    void (*on_commit)(void *arg);
    void *arg;
    size_t queue_max;
    int64_t sweep_ms;

    pthread_mutex_t mutex;
    pthread_cond_t wake; /* something is queued, or stop */
    struct broker_write *first;
    struct broker_write **tail;
    size_t waiting;
    bool stopping;

    pthread_t thread;
    bool running;
    int64_t sweep_at_ms;
    bool sweeping;
};

/* opts: queue_max, sweep_ms and on_commit count; zeros become what store.h says. */
void broker_writer_init(struct broker_writer *writer, const struct broker_store_opts *opts,
                        struct broker_store *store, broker_transact_fn transact);
void broker_writer_start(struct broker_writer *writer);
/* Ends the thread after what is queued; also where it was never started. */
void broker_writer_stop(struct broker_writer *writer);
void broker_writer_deinit(struct broker_writer *writer);
/* ERR_LIMIT: the queue is full. ERR_UNAVAILABLE: it stops. Then done does not run. */
MUST_CHECK enum err broker_writer_submit(struct broker_writer *writer, struct broker_write *w);
