/* From the write-ahead log to the file, and what the writer does when the disk has failed.
 *
 * After a sync that failed the kernel holds for clean what it may have lost: the next sync succeeds and
 * proves nothing. SQLite goes on regardless. Where a reader was in the way of a checkpoint, its first part
 * counts as done without a sync of its own and is never written again; and a commit that was refused is
 * still read from the log, by whoever opens it next, whether or not the disk has it. So after any I/O error,
 * before anything more is acknowledged:
 *  - all connections are closed and one opens the store alone: SQLite then reads its log from the start;
 *  - the log is written over itself and synced: now the disk has what we read;
 *  - the whole log is written to the file, with its sync, and begins anew.
 * A start does the same, since the process before may have ended so. */
#include "common/clock.h"
#include "databroker/store_sqlite_int.h"

/* 16 MB of log: a page of an index goes to the file once for many writes. */
enum { LOG_PAGES = 4000, AGAIN_MS = 1000 };

/* Alone with the file, SQLite keeps no memory with anybody and so reads the log from its start. */
static enum err settle_alone(const struct broker_store *store, struct diag *d)
{
    CLEANUP(broker_conn_free) struct broker_conn *conn = NULL;
    enum err err = broker_conn_open(store->name, &conn, d);

    if (err == ERR_OK) {
        err = broker_conn_alone(conn);
    }
    if (err == ERR_OK) {
        err = broker_file_renew_log(store);
    }
    if (err == ERR_OK) {
        err = broker_conn_checkpoint(conn, true);
    }
    if (err == ERR_UNAVAILABLE) {
        diag_set(d,
                 "another process has %s open, a backup perhaps: nothing is written until it ends",
                 store->name);
    } else if (err != ERR_OK) {
        diag_set(d, "the log of %s cannot be written to it", store->name);
    }
    return err;
}

static enum err open_again(struct broker_store *store, struct diag *d)
{
    const struct broker_state before = store->state;
    enum err err = broker_store_connect(store, d);

    if (err == ERR_OK) {
        err = broker_conn_state(store->writer, &store->state);
    }
    if (err == ERR_OK && (store->state.server_version != before.server_version ||
                          store->state.latest_version < before.latest_version)) {
        diag_set(d, "%s is not the store that it was", store->name);
        err = ERR_IO;
    }
    if (err == ERR_OK) {
        err = broker_readers_open(store, d);
    }
    if (err != ERR_OK) {
        broker_readers_fail(store);
        store->state = before;
        return err;
    }
    broker_file_remember(store);
    if (store->state.latest_version != before.latest_version && store->queue.on_commit != NULL) {
        store->queue.on_commit(store->queue.arg); /* a write that was refused is there after all */
    }
    return ERR_OK;
}

/* Closes everything and opens it again, for reading also where the log cannot be written. */
static enum err settle(struct broker_store *store)
{
    struct diag d = { .text = "" };
    enum err err = broker_readers_close(store, clock_mono_ms() + BROKER_GROUP_MS);
    enum err opened = ERR_OK;

    if (err != ERR_OK) {
        return err;
    }
    if (store->writer != NULL) {
        broker_conn_distrust(store->writer); /* or closing would count the log as written */
        broker_conn_free(&store->writer);
    }
    err = settle_alone(store, &d);
    opened = open_again(store, &d);
    err = err != ERR_OK ? err : opened;
    if (err == ERR_OK) {
        log_info("store.settled", KV_U64("latest_version", store->state.latest_version));
    } else if (log_limit_pass(&store->noise, 1)) {
        log_error("store.unsettled", KV_ERR(err), KV_STR("cause", d.text));
    }
    return err;
}

void broker_store_settle_first(struct broker_store *store)
{
    struct diag d = { .text = "" };

    store->settle.settled = settle_alone(store, &d) == ERR_OK;
}

enum err broker_store_settle(struct broker_store *store)
{
    struct broker_settle *s = &store->settle;
    enum err err = ERR_OK;

    if (store->opts.target == NULL) {
        return ERR_OK;
    }
    err = broker_file_stays(store);
    if (err != ERR_OK) {
        return err;
    }
    if (s->settled && !store->writer->io_failed) {
        return ERR_OK;
    }
    if (s->settled) {
        *s = (struct broker_settle){ .settled = false };
    }
    if (clock_mono_ms() < s->not_before_ms) {
        return s->err;
    }
    s->err = settle(store);
    s->settled = s->err == ERR_OK;
    s->checkpoint_err = s->err;
    if (!s->settled) {
        s->not_before_ms = clock_mono_ms() + AGAIN_MS;
    }
    return s->err;
}

void broker_store_checkpoint(struct broker_store *store, bool now)
{
    struct broker_settle *s = &store->settle;
    bool due = now || s->checkpoint_err != ERR_OK || store->writer->log_pages >= LOG_PAGES;

    if (!due || clock_mono_ms() < s->checkpoint_at_ms) {
        return;
    }
    s->checkpoint_err = broker_conn_checkpoint(store->writer, false);
    if (s->checkpoint_err == ERR_UNAVAILABLE) {
        s->checkpoint_err = ERR_OK; /* another process does it */
    }
    if (s->checkpoint_err != ERR_OK || now) {
        s->checkpoint_at_ms = clock_mono_ms() + AGAIN_MS;
    }
}
