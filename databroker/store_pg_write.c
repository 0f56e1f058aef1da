/* What the writer's thread does: applies many writes in one transaction, in two round trips: one that
 * locks and reads, one that writes and commits. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/map.h"
#include "databroker/store_pg_int.h"

enum {
    TRIES = 20,        /* of a transaction that loses against others */
    ROOM_BYTES = 8192, /* a page of the server's */
    SETTLE_MS =
        12000 /* for finding out what became of one: longer than the server keeps its lock */
};

uint64_t broker_pg_new_server_version(uint64_t old)
{
    uint64_t fresh = 0;

    do {
        fresh = rand_u64();
    } while (fresh == 0 || fresh == old);
    return fresh;
}

/* ---- the transaction ------------------------------------------------------------------------- */

static void add_begin(struct broker_pg_conn *conn)
{
    conn->deadline_ms = clock_mono_ms() + BROKER_GROUP_MS;
    broker_pg_add(conn, BROKER_PG_BEGIN_WRITE);
    broker_pg_add(conn, BROKER_PG_STATE_LOCK);
    broker_pg_add(conn, BROKER_PG_CLOCK); /* behind the lock: it may have been waited for */
}

static void get_state(const PGresult *result, struct broker_pg_state *state_out)
{
    *state_out = (struct broker_pg_state){
        .server_version = broker_pg_u64(result, 0, 0),
        .latest_version = broker_pg_u64(result, 0, 1),
        .log_floor = broker_pg_u64(result, 0, 2),
        .options_version = broker_pg_u64(result, 0, 3),
        .wanted_version = broker_pg_u64(result, 0, 6),
    };
}

enum err broker_pg_read_state(struct broker_pg_conn *conn, struct broker_pg_state *state_out)
{
    PGresult *result = NULL;
    enum err err = broker_pg_next(conn, &result);

    if (err == ERR_OK && PQntuples(result) != 1) {
        err = ERR_IO;
    }
    if (err == ERR_OK) {
        get_state(result, state_out);
    }
    PQclear(result);
    return err;
}

static enum err read_begin(struct broker_pg_txn *txn)
{
    PGresult *result = NULL;
    enum err err = broker_pg_skip(txn->conn);

    if (err == ERR_OK) {
        err = broker_pg_next(txn->conn, &result);
    }
    if (err == ERR_OK && PQntuples(result) != 1) {
        err = ERR_IO;
    }
    if (err == ERR_OK) {
        get_state(result, &txn->state);
        txn->probe_us = broker_pg_i64(result, 0, 4);
        (void)snprintf(txn->history, sizeof(txn->history), "%.*s",
                       SV_ARG(broker_pg_sv(result, 0, 5)));
    }
    PQclear(result);
    txn->before = txn->state;
    if (err == ERR_OK) {
        err = broker_pg_next(txn->conn, &result);
    }
    if (err == ERR_OK) {
        txn->now_us = broker_pg_i64(result, 0, 0) + clock_test_shifted_us();
        PQclear(result);
    }
    return err;
}

enum err broker_pg_txn_begin(struct broker_store *store, struct broker_pg_txn *txn)
{
    enum err err = ERR_OK;

    *txn = (struct broker_pg_txn){ .store = store, .conn = store->writer };
    add_begin(txn->conn);
    broker_pg_send(txn->conn);
    err = read_begin(txn);
    return err == ERR_OK ? broker_pg_finish(txn->conn) : err;
}

static bool is_news(const struct broker_pg_txn *txn)
{
    return txn->state.latest_version != txn->before.latest_version ||
           txn->state.server_version != txn->before.server_version ||
           txn->state.options_version != txn->before.options_version ||
           txn->state.wanted_version != txn->before.wanted_version;
}

static void add_end(struct broker_pg_txn *txn)
{
    const struct broker_pg_state *s = &txn->state;
    struct broker_pg_conn *conn = txn->conn;

    if (memcmp(&txn->before, s, sizeof(*s)) != 0) {
        broker_pg_add(conn, BROKER_PG_STATE_PUT, PG_U64(s->server_version),
                      PG_U64(s->latest_version), PG_U64(s->log_floor), PG_U64(s->options_version),
                      PG_U64(s->wanted_version));
    }
    if (is_news(txn) && txn->store->notify) {
        broker_pg_add(conn, BROKER_PG_NOTIFY);
    }
    broker_pg_add(conn, BROKER_PG_COMMIT);
}

enum err broker_pg_txn_commit(struct broker_pg_txn *txn)
{
    struct broker_pg_conn *conn = txn->conn;
    enum err err = ERR_OK;

    conn->deadline_ms = clock_mono_ms() + BROKER_GROUP_MS;
    conn->committed = false;
    conn->doubtful = false;
    add_end(txn);
    broker_pg_send(conn);
    err = broker_pg_finish(conn);
    if (conn->lost || (conn->committed && conn->doubtful)) {
        conn->lost = true; /* never again */
        return ERR_ABORTED;
    }
    return err == ERR_OK && !conn->committed ? ERR_IO : err;
}

/* ---- one write ------------------------------------------------------------------------------- */

void broker_pg_put_record(struct broker_pg_txn *txn, struct broker_record *r)
{
    r->version = txn->state.latest_version + 1;
    r->modified_us = txn->now_us;
    if (r->deleted_us != 0) {
        r->deleted_us = r->modified_us;
        r->data = SV("");
        broker_pg_add(txn->conn, BROKER_PG_RECORD_DELETE, PG_TEXT(r->type), PG_TEXT(r->id));
        broker_pg_add(txn->conn, BROKER_PG_CHANGE_DELETE, PG_U64(r->version), PG_TEXT(r->type),
                      PG_TEXT(r->id), PG_I64(r->modified_us), PG_TEXT(r->data_type));
    } else {
        broker_pg_add(txn->conn, BROKER_PG_RECORD_PUT, PG_U64(r->version), PG_TEXT(r->type),
                      PG_TEXT(r->id), PG_I64(r->modified_us), PG_TEXT(r->data_type),
                      PG_BYTES(r->data), PG_I64(r->ends_us));
    }
    txn->state.latest_version = r->version;
    txn->write = true;
}

static bool is_lease(const struct broker_write *w)
{
    return w->kind == BROKER_WRITE_LEASE_ACQUIRE || w->kind == BROKER_WRITE_LEASE_RENEW ||
           w->kind == BROKER_WRITE_LEASE_RELEASE;
}

/* What must be known to decide about w, in the order in which its apply reads it. */
static void add_looks(struct broker_pg_conn *conn, const struct broker_write *w)
{
    size_t i = 0;

    if (is_lease(w)) {
        broker_pg_add(conn, BROKER_PG_LEASE_GET, PG_TEXT(w->lease_name));
    }
    for (i = 0; w->kind == BROKER_WRITE_PUT && i < w->records->count; i++) {
        const struct broker_record *r = &w->records->items[i];

        if (r->if_version != 0) {
            broker_pg_add(conn, BROKER_PG_RECORD_VERSION, PG_TEXT(r->type), PG_TEXT(r->id));
        }
    }
}

/* Whether an earlier record of the same Put is the same one: then no version can fit. */
static bool is_written_before(const struct broker_records *list, size_t at)
{
    const struct broker_record *r = &list->items[at];
    size_t i = 0;

    for (i = 0; i < at; i++) {
        if (sv_eq(list->items[i].id, r->id) && sv_eq(list->items[i].type, r->type)) {
            return true;
        }
    }
    return false;
}

/* *fits_out: all if_versions do. Reads all answers, whatever they are. */
static enum err look_versions(struct broker_pg_txn *txn, const struct broker_write *w,
                              bool *fits_out)
{
    size_t i = 0;
    enum err err = ERR_OK;

    *fits_out = true;
    for (i = 0; i < w->records->count && err == ERR_OK; i++) {
        const struct broker_record *r = &w->records->items[i];
        PGresult *result = NULL;

        if (r->if_version == 0) {
            continue;
        }
        err = broker_pg_next(txn->conn, &result);
        if (err == ERR_OK) {
            *fits_out = *fits_out && PQntuples(result) == 1 &&
                        broker_pg_u64(result, 0, 0) == r->if_version &&
                        !is_written_before(w->records, i);
        }
        PQclear(result);
    }
    return err;
}

static enum err apply_put(struct broker_pg_txn *txn, struct broker_write *w)
{
    size_t i = 0;
    bool fits = false;
    enum err err = look_versions(txn, w, &fits);

    if (err != ERR_OK) {
        return err;
    }
    if (!fits) {
        w->err = ERR_ABORTED;
        return ERR_OK;
    }
    for (i = 0; i < w->records->count; i++) {
        broker_pg_put_record(txn, &w->records->items[i]);
        if (w->records->items[i].deleted_us != 0) { /* its answer waits: confirm.c */
            txn->state.wanted_version = txn->state.latest_version;
        }
    }
    return ERR_OK;
}

static void apply_replace(struct broker_pg_txn *txn, const struct broker_write *w)
{
    size_t i = 0;

    for (i = 0; i < w->records->count; i++) {
        const struct broker_record *r = &w->records->items[i];

        broker_pg_add(txn->conn, BROKER_PG_RECORD_REPLACE, PG_BYTES(r->data), PG_U64(r->version),
                      PG_TEXT(r->type), PG_TEXT(r->id));
        broker_pg_add(txn->conn, BROKER_PG_CHANGE_REPLACE, PG_BYTES(r->data), PG_U64(r->version));
    }
    txn->write = true;
}

static enum err apply_lease(struct broker_pg_txn *txn, struct broker_write *w)
{
    PGresult *result = NULL;
    bool held = false;
    bool mine = false;
    enum err err = broker_pg_next(txn->conn, &result);

    if (err != ERR_OK) {
        return err;
    }
    held = PQntuples(result) == 1 && broker_pg_i64(result, 0, 1) > txn->now_us;
    mine = held && sv_eq(broker_pg_sv(result, 0, 0), w->lease_id);
    PQclear(result);
    if (w->kind == BROKER_WRITE_LEASE_RELEASE) {
        broker_pg_add(txn->conn, BROKER_PG_LEASE_DELETE, PG_TEXT(w->lease_name),
                      PG_TEXT(w->lease_id));
        txn->write = true;
        return ERR_OK;
    }
    if (w->kind == BROKER_WRITE_LEASE_RENEW ? !mine : held) {
        w->err = ERR_EXISTS;
        return ERR_OK;
    }
    if (w->kind == BROKER_WRITE_LEASE_ACQUIRE) {
        rand_uuid(w->lease_id_out);
    }
    broker_pg_add(
        txn->conn, BROKER_PG_LEASE_PUT, PG_TEXT(w->lease_name),
        PG_TEXT(w->kind == BROKER_WRITE_LEASE_ACQUIRE ? sv_from(w->lease_id_out) : w->lease_id),
        PG_I64(txn->now_us + w->lease_ms * 1000));
    txn->write = true;
    return ERR_OK;
}

/* Leases stay: they guard things that must happen once, whatever becomes of the records. */
static void apply_clear(struct broker_pg_txn *txn, struct broker_write *w)
{
    broker_pg_add(txn->conn, BROKER_PG_CLEAR_RECORDS);
    broker_pg_add(txn->conn, BROKER_PG_CLEAR_CHANGES);
    broker_pg_add(txn->conn, BROKER_PG_CLEAR_OPTIONS);
    w->old_server_version_out = txn->state.server_version;
    txn->state.server_version = broker_pg_new_server_version(txn->state.server_version);
    txn->state.log_floor = txn->state.latest_version;
    txn->state.options_version++;
    txn->write = true;
}

/* A server whose disk is full goes on changing rows in place, so that the probe alone would tell nothing:
 * after a write for which there was no room it asks for a page, too, which nobody ever sees. */
static void apply_probe(struct broker_pg_txn *txn)
{
    broker_pg_add(txn->conn, BROKER_PG_PROBE_PUT, PG_I64(txn->now_us));
    txn->write = true;
    if (txn->store->full) {
        char page[ROOM_BYTES]; /* nothing that could be compressed */

        rand_bytes(page, sizeof(page));
        broker_pg_add(txn->conn, BROKER_PG_ROOM_PUT, PG_BYTES(sv_of(page, sizeof(page))));
        broker_pg_add(txn->conn, BROKER_PG_RECORD_DELETE, PG_TEXT(SV("")), PG_TEXT(SV("")));
        txn->roomy = true;
    }
}

/* Decides about w, sets its err and adds what it writes. An error: the transaction is lost. */
static enum err apply(struct broker_pg_txn *txn, struct broker_write *w)
{
    w->err = ERR_OK;
    switch (w->kind) {
    case BROKER_WRITE_PUT:
        return apply_put(txn, w);
    case BROKER_WRITE_REPLACE:
        apply_replace(txn, w);
        return ERR_OK;
    case BROKER_WRITE_OPTIONS:
        broker_pg_add(txn->conn, BROKER_PG_OPTIONS_PUT, PG_TEXT(w->options.type),
                      PG_BYTES(w->options.bytes), PG_U64(w->options.capacity),
                      PG_I64(w->options.ttl_ms));
        txn->state.options_version++;
        txn->write = true;
        return ERR_OK;
    case BROKER_WRITE_CLEAR:
        apply_clear(txn, w);
        return ERR_OK;
    case BROKER_WRITE_LEASE_ACQUIRE:
    case BROKER_WRITE_LEASE_RENEW:
    case BROKER_WRITE_LEASE_RELEASE:
        return apply_lease(txn, w);
    case BROKER_WRITE_CONFIRMED:
        broker_pg_add(txn->conn, BROKER_PG_WRITER_CONFIRMED, PG_TEXT(sv_from(txn->store->id)),
                      PG_U64(MIN(w->confirmed, (uint64_t)INT64_MAX)));
        txn->state.wanted_version = MAX(txn->state.wanted_version, w->wanted);
        txn->write = true;
        return ERR_OK;
    case BROKER_WRITE_PROBE:
        apply_probe(txn);
        return ERR_OK;
    case BROKER_WRITE_SWEEP:
        return broker_pg_sweep(txn, &w->swept_out);
    case BROKER_WRITE_NONE:
        break;
    }
    w->err = ERR_INTERNAL;
    return ERR_OK;
}

/* ---- which writes may share a transaction ---------------------------------------------------- */

/* What a write reads was read before anything of the transaction is written: so no write may read what
 * an earlier one of its group writes. */
static bool is_alone(const struct broker_write *w)
{
    return w->kind == BROKER_WRITE_CLEAR || w->kind == BROKER_WRITE_SWEEP;
}

static void record_key(const struct broker_record *r, struct buf *key)
{
    buf_reset(key);
    buf_add_sv(key, r->type);
    buf_add_char(key, '\0');
    buf_add_sv(key, r->id);
}

static void lease_key(const struct broker_write *w, struct buf *key)
{
    buf_reset(key);
    buf_add_char(key, '\0');
    buf_add_sv(key, w->lease_name);
}

static bool reads_any(const struct broker_write *w)
{
    size_t i = 0;

    for (i = 0; w->kind == BROKER_WRITE_PUT && i < w->records->count; i++) {
        if (w->records->items[i].if_version != 0) {
            return true;
        }
    }
    return is_lease(w);
}

/* Whether w reads a key of written. */
static bool reads_of(const struct broker_write *w, const struct map *written, struct buf *key)
{
    size_t i = 0;

    if (is_lease(w)) {
        lease_key(w, key);
        return map_get(written, buf_sv(key)) != NULL;
    }
    for (i = 0; w->kind == BROKER_WRITE_PUT && i < w->records->count; i++) {
        record_key(&w->records->items[i], key);
        if (w->records->items[i].if_version != 0 && map_get(written, buf_sv(key)) != NULL) {
            return true;
        }
    }
    return false;
}

static void note_written(struct broker_write *w, struct map *written, struct buf *key)
{
    size_t i = 0;

    if (is_lease(w)) {
        lease_key(w, key);
        (void)map_set(written, buf_sv(key), w);
    }
    for (i = 0; w->kind == BROKER_WRITE_PUT && i < w->records->count; i++) {
        record_key(&w->records->items[i], key);
        (void)map_set(written, buf_sv(key), w);
    }
}

/* How many of the first writes may share a transaction; at least one. */
static size_t independent(struct broker_write *const *group, size_t n)
{
    CLEANUP(map_free) struct map *written = NULL;
    CLEANUP(buf_deinit) struct buf key = { 0 };
    bool reads = false;
    size_t i = 0;

    for (i = 0; i < n && !is_alone(group[i]); i++) {
        reads = reads || (i > 0 && reads_any(group[i]));
    }
    n = MAX(i, (size_t)1);
    if (!reads) {
        return n;
    }
    written = map_new();
    buf_init(&key, 2 * BROKER_NAME_MAX + 1);
    for (i = 0; i < n; i++) {
        if (i > 0 && reads_of(group[i], written, &key)) {
            return i;
        }
        note_written(group[i], written, &key);
    }
    return n;
}

/* ---- a group --------------------------------------------------------------------------------- */

/* The writer's connection, where need be a new one. */
static enum err ready(struct broker_store *store)
{
    enum err err = ERR_OK;

    if (store->writer != NULL && !store->writer->lost) {
        return ERR_OK;
    }
    broker_pg_free(&store->writer);
    err = broker_pg_connect(store, INT64_MAX, false, &store->writer);
    if (err != ERR_OK) {
        return err;
    }
    __atomic_store_n(&store->writer_pid, PQbackendPID(store->writer->pg), __ATOMIC_SEQ_CST);
    err = broker_pg_check_history(store);
    if (err != ERR_OK) {
        broker_pg_free(&store->writer);
    }
    return err == ERR_ABORTED || err == ERR_IO ? ERR_UNAVAILABLE : err;
}

/* ERR_ABORTED: nobody knows whether it was applied. Any other error: it was not. */
static enum err attempt(struct broker_store *store, struct broker_write *const *group, size_t n)
{
    struct broker_pg_txn txn = { .store = store };
    size_t i = 0;
    enum err err = ready(store);

    if (err != ERR_OK) {
        return err;
    }
    txn.conn = store->writer;
    add_begin(txn.conn);
    for (i = 0; i < n; i++) {
        add_looks(txn.conn, group[i]);
    }
    broker_pg_send(txn.conn);
    err = read_begin(&txn);
    for (i = 0; i < n && err == ERR_OK; i++) {
        err = apply(&txn, group[i]);
    }
    if (err == ERR_OK) {
        err = broker_pg_finish(txn.conn);
    }
    if (err == ERR_OK && txn.write) {
        store->number++;
        broker_pg_add(txn.conn, BROKER_PG_WRITER_PUT, PG_TEXT(sv_from(store->id)),
                      PG_U64(store->number), PG_I64(txn.now_us));
        err = broker_pg_txn_commit(&txn);
    }
    if (err == ERR_OK && txn.roomy) {
        store->full = false;
    }
    if (err == ERR_OK && is_news(&txn)) {
        broker_pg_watch_told(store, &txn.state);
    }
    for (i = 0; i < n; i++) {
        group[i]->server_version_out = txn.state.server_version;
    }
    broker_pg_rollback(txn.conn);
    return err;
}

/* Asks what became of the last attempt, which writes its number and nobody else does. */
static enum err ask(struct broker_store *store, bool *committed_out)
{
    struct broker_pg_txn txn = { .store = store };
    PGresult *result = NULL;
    enum err err = ready(store);

    if (err != ERR_OK) {
        return err;
    }
    txn.conn = store->writer;
    add_begin(txn.conn);
    broker_pg_add(txn.conn, BROKER_PG_WRITER_GET, PG_TEXT(sv_from(store->id)));
    broker_pg_send(txn.conn);
    err = read_begin(&txn);
    if (err == ERR_OK) {
        err = broker_pg_next(txn.conn, &result);
    }
    if (err == ERR_OK) {
        *committed_out = PQntuples(result) == 1 && broker_pg_u64(result, 0, 0) == store->number;
        PQclear(result);
        err = broker_pg_finish(txn.conn);
    }
    if (err == ERR_OK) {
        broker_pg_add(txn.conn, BROKER_PG_PROBE_PUT, PG_I64(txn.now_us));
        err = broker_pg_txn_commit(&txn);
    }
    broker_pg_rollback(txn.conn);
    return err;
}

/* After a COMMIT without an answer: ERR_OK and whether it did, or the time is over. */
static enum err settle(struct broker_store *store, bool *committed_out)
{
    int64_t until_ms = clock_mono_ms() + SETTLE_MS;
    enum err err = ERR_UNAVAILABLE;

    while (err != ERR_OK && clock_mono_ms() < until_ms) {
        err = ask(store, committed_out);
        if (err == ERR_UNAVAILABLE && store->writer == NULL) {
            break; /* the server is away for longer */
        }
    }
    return err;
}

/* Sets the err of all: none was applied, and none is tried by itself. */
static enum err refuse(struct broker_write *const *group, size_t n, enum err err)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        group[i]->err = err;
    }
    return ERR_OK;
}

static enum err attempt_and_settle(struct broker_store *store, struct broker_write *const *group,
                                   size_t n, bool *known_out)
{
    bool committed = false;
    enum err err = attempt(store, group, n);

    *known_out = true;
    if (err != ERR_ABORTED) {
        return err;
    }
    err = settle(store, &committed);
    *known_out = err == ERR_OK;
    log_warn("store.commit-unanswered", KV_BOOL("known", *known_out),
             KV_BOOL("committed", committed));
    return err == ERR_OK && !committed ? ERR_AGAIN : err;
}

enum err broker_pg_transact(struct broker_store *store, struct broker_write *const *group,
                            size_t *n)
{
    int64_t until_ms = clock_mono_ms() + BROKER_GROUP_MS;
    bool known = true;
    int tries = 0;
    enum err err = ERR_AGAIN;

    *n = independent(group, *n);
    for (tries = 0; tries < TRIES && clock_mono_ms() < until_ms; tries++) {
        err = attempt_and_settle(store, group, *n, &known);
        if (!known || (err != ERR_AGAIN && (err != ERR_UNAVAILABLE || store->writer == NULL))) {
            break;
        }
        if (tries > 0) {
            (void)usleep((useconds_t)rand_below(20000));
        }
    }
    store->full = store->full || (known && err == ERR_LIMIT);
    if (known && (err == ERR_OK || err == ERR_LIMIT || err == ERR_IO)) {
        return err; /* of one, perhaps: the others may fit by themselves */
    }
    return refuse(group, *n, known && err == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE);
}
