/* How the tables come to be. Many databrokers may start at once, and not every server has transactional
 * DDL or advisory locks: the store's row is made first, by whoever comes first, and everything else is
 * done by whoever holds its lock. */
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "databroker/store_pg_int.h"
#include "databroker/store_pg_sql.h"

enum { TRIES = 8, MIGRATE_MS = 600000 };

static const char *const first_sql[] = {
    "BEGIN",
    "CREATE SCHEMA IF NOT EXISTS postern",
    "CREATE TABLE IF NOT EXISTS postern.store (one bigint PRIMARY KEY CHECK (one = 1), "
    "schema bigint NOT NULL, server_version bigint NOT NULL, latest_version bigint NOT NULL, "
    "log_floor bigint NOT NULL, options_version bigint NOT NULL, history text NOT NULL, "
    "probe bigint NOT NULL)",
};

/* Runs what was added. */
static enum err run(struct broker_pg_conn *conn)
{
    broker_pg_send(conn);
    return broker_pg_finish(conn);
}

static enum err make_store(struct broker_pg_conn *conn)
{
    CLEANUP(buf_deinit) struct buf row = { 0 };
    size_t i = 0;
    enum err err = ERR_OK;

    for (i = 0; i < ARRAY_LEN(first_sql); i++) {
        broker_pg_add_text(conn, first_sql[i]);
    }
    buf_init(&row, 256);
    buf_printf(&row,
               "INSERT INTO postern.store (one, schema, server_version, latest_version, log_floor, "
               "options_version, history, probe) VALUES (1, 0, %lld, 0, 0, 0, '', 0) "
               "ON CONFLICT (one) DO NOTHING",
               (long long)broker_pg_new_server_version(0));
    broker_pg_add_text(conn, buf_cstr(&row));
    broker_pg_add_text(conn, "COMMIT");
    err = run(conn);
    broker_pg_rollback(conn);
    return err;
}

/* *schema_out: -1 where there is no store yet. Opens a transaction that holds its lock. */
static enum err lock_store(struct broker_pg_conn *conn, int64_t *schema_out)
{
    PGresult *result = NULL;
    enum err err = ERR_OK;

    *schema_out = -1;
    err = broker_pg_try(conn,
                        "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
                        "ON n.oid = c.relnamespace WHERE n.nspname = 'postern' "
                        "AND c.relname = 'store'",
                        &result);
    if (err != ERR_OK || result == NULL || broker_pg_i64(result, 0, 0) == 0) {
        PQclear(result);
        return err;
    }
    PQclear(result);
    broker_pg_add_text(conn, "BEGIN");
    broker_pg_add_text(conn, "SELECT schema FROM postern.store WHERE one = 1 FOR UPDATE");
    broker_pg_send(conn);
    err = broker_pg_skip(conn);
    if (err == ERR_OK) {
        err = broker_pg_next(conn, &result);
    }
    if (err == ERR_OK && PQntuples(result) == 1) {
        *schema_out = broker_pg_i64(result, 0, 0);
    }
    PQclear(err == ERR_OK ? result : NULL);
    return broker_pg_finish(conn);
}

static enum err migrate_from(struct broker_pg_conn *conn, int64_t schema)
{
    CLEANUP(buf_deinit) struct buf set = { 0 };
    size_t s = 0;
    size_t i = 0;
    enum err err = ERR_OK;

    conn->deadline_ms = clock_mono_ms() + MIGRATE_MS;
    broker_pg_add_text(conn, "SET LOCAL statement_timeout = 600000");
    for (s = (size_t)schema; s < broker_pg_step_count; s++) {
        for (i = 0; i < broker_pg_steps[s].count; i++) {
            broker_pg_add_text(conn, broker_pg_steps[s].texts[i]);
        }
    }
    buf_init(&set, 128);
    buf_printf(&set, "UPDATE postern.store SET schema = %zu WHERE one = 1", broker_pg_step_count);
    broker_pg_add_text(conn, buf_cstr(&set));
    broker_pg_add_text(conn, "COMMIT");
    err = run(conn);
    if (err == ERR_OK) {
        log_info("store.migrated", KV_I64("from", schema), KV_U64("to", broker_pg_step_count));
    }
    return err;
}

/* One try. ERR_AGAIN: another databroker may be at it, too. */
static enum err bring_up(struct broker_pg_conn *conn, struct diag *d)
{
    int64_t schema = 0;
    enum err err = lock_store(conn, &schema);

    if (err == ERR_OK && schema > (int64_t)broker_pg_step_count) {
        broker_pg_rollback(conn);
        diag_set(d,
                 "the database has schema %lld, this databroker knows %zu: start the newer version",
                 (long long)schema, broker_pg_step_count);
        return ERR_UNSUPPORTED;
    }
    if (err == ERR_OK && schema >= 0 && schema < (int64_t)broker_pg_step_count) {
        err = migrate_from(conn, schema);
    }
    broker_pg_rollback(conn);
    if (err == ERR_OK && schema < 0) {
        err = make_store(conn);
        return err == ERR_OK ? ERR_AGAIN : err;
    }
    return err;
}

enum err broker_pg_migrate(struct broker_pg_conn *conn, struct diag *d)
{
    int tries = 0;
    enum err err = ERR_AGAIN;

    for (tries = 0; tries < TRIES && err != ERR_OK; tries++) {
        conn->deadline_ms = clock_mono_ms() + BROKER_GROUP_MS;
        err = bring_up(conn, d);
        if (err == ERR_UNSUPPORTED || conn->lost) {
            break;
        }
        if (err != ERR_OK && tries > 0) {
            (void)usleep((useconds_t)(20000 + rand_below(100000)));
        }
    }
    if (err != ERR_OK) {
        diag_set(d, "the tables of the schema postern cannot be made: %s", conn->why);
    }
    return err;
}
