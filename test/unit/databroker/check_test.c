/* A file that takes long to look through does not keep the store from opening. Reads are slow here, and
 * counted: a look that was cut short has not read the file. */
#include <sqlite3.h>

#include "test/unit/databroker/store_world.h"

enum { RECORDS = 1000, DATA = 4000, SLOW_US = 2000, CHECK_MS = 100 };

static sqlite3_vfs slow_vfs;
static sqlite3_vfs *real_vfs;
static sqlite3_io_methods slow_io;
static const sqlite3_io_methods *real_io;
static int is_slow; /* atomic */
static int reads;   /* atomic */

static int slow_read(sqlite3_file *file, void *to, int n, sqlite3_int64 from)
{
    if (__atomic_load_n(&is_slow, __ATOMIC_SEQ_CST) != 0) {
        (void)__atomic_add_fetch(&reads, 1, __ATOMIC_SEQ_CST);
        (void)usleep(SLOW_US);
    }
    return real_io->xRead(file, to, n, from);
}

/* Every kind of file of the unix VFS reads in the same way; only the database's are slow. */
static int slow_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    int rc = real_vfs->xOpen(real_vfs, name, file, flags, out);

    (void)vfs;
    if (rc == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
        real_io = file->pMethods;
        slow_io = *real_io;
        slow_io.xRead = slow_read;
        file->pMethods = &slow_io;
    }
    return rc;
}

static void fill_file(struct world *w)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    struct broker_write write = { .kind = BROKER_WRITE_PUT, .records = &list };
    char data[DATA];
    char id[32];
    struct broker_record record = { .type = SV("a"),
                                    .data_type = SV("t"),
                                    .data = sv_of(data, DATA) };
    int i = 0;

    memset(data, 'x', sizeof(data));
    broker_records_init(&list);
    for (i = 0; i < RECORDS; i++) {
        (void)snprintf(id, sizeof(id), "%d", i);
        record.id = sv_from(id);
        broker_records_add(&list, &record);
    }
    assert_int_equal(broker_store_write(w->ops, w->store, &write), ERR_OK);
}

static void a_slow_look_through_the_file_ends_in_time(void **state)
{
    struct world w;
    char data[DATA + 1];

    (void)state;
    world_init(&w, IN_A_FILE);
    world_open(&w);
    fill_file(&w);
    w.ops->close(&w.store);
    w.opts.check_ms = CHECK_MS;
    __atomic_store_n(&is_slow, 1, __ATOMIC_SEQ_CST);
    world_open(&w);
    __atomic_store_n(&is_slow, 0, __ATOMIC_SEQ_CST);
    assert_in_range(__atomic_load_n(&reads, __ATOMIC_SEQ_CST), 1, RECORDS - 1);
    assert_int_equal(get(&w, "a", "7", data, sizeof(data)), ERR_OK);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_look_through_the_file_ends_in_time),
    };

    real_vfs = sqlite3_vfs_find(NULL);
    slow_vfs = *real_vfs;
    slow_vfs.zName = "slow";
    slow_vfs.xOpen = slow_open;
    CHECK(sqlite3_vfs_register(&slow_vfs, 1) == SQLITE_OK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
