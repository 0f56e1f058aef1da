#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"
#include "databroker/store_pg_int.h"

enum { READERS = 2, READERS_MAX = 16, START_MS = 15000, LINE_MS = 10000 };

/* ---- the server comes and goes --------------------------------------------------------------- */

static void note_up(struct broker_store *store)
{
    int64_t since_ms = 0;

    (void)pthread_mutex_lock(&store->mutex);
    since_ms = store->down_since_ms;
    store->down_since_ms = 0;
    (void)pthread_mutex_unlock(&store->mutex);
    if (since_ms != 0) {
        log_info("store.reached", KV_I64("after_ms", clock_mono_ms() - since_ms));
    }
}

static void note_down(struct broker_store *store, const char *cause)
{
    int64_t now = clock_mono_ms();
    bool line = false;

    (void)pthread_mutex_lock(&store->mutex);
    if (store->down_since_ms == 0) {
        store->down_since_ms = now;
        store->down_line_ms = 0;
    }
    line = now >= store->down_line_ms;
    if (line) {
        store->down_line_ms = now + LINE_MS;
    }
    (void)pthread_mutex_unlock(&store->mutex);
    if (line) {
        log_error("store.unreachable", KV_STR("cause", cause));
    }
}

static bool is_given_up(struct broker_store *store)
{
    bool given_up = false;

    (void)pthread_mutex_lock(&store->mutex);
    given_up =
        store->down_since_ms != 0 && clock_mono_ms() - store->down_since_ms > BROKER_PG_PATIENCE_MS;
    (void)pthread_mutex_unlock(&store->mutex);
    return given_up;
}

static enum err connect_once(struct broker_store *store, struct broker_pg_conn **conn_out,
                             struct diag *d)
{
    CLEANUP(broker_pg_free) struct broker_pg_conn *conn = NULL;
    enum err err = broker_pg_open(store->conninfo, &conn, d);

    if (err == ERR_OK) {
        err = broker_pg_prepare(conn, store->notify);
        if (err != ERR_OK) {
            diag_set(d, "a statement is refused: %s", conn->why);
        }
    }
    if (err == ERR_OK) {
        *conn_out = TAKE(conn);
    }
    return err;
}

enum err broker_pg_connect(struct broker_store *store, int64_t deadline_ms, bool persistent,
                           struct broker_pg_conn **conn_out)
{
    for (;;) {
        struct diag d = { .text = "" };
        int64_t pause_ms = 50 + (int64_t)rand_below(200);

        if (!persistent && is_given_up(store)) {
            return ERR_UNAVAILABLE;
        }
        if (connect_once(store, conn_out, &d) == ERR_OK) {
            note_up(store);
            return ERR_OK;
        }
        note_down(store, d.text);
        if (persistent || clock_mono_ms() + pause_ms > deadline_ms) {
            return ERR_UNAVAILABLE;
        }
        (void)usleep((useconds_t)pause_ms * 1000);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void store_close(struct broker_store **store)
{
    struct broker_store *s = TAKE(*store);

    if (s == NULL) {
        return;
    }
    broker_writer_stop(&s->queue);
    broker_pg_watch_stop(s);
    while (s->readers != NULL) {
        struct broker_pg_conn *conn = s->readers;

        s->readers = conn->next;
        broker_pg_free(&conn);
    }
    broker_pg_free(&s->writer);
    broker_writer_deinit(&s->queue);
    (void)pthread_cond_destroy(&s->awake);
    (void)pthread_cond_destroy(&s->idle);
    (void)pthread_mutex_destroy(&s->mutex);
    secret_wipe(s->conninfo, strlen(s->conninfo));
    mem_free(&s->conninfo);
    mem_free(&s);
}

static struct broker_store *store_new(const struct broker_store_opts *opts)
{
    struct broker_store *store = MEM_NEW(struct broker_store);
    pthread_condattr_t attr;

    store->opts = *opts;
    store->opts.target = NULL;
    store->opts.readers = opts->readers == 0 ? READERS : MIN(opts->readers, READERS_MAX);
    store->opts.retention_ms = opts->retention_ms == 0 ? BROKER_RETENTION_MS : opts->retention_ms;
    store->opts.hold_ms = opts->hold_ms == 0 ? BROKER_HOLD_MS : opts->hold_ms;
    store->conninfo = mem_strdup(opts->target);
    rand_uuid(store->id);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&store->mutex, NULL);
    (void)pthread_cond_init(&store->idle, &attr);
    (void)pthread_cond_init(&store->awake, &attr);
    (void)pthread_condattr_destroy(&attr);
    broker_writer_init(&store->queue, opts, store, broker_pg_transact);
    return store;
}

/* Makes the tables, and learns what the server knows. */
static enum err look_around(struct broker_store *store, struct diag *d)
{
    CLEANUP(broker_pg_free) struct broker_pg_conn *conn = NULL;
    PGresult *answer = NULL;
    enum err err = broker_pg_open(store->conninfo, &conn, d);

    if (err == ERR_OK) {
        err = broker_pg_migrate(conn, d);
    }
    if (err == ERR_OK) {
        err = broker_pg_try(conn, "LISTEN postern_changes", &answer);
        store->notify = answer != NULL;
        PQclear(answer);
    }
    if (err == ERR_OK && !store->notify) {
        log_info("store.no-notifications", KV_I64("looks_every_ms", BROKER_PG_POLL_MS));
    }
    return err;
}

static enum err read_first(struct broker_store *store, struct diag *d)
{
    struct broker_pg_txn txn = { .store = store };
    enum err err = connect_once(store, &store->writer, d);

    if (err == ERR_OK) {
        __atomic_store_n(&store->writer_pid, PQbackendPID(store->writer->pg), __ATOMIC_SEQ_CST);
        err = broker_pg_check_history(store);
    }
    if (err == ERR_OK) {
        err = broker_pg_txn_begin(store, &txn);
    }
    if (err != ERR_OK) {
        diag_set(d, "the store does not work: %s", store->writer == NULL ? "" : store->writer->why);
        broker_pg_free(&store->writer);
        return err;
    }
    store->seen = txn.state;
    store->seen.wanted_version = 0; /* the watcher tells of it */
    broker_pg_rollback(store->writer);
    return ERR_OK;
}

/* Into the log: where it leads, and whether the way there is safe. */
static enum err check_target(const struct broker_store *store, const char *conninfo, struct diag *d)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    struct sv where = { 0 };
    enum err err = ERR_OK;

    arena_init(&arena);
    err = broker_pg_where(conninfo, &where, &arena, d);
    if (err != ERR_OK) {
        return err;
    }
    log_info("store.opens", KV_STR("type", "postgres"), KV_SV("at", where),
             KV_STR("databroker", store->id));
    if (broker_pg_is_exposed(conninfo)) {
        log_warn("store.tls-unverified", KV_SV("at", where),
                 KV_STR("advice", "sslmode=verify-full: else who stands between may read it all"));
    }
    return ERR_OK;
}

static enum err store_open(const struct broker_store_opts *opts, struct broker_store **store_out,
                           struct diag *d)
{
    CLEANUP(store_close) struct broker_store *store = store_new(opts);
    int64_t until_ms = clock_mono_ms() + START_MS;
    struct diag last = { .text = "" };
    enum err err = check_target(store, opts->target, d);

    if (err != ERR_OK) {
        return err;
    }
    err = ERR_UNAVAILABLE;
    while (err == ERR_UNAVAILABLE && clock_mono_ms() < until_ms) {
        last = (struct diag){ .text = "" };
        err = look_around(store, &last);
        if (err == ERR_OK) {
            err = read_first(store, &last);
        }
        if (err == ERR_UNAVAILABLE) {
            note_down(store, last.text);
            (void)usleep((useconds_t)(100000 + rand_below(400000)));
        }
    }
    if (err != ERR_OK) {
        diag_set(d, "the database of the databroker: %s", last.text);
        return err;
    }
    note_up(store);
    broker_writer_start(&store->queue);
    broker_pg_watch_start(store);
    *store_out = TAKE(store);
    return ERR_OK;
}

static enum err store_submit(struct broker_store *store, struct broker_write *w)
{
    return broker_writer_submit(&store->queue, w);
}

const struct broker_store_ops broker_store_pg = {
    .name = "postgres",
    .open = store_open,
    .close = store_close,
    .submit = store_submit,
    .get = broker_pg_get,
    .query = broker_pg_query,
    .page = broker_pg_page,
    .changes = broker_pg_changes,
    .types = broker_pg_types,
    .options = broker_pg_options,
    .info = broker_pg_info,
    .peers = broker_pg_peers,
};
