/* The statements. What CockroachDB and YugabyteDB do not know is not used: no advisory locks, no
 * sequences, no triggers, no functions of our own. 't' text, 'b' bytea, 'i' bigint. */
#include "databroker/store_pg_sql.h"

#define COLUMNS "version, type, id, modified_us, data_type, data"

/* The first rows of a table in order, one more than fit a page: what is behind a page's bytes would only
 * be thrown away here. $1: how many rows, $2: how many bytes. */
#define PAGE(columns, table, condition, order, limit)                                          \
    "SELECT version, type, id, modified_us, deleted_us, data_type, data FROM (SELECT *, "      \
    "sum(octet_length(data)) OVER (ORDER BY " order ") - octet_length(data) AS ahead FROM "    \
    "(SELECT " columns " FROM postern." table " WHERE " condition " ORDER BY " order " " limit \
    ") AS page) AS sized WHERE ahead <= $2 ORDER BY " order

#define RECORDS(condition, order, limit)                                                        \
    PAGE("version, type, id, modified_us, 0::bigint AS deleted_us, data_type, data", "records", \
         condition, order, limit)
#define CHANGES(condition)                                                                    \
    PAGE("version, type, id, modified_us, deleted_us, data_type, data", "changes", condition, \
         "version", "LIMIT $1")

const struct broker_pg_statement broker_pg_statements[BROKER_PG_COUNT] = {
    [BROKER_PG_BEGIN_READ] = { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "" },
    [BROKER_PG_BEGIN_WRITE] = { "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "" },
    [BROKER_PG_COMMIT] = { "COMMIT", "" },
    [BROKER_PG_NOTIFY] = { "NOTIFY postern_changes", "" },
    [BROKER_PG_CLOCK] = { "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", "" },
    [BROKER_PG_STATE_GET] = { "SELECT server_version, latest_version, log_floor, "
                              "options_version, probe, history, wanted FROM postern.store "
                              "WHERE one = 1",
                              "" },
    [BROKER_PG_STATE_LOCK] = { "SELECT server_version, latest_version, log_floor, "
                               "options_version, probe, history, wanted FROM postern.store "
                               "WHERE one = 1 FOR UPDATE",
                               "" },
    [BROKER_PG_STATE_PUT] = { "UPDATE postern.store SET server_version = $1, latest_version = $2, "
                              "log_floor = $3, options_version = $4, wanted = $5 WHERE one = 1",
                              "iiiii" },
    [BROKER_PG_PROBE_PUT] = { "UPDATE postern.store SET probe = $1 WHERE one = 1", "i" },
    [BROKER_PG_ROOM_PUT] = { "INSERT INTO postern.records (" COLUMNS ", ends_us) "
                             "VALUES (0, '', '', 0, '', $1, 0)",
                             "b" },
    [BROKER_PG_HISTORY_PUT] = { "UPDATE postern.store SET history = $1 WHERE one = 1", "t" },
    [BROKER_PG_WRITER_GET] = { "SELECT number FROM postern.writers WHERE id = $1", "t" },
    [BROKER_PG_WRITER_PUT] = { "INSERT INTO postern.writers (id, number, seen_us) "
                               "VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE "
                               "SET number = excluded.number, seen_us = excluded.seen_us",
                               "tii" },
    [BROKER_PG_WRITER_CONFIRMED] = { "INSERT INTO postern.writers (id, number, seen_us, confirmed) "
                                     "VALUES ($1, 0, 0, $2) ON CONFLICT (id) DO UPDATE "
                                     "SET confirmed = excluded.confirmed",
                                     "ti" },
    [BROKER_PG_PEERS] = { "SELECT id, confirmed FROM postern.writers WHERE id <> $1 AND seen_us > "
                          "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $2 "
                          "ORDER BY confirmed LIMIT 1000",
                          "ti" },
    [BROKER_PG_WRITERS_PRUNE] = { "DELETE FROM postern.writers WHERE seen_us < $1", "i" },
    [BROKER_PG_RECORD_GET] = { "SELECT version, type, id, modified_us, 0::bigint, data_type, data "
                               "FROM postern.records WHERE type = $1 AND id = $2",
                               "tt" },
    [BROKER_PG_RECORD_VERSION] = { "SELECT version FROM postern.records WHERE type = $1 AND id = $2",
                                   "tt" },
    /* the record and its change in one: half the messages of a Put */
    [BROKER_PG_RECORD_PUT] = { "WITH change AS (INSERT INTO postern.changes (" COLUMNS
                               ", deleted_us) VALUES ($1, $2, $3, $4, $5, $6, 0) RETURNING 1) "
                               "INSERT INTO postern.records (" COLUMNS ", ends_us) "
                               "VALUES ($1, $2, $3, $4, $5, $6, $7) "
                               "ON CONFLICT (type, id) DO UPDATE SET version = excluded.version, "
                               "modified_us = excluded.modified_us, "
                               "data_type = excluded.data_type, data = excluded.data, "
                               "ends_us = excluded.ends_us",
                               "ittitbi" },
    [BROKER_PG_RECORD_DELETE] = { "DELETE FROM postern.records WHERE type = $1 AND id = $2", "tt" },
    [BROKER_PG_RECORD_REPLACE] = { "UPDATE postern.records SET data = $1 WHERE version = $2 "
                                   "AND type = $3 AND id = $4",
                                   "bitt" },
    [BROKER_PG_RECORD_WINDOW] = { RECORDS("type = $3", "id", "LIMIT $1 OFFSET $4"), "iiti" },
    [BROKER_PG_RECORD_COUNT] = { "SELECT count(*) FROM postern.records WHERE type = $1", "t" },
    [BROKER_PG_RECORD_PAGE] = { RECORDS("(type, id) > ($3, $4)", "type, id", "LIMIT $1"), "iitt" },
    [BROKER_PG_RECORD_PAGE_TYPE] = { RECORDS("type = $3 AND id > $4", "id", "LIMIT $1"), "iitt" },
    [BROKER_PG_RECORD_OLDER] = { "SELECT type, id FROM postern.records WHERE type = $1 "
                                 "AND modified_us < $2 ORDER BY modified_us, version LIMIT $3",
                                 "tii" },
    [BROKER_PG_RECORD_ENDED] = { "SELECT type, id FROM postern.records WHERE ends_us > 0 "
                                 "AND ends_us < $1 ORDER BY ends_us LIMIT $2",
                                 "ii" },
    [BROKER_PG_TYPES] = { "SELECT DISTINCT type FROM postern.records ORDER BY type LIMIT 10000",
                          "" },
    [BROKER_PG_CHANGE_DELETE] = { "INSERT INTO postern.changes (" COLUMNS ", deleted_us) "
                                  "VALUES ($1, $2, $3, $4, $5, '', $4)",
                                  "ittit" },
    [BROKER_PG_CHANGE_REPLACE] = { "UPDATE postern.changes SET data = $1 WHERE version = $2 "
                                   "AND deleted_us = 0",
                                   "bi" },
    [BROKER_PG_CHANGES] = { CHANGES("version > $3"), "iii" },
    [BROKER_PG_CHANGES_TYPE] = { CHANGES("version > $3 AND type = $4"), "iiit" },
    [BROKER_PG_CHANGES_OLDEST] = { "SELECT version, modified_us FROM postern.changes "
                                   "ORDER BY version LIMIT $1",
                                   "i" },
    [BROKER_PG_CHANGES_PRUNE] = { "DELETE FROM postern.changes WHERE version <= $1", "i" },
    [BROKER_PG_OPTIONS_PUT] = { "INSERT INTO postern.options (type, bytes, capacity, ttl_ms) "
                                "VALUES ($1, $2, $3, $4) ON CONFLICT (type) DO UPDATE "
                                "SET bytes = excluded.bytes, capacity = excluded.capacity, "
                                "ttl_ms = excluded.ttl_ms",
                                "tbii" },
    [BROKER_PG_OPTIONS_GET] = { "SELECT type, bytes, capacity, ttl_ms FROM postern.options "
                                "WHERE type = $1",
                                "t" },
    [BROKER_PG_OPTIONS_ALL] = { "SELECT type, bytes, capacity, ttl_ms FROM postern.options "
                                "ORDER BY type LIMIT 10000",
                                "" },
    [BROKER_PG_LEASE_GET] = { "SELECT id, expires_us FROM postern.leases WHERE name = $1", "t" },
    [BROKER_PG_LEASE_PUT] = { "INSERT INTO postern.leases (name, id, expires_us) "
                              "VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE "
                              "SET id = excluded.id, expires_us = excluded.expires_us",
                              "tti" },
    [BROKER_PG_LEASE_DELETE] = { "DELETE FROM postern.leases WHERE name = $1 AND id = $2", "tt" },
    [BROKER_PG_LEASE_EXPIRE] = { "DELETE FROM postern.leases WHERE name IN (SELECT name "
                                 "FROM postern.leases WHERE expires_us < $1 "
                                 "ORDER BY expires_us LIMIT $2)",
                                 "ii" },
    [BROKER_PG_CLEAR_RECORDS] = { "DELETE FROM postern.records WHERE type <> '" BROKER_TYPE_KEY "'",
                                  "" },
    [BROKER_PG_CLEAR_CHANGES] = { "DELETE FROM postern.changes", "" },
    [BROKER_PG_CLEAR_OPTIONS] = { "DELETE FROM postern.options", "" },
};

/* Schema n is what the first n of these have made; each runs whole in one transaction, under the lock of
 * the store's row. A step that is out in the world never changes. Databrokers of the version before go
 * on while a new one migrates: a step adds, it takes nothing away that they use. */
static const char *const step_1[] = {
    "CREATE TABLE IF NOT EXISTS postern.records (type text COLLATE \"C\" NOT NULL, "
    "id text COLLATE \"C\" NOT NULL, version bigint NOT NULL, modified_us bigint NOT NULL, "
    "data_type text NOT NULL, data bytea NOT NULL, ends_us bigint NOT NULL, "
    "PRIMARY KEY (type, id))",
    "CREATE INDEX IF NOT EXISTS records_by_age ON postern.records (type, modified_us)",
    "CREATE INDEX IF NOT EXISTS records_by_end ON postern.records (ends_us) WHERE ends_us > 0",
    "CREATE TABLE IF NOT EXISTS postern.changes (version bigint PRIMARY KEY, "
    "type text COLLATE \"C\" NOT NULL, id text COLLATE \"C\" NOT NULL, "
    "modified_us bigint NOT NULL, deleted_us bigint NOT NULL, data_type text NOT NULL, "
    "data bytea NOT NULL)",
    "CREATE TABLE IF NOT EXISTS postern.options (type text COLLATE \"C\" PRIMARY KEY, "
    "bytes bytea NOT NULL, capacity bigint NOT NULL, ttl_ms bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS postern.leases (name text COLLATE \"C\" PRIMARY KEY, "
    "id text NOT NULL, expires_us bigint NOT NULL)",
    "CREATE INDEX IF NOT EXISTS leases_by_end ON postern.leases (expires_us)",
    "CREATE TABLE IF NOT EXISTS postern.writers (id text PRIMARY KEY, number bigint NOT NULL, "
    "seen_us bigint NOT NULL)",
};

/* Who does not know of these columns says nothing of its replicas: nobody waits for them. */
static const char *const step_2[] = {
    "ALTER TABLE postern.store ADD COLUMN IF NOT EXISTS wanted bigint NOT NULL DEFAULT 0",
    "ALTER TABLE postern.writers ADD COLUMN IF NOT EXISTS confirmed bigint NOT NULL "
    "DEFAULT 9223372036854775807",
};

const struct broker_pg_step broker_pg_steps[] = { { step_1, ARRAY_LEN(step_1) },
                                                  { step_2, ARRAY_LEN(step_2) } };
const size_t broker_pg_step_count = ARRAY_LEN(broker_pg_steps);
