/* Reads: each takes an idle connection, or makes one, and asks all it wants in one round trip: one
 * transaction, one snapshot. A connection that turns out to be broken is replaced and the read begun
 * again; nothing was changed by it. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "databroker/store_pg_int.h"

enum { PAGE_RECORDS = 500 };

/* One read on a connection that is in order. */
struct read {
    struct sv type;
    struct sv id;
    bool whole; /* of all types */
    const struct broker_query *query;
    uint64_t server_version;
    uint64_t after;
    struct broker_pg_state state;
    struct broker_peers *peers;
};

typedef enum err (*read_fn)(struct broker_pg_conn *conn, struct read *read,
                            struct broker_records *out);

/* ---- connections ----------------------------------------------------------------------------- */

/* *conn_out may be NULL: a connection may be made. */
static enum err reader_take(struct broker_store *store, int64_t deadline_ms,
                            struct broker_pg_conn **conn_out)
{
    struct timespec until = { .tv_sec = deadline_ms / 1000,
                              .tv_nsec = deadline_ms % 1000 * 1000000 };
    bool taken = false;
    int rc = 0;

    if (clock_mono_ms() > deadline_ms) {
        return ERR_TIMEOUT;
    }
    (void)pthread_mutex_lock(&store->mutex);
    while (store->readers_out >= store->opts.readers && rc == 0) {
        rc = pthread_cond_timedwait(&store->idle, &store->mutex, &until);
    }
    taken = store->readers_out < store->opts.readers;
    if (taken) {
        store->readers_out++;
        *conn_out = store->readers;
        store->readers = *conn_out == NULL ? NULL : (*conn_out)->next;
    }
    (void)pthread_mutex_unlock(&store->mutex);
    return taken ? ERR_OK : ERR_TIMEOUT;
}

static void reader_give(struct broker_store *store, struct broker_pg_conn *conn)
{
    if (conn != NULL && conn->lost) {
        broker_pg_free(&conn);
    }
    (void)pthread_mutex_lock(&store->mutex);
    store->readers_out--;
    if (conn != NULL) {
        conn->next = store->readers;
        store->readers = conn;
    }
    (void)pthread_cond_signal(&store->idle);
    (void)pthread_mutex_unlock(&store->mutex);
}

/* Once; ERR_AGAIN: another try may succeed at once. */
static enum err read_once(struct broker_store *store, int64_t deadline_ms, read_fn fn,
                          struct read *read, struct broker_records *out)
{
    struct broker_pg_conn *conn = NULL;
    size_t before = out->count;
    enum err err = reader_take(store, deadline_ms, &conn);

    if (err != ERR_OK) {
        return err;
    }
    if (conn == NULL) {
        err = broker_pg_connect(store, deadline_ms, false, &conn);
    }
    if (err == ERR_OK) {
        conn->deadline_ms = deadline_ms;
        broker_pg_add(conn, BROKER_PG_BEGIN_READ);
        broker_pg_add(conn, BROKER_PG_STATE_GET);
        err = fn(conn, read, out);
        broker_pg_rollback(conn);
        if (err == ERR_UNAVAILABLE && out->count == before) {
            err = ERR_AGAIN;
        }
    }
    reader_give(store, conn);
    return err;
}

static enum err run(struct broker_store *store, int64_t deadline_ms, read_fn fn, struct read *read,
                    struct broker_records *out)
{
    enum err err = ERR_AGAIN;
    unsigned tries = 0;

    for (tries = 0; err == ERR_AGAIN && clock_mono_ms() <= deadline_ms; tries++) {
        if (tries > store->opts.readers) { /* all idle ones were broken, and a new one is */
            (void)usleep((useconds_t)(10000 + rand_below(100000)));
        }
        err = read_once(store, deadline_ms, fn, read, out);
    }
    out->server_version = read->state.server_version;
    out->latest_version = read->state.latest_version;
    if (err == ERR_AGAIN) {
        return tries == 0 ? ERR_TIMEOUT : ERR_UNAVAILABLE;
    }
    return err;
}

/* Sends the beginning and what was added behind it, to the end, and reads the state. */
static enum err begin(struct broker_pg_conn *conn, struct read *read)
{
    enum err err = ERR_OK;

    broker_pg_add(conn, BROKER_PG_COMMIT);
    broker_pg_send(conn);
    err = broker_pg_skip(conn);
    return err == ERR_OK ? broker_pg_read_state(conn, &read->state) : err;
}

/* Adds the next statement's rows while they fit limit; sets more if one does not. */
static enum err read_rows(struct broker_pg_conn *conn, size_t limit, struct broker_records *out)
{
    PGresult *result = NULL;
    int row = 0;
    enum err err = broker_pg_next(conn, &result);

    for (row = 0; err == ERR_OK && !out->more && row < PQntuples(result); row++) {
        struct broker_record record;

        broker_pg_record(result, row, &record);
        out->more = !broker_records_fit(out, &record, limit);
        if (!out->more) {
            broker_records_add(out, &record);
        }
    }
    PQclear(result);
    return err;
}

/* ---- the reads ------------------------------------------------------------------------------- */

static enum err read_get(struct broker_pg_conn *conn, struct read *read, struct broker_records *out)
{
    enum err err = ERR_OK;

    broker_pg_add(conn, BROKER_PG_RECORD_GET, PG_TEXT(read->type), PG_TEXT(read->id));
    err = begin(conn, read);
    return err == ERR_OK ? read_rows(conn, SIZE_MAX, out) : err;
}

enum err broker_pg_get(struct broker_store *store, struct sv type, struct sv id,
                       int64_t deadline_ms, struct broker_records *out)
{
    struct read read = { .type = type, .id = id };
    size_t before = out->count;
    enum err err = run(store, deadline_ms, read_get, &read, out);

    return err == ERR_OK && out->count == before ? ERR_NOT_FOUND : err;
}

static enum err read_window(struct broker_pg_conn *conn, struct read *read,
                            struct broker_records *out)
{
    const struct broker_query *query = read->query;
    PGresult *count = NULL;
    enum err err = ERR_OK;

    broker_pg_add(conn, BROKER_PG_RECORD_COUNT, PG_TEXT(query->type));
    broker_pg_add(conn, BROKER_PG_RECORD_WINDOW, PG_U64(query->limit), PG_I64(BROKER_BATCH_BYTES),
                  PG_TEXT(query->type), PG_U64(MIN(query->offset, (uint64_t)INT64_MAX)));
    err = begin(conn, read);
    if (err == ERR_OK) {
        err = broker_pg_next(conn, &count);
    }
    if (err == ERR_OK) {
        out->total = broker_pg_u64(count, 0, 0);
        PQclear(count);
        err = read_rows(conn, query->limit, out);
    }
    return err;
}

static enum err read_ids(struct broker_pg_conn *conn, struct read *read, struct broker_records *out)
{
    const struct broker_query *query = read->query;
    size_t i = 0;
    enum err err = ERR_OK;

    out->total = 0;
    for (i = 0; i < query->id_count; i++) {
        broker_pg_add(conn, BROKER_PG_RECORD_GET, PG_TEXT(query->type), PG_TEXT(query->ids[i]));
    }
    err = begin(conn, read);
    for (i = 0; i < query->id_count && err == ERR_OK; i++) {
        struct broker_record record;
        PGresult *result = NULL;

        err = broker_pg_next(conn, &result);
        if (err == ERR_OK && PQntuples(result) == 1) {
            broker_pg_record(result, 0, &record);
            broker_records_match(out, &record, query->offset, query->limit);
        }
        PQclear(result);
    }
    return err;
}

enum err broker_pg_query(struct broker_store *store, const struct broker_query *query,
                         int64_t deadline_ms, struct broker_records *out)
{
    struct read read = { .query = query };

    return run(store, deadline_ms, query->ids != NULL ? read_ids : read_window, &read, out);
}

static enum err read_page(struct broker_pg_conn *conn, struct read *read,
                          struct broker_records *out)
{
    enum err err = ERR_OK;

    if (read->whole) {
        broker_pg_add(conn, BROKER_PG_RECORD_PAGE, PG_I64(PAGE_RECORDS + 1),
                      PG_I64(BROKER_BATCH_BYTES), PG_TEXT(read->type), PG_TEXT(read->id));
    } else {
        broker_pg_add(conn, BROKER_PG_RECORD_PAGE_TYPE, PG_I64(PAGE_RECORDS + 1),
                      PG_I64(BROKER_BATCH_BYTES), PG_TEXT(read->type), PG_TEXT(read->id));
    }
    err = begin(conn, read);
    return err == ERR_OK ? read_rows(conn, PAGE_RECORDS, out) : err;
}

enum err broker_pg_page(struct broker_store *store, struct sv type,
                        const struct broker_record *after, int64_t deadline_ms,
                        struct broker_records *out)
{
    struct read read = { .whole = type.n == 0,
                         .type = type.n == 0 ? after->type : type,
                         .id = after->id };

    return run(store, deadline_ms, read_page, &read, out);
}

static enum err read_changes(struct broker_pg_conn *conn, struct read *read,
                             struct broker_records *out)
{
    enum err err = ERR_OK;

    if (read->type.n == 0) {
        broker_pg_add(conn, BROKER_PG_CHANGES, PG_I64(PAGE_RECORDS + 1), PG_I64(BROKER_BATCH_BYTES),
                      PG_U64(read->after));
    } else {
        broker_pg_add(conn, BROKER_PG_CHANGES_TYPE, PG_I64(PAGE_RECORDS + 1),
                      PG_I64(BROKER_BATCH_BYTES), PG_U64(read->after), PG_TEXT(read->type));
    }
    err = begin(conn, read);
    if (err == ERR_OK &&
        (read->server_version != read->state.server_version ||
         read->after < read->state.log_floor || read->after > read->state.latest_version)) {
        return ERR_ABORTED;
    }
    return err == ERR_OK ? read_rows(conn, PAGE_RECORDS, out) : err;
}

enum err broker_pg_changes(struct broker_store *store, uint64_t server_version, uint64_t after,
                           struct sv type, int64_t deadline_ms, struct broker_records *out)
{
    struct read read = { .type = type, .after = after, .server_version = server_version };
    enum err err = run(store, deadline_ms, read_changes, &read, out);

    out->position = after;
    if (err == ERR_OK && out->more && out->count > 0) {
        out->position = out->items[out->count - 1].version;
    } else if (err == ERR_OK) {
        out->position = read.state.latest_version;
    }
    out->more = out->position < out->latest_version;
    return err;
}

/* A list of records of which only type and data count. */
static enum err read_names(struct broker_pg_conn *conn, struct read *read, bool with_data,
                           struct broker_records *out)
{
    PGresult *result = NULL;
    int row = 0;
    enum err err = begin(conn, read);

    if (err == ERR_OK) {
        err = broker_pg_next(conn, &result);
    }
    for (row = 0; err == ERR_OK && row < PQntuples(result); row++) {
        struct broker_record record = { .type = broker_pg_sv(result, row, 0) };

        if (with_data) {
            record.data = broker_pg_sv(result, row, 1);
        }
        broker_records_add(out, &record);
    }
    PQclear(result);
    return err;
}

static enum err read_types(struct broker_pg_conn *conn, struct read *read,
                           struct broker_records *out)
{
    broker_pg_add(conn, BROKER_PG_TYPES);
    return read_names(conn, read, false, out);
}

enum err broker_pg_types(struct broker_store *store, int64_t deadline_ms,
                         struct broker_records *out)
{
    struct read read = { .after = 0 };

    return run(store, deadline_ms, read_types, &read, out);
}

static enum err read_options(struct broker_pg_conn *conn, struct read *read,
                             struct broker_records *out)
{
    if (read->type.n > 0) {
        broker_pg_add(conn, BROKER_PG_OPTIONS_GET, PG_TEXT(read->type));
    } else {
        broker_pg_add(conn, BROKER_PG_OPTIONS_ALL);
    }
    return read_names(conn, read, true, out);
}

enum err broker_pg_options(struct broker_store *store, struct sv type, int64_t deadline_ms,
                           struct broker_records *out)
{
    struct read read = { .type = type };

    return run(store, deadline_ms, read_options, &read, out);
}

static enum err read_info(struct broker_pg_conn *conn, struct read *read,
                          struct broker_records *out)
{
    (void)out;
    return begin(conn, read);
}

enum err broker_pg_info(struct broker_store *store, int64_t deadline_ms,
                        struct broker_info *info_out)
{
    CLEANUP(broker_records_deinit) struct broker_records none = { .items = NULL };
    struct read read = { .after = 0 };
    enum err err = ERR_OK;

    broker_records_init(&none);
    err = run(store, deadline_ms, read_info, &read, &none);
    if (err == ERR_OK) {
        *info_out = (struct broker_info){
            .server_version = read.state.server_version,
            .earliest_version = MIN(read.state.log_floor + 1, read.state.latest_version),
            .latest_version = read.state.latest_version,
        };
    }
    return err;
}

/* The first row is the one that has come least far. */
static void get_peers(const PGresult *result, struct broker_peers *peers_out)
{
    *peers_out =
        (struct broker_peers){ .count = (size_t)PQntuples(result), .confirmed = UINT64_MAX };
    if (peers_out->count > 0) {
        uint64_t least = broker_pg_u64(result, 0, 1);

        peers_out->confirmed = least == INT64_MAX ? UINT64_MAX : least;
        (void)snprintf(peers_out->last, sizeof(peers_out->last), "%.*s",
                       SV_ARG(broker_pg_sv(result, 0, 0)));
    }
}

static enum err read_peers(struct broker_pg_conn *conn, struct read *read,
                           struct broker_records *out)
{
    PGresult *result = NULL;
    enum err err = ERR_OK;

    (void)out;
    broker_pg_add(conn, BROKER_PG_PEERS, PG_TEXT(read->id),
                  PG_I64(BROKER_PEER_GONE_MS * INT64_C(1000)));
    err = begin(conn, read);
    if (err == ERR_OK) {
        err = broker_pg_next(conn, &result);
    }
    if (err == ERR_OK) {
        get_peers(result, read->peers);
        PQclear(result);
    }
    return err;
}

enum err broker_pg_peers(struct broker_store *store, int64_t deadline_ms,
                         struct broker_peers *peers_out)
{
    CLEANUP(broker_records_deinit) struct broker_records none = { .items = NULL };
    struct read read = { .id = sv_from(store->id), .peers = peers_out };

    broker_records_init(&none);
    return run(store, deadline_ms, read_peers, &read, &none);
}
