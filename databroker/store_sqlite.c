#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "databroker/store_sqlite_int.h"

enum {
    APPLICATION_ID = 0x506f7374, /* "Post": tells our files from other people's */
    SCHEMA = 2,                  /* a newer one is refused, an older one migrated */
    CHECK_MS = 60000,            /* for quick_check at start */
    MIGRATE_MS = 600000,         /* a million records take seconds */
    READERS = 2,
    READERS_MAX = 16
};

static const char schema_sql[] =
    "CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, "
    "server_version INTEGER NOT NULL, latest_version INTEGER NOT NULL, "
    "log_floor INTEGER NOT NULL, probe INTEGER NOT NULL);"
    "CREATE TABLE records (type TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, "
    "modified_us INTEGER NOT NULL, data_type TEXT NOT NULL, data BLOB NOT NULL, "
    "ends_us INTEGER NOT NULL DEFAULT 0, UNIQUE (type, id));"
    "CREATE INDEX records_by_end ON records (ends_us) WHERE ends_us > 0;"
    "CREATE INDEX records_by_age ON records (type, modified_us);"
    "CREATE TABLE changes (version INTEGER PRIMARY KEY, type TEXT NOT NULL, id TEXT NOT NULL, "
    "modified_us INTEGER NOT NULL, deleted_us INTEGER NOT NULL, data_type TEXT NOT NULL, "
    "data BLOB NOT NULL);"
    "CREATE TABLE options (type TEXT PRIMARY KEY, bytes BLOB NOT NULL, capacity INTEGER NOT NULL, "
    "ttl_ms INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE leases (name TEXT PRIMARY KEY, id TEXT NOT NULL, expires_us INTEGER NOT NULL) "
    "WITHOUT ROWID;"
    "CREATE INDEX leases_by_end ON leases (expires_us);";

static enum err create_schema(struct broker_conn *conn, struct diag *d)
{
    CLEANUP(buf_deinit) struct buf sql = { 0 };
    uint64_t server_version = 0;

    while (server_version == 0) {
        server_version = rand_u64();
    }
    buf_init(&sql, 8192);
    buf_printf(&sql,
               "BEGIN IMMEDIATE; PRAGMA application_id = %d; %s INSERT INTO store VALUES "
               "(1, %d, %lld, 0, 0, 0); COMMIT;",
               APPLICATION_ID, schema_sql, SCHEMA, (long long)server_version);
    return broker_conn_exec(conn, buf_cstr(&sql), d);
}

/* Ends a statement of another thread that takes too long. The progress handler cannot: a check of the file
 * is one instruction to SQLite, however many pages it reads; it looks at sqlite3_interrupt between them. */
struct watchdog {
    sqlite3 *db;
    int64_t at_ms;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t end;
    bool done;
    bool bit;
};

static void *watch(void *arg)
{
    struct watchdog *w = arg;
    struct timespec at = { .tv_sec = w->at_ms / 1000, .tv_nsec = w->at_ms % 1000 * 1000000 };

    (void)pthread_mutex_lock(&w->lock);
    while (!w->done && !w->bit) {
        if (pthread_cond_timedwait(&w->end, &w->lock, &at) == ETIMEDOUT && !w->done) {
            w->bit = true;
            sqlite3_interrupt(w->db);
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void watchdog_start(struct watchdog *w, sqlite3 *db, int64_t at_ms)
{
    pthread_condattr_t attr;

    *w = (struct watchdog){ .db = db, .at_ms = at_ms };
    CHECK(pthread_mutex_init(&w->lock, NULL) == 0 && pthread_condattr_init(&attr) == 0 &&
          pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
          pthread_cond_init(&w->end, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    CHECK(pthread_create(&w->thread, NULL, watch, w) == 0);
}

/* Whether it had to. */
static bool watchdog_stop(struct watchdog *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->done = true;
    (void)pthread_cond_signal(&w->end);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    (void)pthread_cond_destroy(&w->end);
    (void)pthread_mutex_destroy(&w->lock);
    return w->bit;
}

static enum err quick_check(struct broker_store *store, struct diag *d)
{
    struct broker_conn *conn = store->writer;
    int64_t check_ms = store->opts.check_ms > 0 ? store->opts.check_ms : CHECK_MS;
    sqlite3_stmt *stmt = NULL;
    struct watchdog watchdog;
    struct sv answer;
    enum err err = ERR_OK;
    int rc = 0;

    conn->deadline_ms = clock_mono_ms() + check_ms;
    watchdog_start(&watchdog, conn->db, conn->deadline_ms);
    rc = sqlite3_prepare_v2(conn->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
    }
    if (watchdog_stop(&watchdog)) { /* what it says then is about what it did not see */
        log_warn("store.check-unfinished", KV_I64("after_ms", check_ms));
    } else {
        answer = rc == SQLITE_ROW ? broker_col_sv(stmt, 0) : sv_from(sqlite3_errmsg(conn->db));
        if (!sv_eq(answer, SV("ok"))) {
            diag_set(d, "%s is damaged (%.*s): restore it from a backup", store->name,
                     (int)MIN(answer.n, (size_t)200), answer.p);
            err = ERR_INVALID;
        }
    }
    (void)sqlite3_finalize(stmt);
    return err;
}

/* Asks each record for its end, which schema 1 did not keep. */
static enum err fill_ends(struct broker_conn *conn)
{
    sqlite3_stmt *stmt = broker_conn_stmt(conn, BROKER_SQL_RECORD_ALL);
    struct broker_record record = { .version = 0 };
    bool row = false;
    enum err err = broker_conn_step(conn, stmt, &row);

    while (row) {
        sqlite3_stmt *set = broker_conn_stmt(conn, BROKER_SQL_RECORD_SET_END);

        broker_col_record(stmt, &record);
        broker_bind_i64(set, 1, broker_record_end_us(&record));
        broker_bind_u64(set, 2, record.version);
        broker_bind_sv(set, 3, record.type);
        broker_bind_sv(set, 4, record.id);
        err = broker_conn_run(conn, set);
        if (err != ERR_OK) {
            broker_conn_done(stmt);
            return err;
        }
        err = broker_conn_step(conn, stmt, &row);
    }
    return err;
}

/* From schema 1: records had no end. The change log begins anew: followers read a snapshot once. */
static enum err migrate(struct broker_store *store, int64_t schema, struct diag *d)
{
    struct broker_conn *conn = store->writer;
    enum err err = ERR_OK;

    conn->deadline_ms = clock_mono_ms() + MIGRATE_MS;
    err = broker_conn_exec(
        conn,
        "BEGIN IMMEDIATE; ALTER TABLE records ADD COLUMN ends_us INTEGER NOT NULL DEFAULT 0; "
        "DELETE FROM changes; UPDATE store SET schema = 2, log_floor = latest_version",
        d);
    if (err == ERR_OK && fill_ends(conn) != ERR_OK) {
        diag_set(d, "%s cannot be brought to schema %d: %s", store->name, SCHEMA,
                 sqlite3_errmsg(conn->db));
        err = ERR_IO;
    }
    if (err == ERR_OK) {
        err = broker_conn_exec(
            conn, "CREATE INDEX records_by_end ON records (ends_us) WHERE ends_us > 0; COMMIT", d);
    }
    if (err != ERR_OK) {
        broker_conn_rollback(conn);
        return err;
    }
    log_info("store.migrated", KV_I64("from", schema), KV_I64("to", SCHEMA));
    return ERR_OK;
}

/* Makes an empty file ours, or makes sure that it is. */
static enum err check_schema(struct broker_store *store, struct diag *d)
{
    struct broker_conn *conn = store->writer;
    int64_t tables = 0;
    int64_t application = 0;
    int64_t schema = 0;
    enum err err = broker_conn_number(conn, "SELECT count(*) FROM sqlite_schema", &tables, d);

    if (err == ERR_OK && tables == 0) {
        return create_schema(conn, d);
    }
    if (err == ERR_OK) {
        err = broker_conn_number(conn, "PRAGMA application_id", &application, d);
    }
    if (err == ERR_OK && application != APPLICATION_ID) {
        diag_set(d, "%s belongs to another program", store->name);
        return ERR_INVALID;
    }
    if (err == ERR_OK) {
        err = broker_conn_number(conn, "SELECT schema FROM store", &schema, d);
    }
    if (err == ERR_OK && (schema < 1 || schema > SCHEMA)) {
        diag_set(d, "%s has schema %lld, this databroker knows %d: start the newer version",
                 store->name, (long long)schema, SCHEMA);
        return ERR_UNSUPPORTED;
    }
    if (err == ERR_OK) {
        err = quick_check(store, d);
    }
    return err == ERR_OK && schema < SCHEMA ? migrate(store, schema, d) : err;
}

enum err broker_store_connect(struct broker_store *store, struct diag *d)
{
    /* checkpoints: store_sqlite_settle.c */
    static const char durable[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
                                  "PRAGMA journal_size_limit = 67108864; PRAGMA secure_delete = ON";
    enum err err = broker_conn_open(store->name, &store->writer, d);

    if (err == ERR_OK && store->opts.target != NULL) {
        err = broker_conn_exec(store->writer, durable, d);
    }
    if (err == ERR_OK && store->opts.max_pages > 0) {
        CLEANUP(buf_deinit) struct buf sql = { 0 };

        buf_init(&sql, 128);
        buf_printf(&sql, "PRAGMA max_page_count = %u", store->opts.max_pages);
        err = broker_conn_exec(store->writer, buf_cstr(&sql), d);
    }
    return err;
}

static enum err open_writer(struct broker_store *store, struct diag *d)
{
    int64_t last_us = 0;
    enum err err = broker_store_connect(store, d);

    if (err == ERR_OK) {
        err = check_schema(store, d);
    }
    if (err == ERR_OK) {
        err = broker_conn_number(store->writer, "SELECT probe FROM store", &last_us, d);
    }
    broker_steady_init(&store->steady, clock_wall_us(), last_us, store->opts.hold_ms);
    return err == ERR_OK ? broker_conn_state(store->writer, &store->state) : err;
}

static void store_close(struct broker_store **store)
{
    struct broker_store *s = TAKE(*store);

    if (s == NULL) {
        return;
    }
    broker_writer_stop(&s->queue);
    CHECK(broker_readers_close(s, 0) == ERR_OK); /* none is out */
    broker_conn_free(&s->writer);
    broker_file_close(s);
    broker_writer_deinit(&s->queue);
    (void)pthread_cond_destroy(&s->idle);
    (void)pthread_mutex_destroy(&s->mutex);
    mem_free(&s->name);
    mem_free(&s);
}

static char *memory_name(void)
{
    CLEANUP(buf_deinit) struct buf name = { 0 };

    buf_init(&name, 64);
    buf_printf(&name, "file:/postern-%llx?vfs=memdb", (unsigned long long)rand_u64());
    return buf_take(&name);
}

static struct broker_store *store_new(const struct broker_store_opts *opts)
{
    struct broker_store *store = MEM_NEW(struct broker_store);
    pthread_condattr_t attr;

    store->opts = *opts;
    store->opts.readers = opts->readers == 0 ? READERS : MIN(opts->readers, READERS_MAX);
    store->opts.retention_ms = opts->retention_ms == 0 ? BROKER_RETENTION_MS : opts->retention_ms;
    store->opts.hold_ms = opts->hold_ms == 0 ? BROKER_HOLD_MS : opts->hold_ms;
    store->name = opts->target != NULL ? mem_strdup(opts->target) : memory_name();
    store->lock_fd = -1;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&store->mutex, NULL);
    (void)pthread_cond_init(&store->idle, &attr);
    (void)pthread_condattr_destroy(&attr);
    broker_writer_init(&store->queue, opts, store, broker_store_transact);
    return store;
}

static enum err store_submit(struct broker_store *store, struct broker_write *w)
{
    return broker_writer_submit(&store->queue, w);
}

static enum err store_open(const struct broker_store_opts *opts, struct broker_store **store_out,
                           struct diag *d)
{
    CLEANUP(store_close) struct broker_store *store = store_new(opts);
    enum err err = ERR_OK;

    if (opts->target != NULL) {
        err = broker_file_open(store, d);
    }
    if (err == ERR_OK && opts->target != NULL) {
        broker_store_settle_first(store);
    }
    if (err == ERR_OK) {
        err = open_writer(store, d);
    }
    if (err == ERR_OK) {
        err = broker_readers_open(store, d);
    }
    if (err != ERR_OK) {
        return err;
    }
    broker_file_remember(store);
    broker_writer_start(&store->queue);
    *store_out = TAKE(store);
    return ERR_OK;
}

const struct broker_store_ops broker_store_sqlite = {
    .name = "sqlite",
    .open = store_open,
    .close = store_close,
    .submit = store_submit,
    .get = broker_store_get,
    .query = broker_store_query,
    .page = broker_store_page,
    .changes = broker_store_changes,
    .types = broker_store_types,
    .options = broker_store_options,
    .info = broker_store_info,
};
