/* writes: acknowledged session writes a second, without transport: a store as the databroker opens it,
 * with so many writes under way at once, or a plain INSERT loop with the same durability.
 *   bench-writes sqlite|postgres|insert TARGET SECONDS WRITERS    prints the number a second
 * insert: so many a transaction, which is what SQLite itself can gain from writes that come together. */
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include "common/clock.h"
#include "common/mem.h"
#include "databroker/store.h"

enum { WRITERS_MAX = 1024, BYTES = 600 /* of a session with its claims */ };

struct slot {
    struct broker_write write;
    struct broker_records list;
    bool busy; /* atomic */
    uint64_t done;
    uint64_t failed;
};

static sem_t freed;
static char data[BYTES];

static void on_done(struct broker_write *w)
{
    struct slot *slot = w->arg;

    slot->done += w->err == ERR_OK ? 1 : 0;
    slot->failed += w->err == ERR_OK ? 0 : 1;
    __atomic_store_n(&slot->busy, false, __ATOMIC_SEQ_CST);
    (void)sem_post(&freed);
}

static void put_one(struct broker_store *store, struct slot *slot)
{
    char id[RAND_UUID_SIZE];
    struct broker_record record = { .type = SV("type.googleapis.com/session.Session"),
                                    .data_type = SV("type.googleapis.com/session.Session"),
                                    .data = sv_of(data, sizeof(data)) };

    rand_uuid(id);
    record.id = sv_from(id);
    broker_records_deinit(&slot->list);
    broker_records_init(&slot->list);
    broker_records_add(&slot->list, &record);
    slot->write = (struct broker_write){
        .kind = BROKER_WRITE_PUT, .records = &slot->list, .done = on_done, .arg = slot
    };
    slot->busy = true;
    CHECK(broker_store_sealed.submit(store, &slot->write) == ERR_OK);
}

static double store_rate(const struct broker_store_ops *ops, const char *target, int64_t ms,
                         size_t writers)
{
    static struct slot slots[WRITERS_MAX];
    struct secret *secret = secret_new(SV("0123456789abcdef0123456789abcdef"));
    struct broker_store_opts opts = {
        .target = target, .beneath = ops, .secrets = { secret }, .n_secrets = 1
    };
    struct broker_store *store = NULL;
    struct diag d = { .text = "" };
    int64_t began_ms = 0;
    uint64_t done = 0;
    size_t i = 0;

    if (broker_store_sealed.open(&opts, &store, &d) != ERR_OK) {
        (void)fprintf(stderr, "%s\n", d.text);
        return 0;
    }
    (void)sem_init(&freed, 0, (unsigned)writers);
    began_ms = clock_mono_ms();
    while (clock_mono_ms() < began_ms + ms) {
        (void)sem_wait(&freed);
        while (__atomic_load_n(&slots[i].busy, __ATOMIC_SEQ_CST)) {
            i = (i + 1) % writers;
        }
        put_one(store, &slots[i]);
    }
    ms = clock_mono_ms() - began_ms;
    broker_store_sealed.close(&store);
    for (i = 0; i < writers; i++) {
        CHECK(slots[i].failed == 0);
        done += slots[i].done;
    }
    secret_free(&secret);
    return (double)done * 1000 / (double)ms;
}

static void run(sqlite3 *db, const char *sql)
{
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
}

static void insert(sqlite3_stmt *stmt)
{
    char id[RAND_UUID_SIZE];

    rand_uuid(id);
    (void)sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    (void)sqlite3_bind_blob(stmt, 2, data, sizeof(data), SQLITE_STATIC);
    CHECK(sqlite3_step(stmt) == SQLITE_DONE);
    (void)sqlite3_reset(stmt);
}

static double insert_rate(const char *file, int64_t ms, size_t group)
{
    static const char schema[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
                                 "CREATE TABLE records (id TEXT PRIMARY KEY, data BLOB NOT NULL)";
    int64_t began_ms = 0;
    sqlite3_stmt *stmt = NULL;
    sqlite3 *db = NULL;
    uint64_t done = 0;

    CHECK(sqlite3_open(file, &db) == SQLITE_OK);
    run(db, schema);
    CHECK(sqlite3_prepare_v2(db, "INSERT INTO records VALUES (?1, ?2)", -1, &stmt, NULL) ==
          SQLITE_OK);
    began_ms = clock_mono_ms();
    while (clock_mono_ms() < began_ms + ms) {
        run(db, "BEGIN");
        for (size_t i = 0; i < group; i++) {
            insert(stmt);
        }
        run(db, "COMMIT");
        done += group;
    }
    ms = clock_mono_ms() - began_ms;
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
    return (double)done * 1000 / (double)ms;
}

int main(int argc, char **argv)
{
    uint64_t seconds = 0;
    uint64_t writers = 0;
    double rate = 0;

    if (argc != 5 || sv_u64(sv_from(argv[3]), 3600, &seconds) != ERR_OK ||
        sv_u64(sv_from(argv[4]), WRITERS_MAX, &writers) != ERR_OK || writers == 0) {
        (void)fputs("usage: bench-writes sqlite|postgres|insert TARGET SECONDS WRITERS\n", stderr);
        return 2;
    }
    rand_bytes(data, sizeof(data));
    if (strcmp(argv[1], "insert") == 0) {
        rate = insert_rate(argv[2], (int64_t)seconds * 1000, (size_t)writers);
    } else {
        rate = store_rate(strcmp(argv[1], "sqlite") == 0 ? &broker_store_sqlite : &broker_store_pg,
                          argv[2], (int64_t)seconds * 1000, (size_t)writers);
    }
    (void)printf("%.0f\n", rate);
    return rate > 0 ? 0 : 1;
}
