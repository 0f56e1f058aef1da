#include "common/clock.h"
#include "common/log.h"
#include "databroker/store_pg_int.h"

/* The cluster's identifier and the timeline that it writes now; a server without them has one past. */
static const char past_sql[] =
    "SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) "
    "FROM pg_control_system()";

static enum err adopt(struct broker_pg_txn *txn, struct sv past, bool known)
{
    if (known) {
        txn->state.server_version = broker_pg_new_server_version(txn->before.server_version);
        log_warn("store.history-changed", KV_SV("now", past),
                 KV_STR("advice", "another server, or a restored one: followers begin anew"));
    }
    broker_pg_add(txn->conn, BROKER_PG_HISTORY_PUT, PG_TEXT(past));
    return broker_pg_txn_commit(txn);
}

enum err broker_pg_check_history(struct broker_store *store)
{
    struct broker_pg_txn txn = { .store = store };
    PGresult *past = NULL;
    struct sv now = { 0 };
    enum err err = broker_pg_try(store->writer, past_sql, &past);

    if (err == ERR_OK && past != NULL && PQntuples(past) == 1) {
        now = broker_pg_sv(past, 0, 0);
    }
    if (err == ERR_OK) {
        err = broker_pg_txn_begin(store, &txn);
    }
    if (err == ERR_OK && store->steady.hold_ms == 0) {
        broker_steady_init(&store->steady, txn.now_us, txn.probe_us, store->opts.hold_ms);
    }
    if (err == ERR_OK && now.n > 0 && !sv_eq(now, sv_from(txn.history))) {
        err = adopt(&txn, now, txn.history[0] != '\0');
    }
    PQclear(past);
    broker_pg_rollback(store->writer);
    return err;
}
