/* The reading connections. While they are closed, which is short, reads wait. */
#include <time.h>

#include "common/clock.h"
#include "databroker/store_sqlite_int.h"

static struct timespec at(int64_t deadline_ms)
{
    return (struct timespec){ .tv_sec = deadline_ms / 1000,
                              .tv_nsec = deadline_ms % 1000 * 1000000 };
}

void broker_readers_give(struct broker_store *store, struct broker_conn *conn)
{
    (void)pthread_mutex_lock(&store->mutex);
    conn->next = store->readers;
    store->readers = conn;
    store->readers_out--;
    (void)pthread_cond_broadcast(&store->idle);
    (void)pthread_mutex_unlock(&store->mutex);
}

enum err broker_readers_take(struct broker_store *store, int64_t deadline_ms,
                             struct broker_conn **conn_out)
{
    const struct timespec until = at(deadline_ms);
    struct broker_conn *conn = NULL;
    enum err err = ERR_OK;
    int rc = 0;

    (void)pthread_mutex_lock(&store->mutex);
    while ((store->readers == NULL || store->readers_closing) && !store->readers_failed &&
           rc == 0) {
        rc = pthread_cond_timedwait(&store->idle, &store->mutex, &until);
    }
    if (store->readers_failed) {
        err = ERR_UNAVAILABLE;
    } else if (rc != 0) {
        err = ERR_TIMEOUT;
    } else {
        conn = store->readers;
        store->readers = conn->next;
        store->readers_out++;
    }
    (void)pthread_mutex_unlock(&store->mutex);
    if (err != ERR_OK) {
        return err;
    }
    conn->deadline_ms = deadline_ms;
    *conn_out = conn;
    return ERR_OK;
}

static void free_all(struct broker_conn **conns)
{
    while (*conns != NULL) {
        struct broker_conn *conn = *conns;

        *conns = conn->next;
        broker_conn_free(&conn);
    }
}

enum err broker_readers_open(struct broker_store *store, struct diag *d)
{
    struct broker_conn *all = NULL;
    unsigned i = 0;

    for (i = 0; i < store->opts.readers; i++) {
        struct broker_conn *conn = NULL;
        enum err err = broker_conn_open(store->name, &conn, d);

        if (err == ERR_OK) {
            err = broker_conn_exec(conn, "PRAGMA query_only = 1", d);
        }
        if (err != ERR_OK) {
            broker_conn_free(&conn);
            free_all(&all);
            return err;
        }
        conn->next = all;
        all = conn;
    }
    (void)pthread_mutex_lock(&store->mutex);
    store->readers = all;
    store->readers_failed = false;
    (void)pthread_cond_broadcast(&store->idle);
    (void)pthread_mutex_unlock(&store->mutex);
    return ERR_OK;
}

enum err broker_readers_close(struct broker_store *store, int64_t deadline_ms)
{
    const struct timespec until = at(deadline_ms);
    struct broker_conn *all = NULL;
    int rc = 0;

    (void)pthread_mutex_lock(&store->mutex);
    store->readers_closing = true;
    while (store->readers_out > 0 && rc == 0) {
        rc = pthread_cond_timedwait(&store->idle, &store->mutex, &until);
    }
    store->readers_closing = false;
    if (store->readers_out == 0) {
        all = TAKE(store->readers);
        rc = 0;
    }
    (void)pthread_cond_broadcast(&store->idle);
    (void)pthread_mutex_unlock(&store->mutex);
    free_all(&all);
    return rc == 0 ? ERR_OK : ERR_TIMEOUT;
}

void broker_readers_fail(struct broker_store *store)
{
    (void)pthread_mutex_lock(&store->mutex);
    store->readers_failed = true;
    (void)pthread_cond_broadcast(&store->idle);
    (void)pthread_mutex_unlock(&store->mutex);
}
