/* The watcher: a thread that notices what other databrokers have written. A notification only says
 * "look"; where none comes (a pooler, a distributed database, a lost connection) looking every
 * BROKER_PG_POLL_MS is enough. It is also the one that knocks while the server is away. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "databroker/store_pg_int.h"

void broker_pg_watch_told(struct broker_store *store, const struct broker_pg_state *state)
{
    (void)pthread_mutex_lock(&store->mutex);
    if (state->latest_version >= store->seen.latest_version ||
        state->server_version != store->seen.server_version) {
        store->seen = *state;
    }
    (void)pthread_mutex_unlock(&store->mutex);
}

/* Tells the service where state is news to it. */
static void tell(struct broker_store *store, const struct broker_pg_state *state)
{
    bool options = false;
    bool wanted = false;
    bool news = false;

    (void)pthread_mutex_lock(&store->mutex);
    /* the writer may have told of more while state was on its way */
    news = state->server_version != store->seen.server_version ||
           state->latest_version > store->seen.latest_version;
    options = state->options_version > store->seen.options_version;
    wanted = state->wanted_version != store->seen.wanted_version &&
             state->latest_version >= store->seen.latest_version;
    if (news || options || wanted) {
        store->seen = *state;
    }
    (void)pthread_mutex_unlock(&store->mutex);
    if (options && store->opts.on_options != NULL) {
        store->opts.on_options(store->opts.arg);
    }
    if (wanted && store->opts.on_wanted != NULL) {
        store->opts.on_wanted(store->opts.arg, state->wanted_version);
    }
    if ((news || options || wanted) && store->opts.on_commit != NULL) {
        store->opts.on_commit(store->opts.arg);
    }
}

static enum err look(struct broker_store *store, struct broker_pg_conn *conn)
{
    struct broker_pg_state state;
    enum err err = ERR_OK;

    conn->deadline_ms = clock_mono_ms() + BROKER_GROUP_MS;
    broker_pg_add(conn, BROKER_PG_STATE_GET);
    broker_pg_send(conn);
    err = broker_pg_read_state(conn, &state);
    if (err == ERR_OK) {
        err = broker_pg_finish(conn);
    }
    if (err == ERR_OK) {
        tell(store, &state);
    }
    return err;
}

static bool is_stopping(struct broker_store *store)
{
    bool stopping = false;

    (void)pthread_mutex_lock(&store->mutex);
    stopping = store->stopping;
    (void)pthread_mutex_unlock(&store->mutex);
    return stopping;
}

/* Many databrokers lose a server at the same time: they do not come back at the same time. */
static void pause_a_little(struct broker_store *store)
{
    int64_t at_ms =
        clock_mono_ms() + BROKER_PG_PAUSE_MS / 4 + (int64_t)rand_below(BROKER_PG_PAUSE_MS * 3 / 4);
    struct timespec until = { .tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000 };
    int rc = 0;

    (void)pthread_mutex_lock(&store->mutex);
    while (!store->stopping && rc == 0) {
        rc = pthread_cond_timedwait(&store->awake, &store->mutex, &until);
    }
    (void)pthread_mutex_unlock(&store->mutex);
}

static enum err open_watch(struct broker_store *store, struct broker_pg_conn **conn_out)
{
    CLEANUP(broker_pg_free) struct broker_pg_conn *conn = NULL;
    PGresult *answer = NULL;
    enum err err = broker_pg_connect(store, 0, true, &conn);

    if (err == ERR_OK && store->notify) {
        err = broker_pg_try(conn, "LISTEN postern_changes", &answer);
        PQclear(answer);
    }
    if (err == ERR_OK) {
        err = look(store, conn); /* what came while nobody listened */
    }
    if (err == ERR_OK) {
        *conn_out = TAKE(conn);
    }
    return err;
}

static void *watch_main(void *arg)
{
    struct broker_store *store = arg;
    struct broker_pg_conn *conn = NULL;
    int64_t look_at_ms = 0;

    while (!is_stopping(store)) {
        bool foreign = false;
        enum err err = ERR_OK;

        if (conn == NULL) {
            err = open_watch(store, &conn);
            look_at_ms = clock_mono_ms() + BROKER_PG_POLL_MS;
        } else {
            err = broker_pg_listen(conn, look_at_ms,
                                   __atomic_load_n(&store->writer_pid, __ATOMIC_SEQ_CST), &foreign);
        }
        if (err == ERR_OK && (foreign || clock_mono_ms() >= look_at_ms)) {
            err = look(store, conn);
            look_at_ms = clock_mono_ms() + BROKER_PG_POLL_MS;
        }
        if (err != ERR_OK) {
            broker_pg_free(&conn);
            pause_a_little(store);
        }
    }
    broker_pg_free(&conn);
    return NULL;
}

void broker_pg_watch_start(struct broker_store *store)
{
    sigset_t all;
    sigset_t before;

    (void)sigfillset(&all); /* signals are the loop thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    CHECK(pthread_create(&store->watcher, NULL, watch_main, store) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    store->watching = true;
}

void broker_pg_watch_stop(struct broker_store *store)
{
    if (!store->watching) {
        return;
    }
    (void)pthread_mutex_lock(&store->mutex);
    store->stopping = true;
    (void)pthread_cond_signal(&store->awake);
    (void)pthread_mutex_unlock(&store->mutex);
    (void)pthread_join(store->watcher, NULL);
    store->watching = false;
}
