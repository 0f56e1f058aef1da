/* A process that writes is killed in the middle of a commit, 200 times: the file stays whole, and no
 * acknowledged write (the end of a session, say) is ever lost. The program runs itself as victim. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/clock.h"
#include "common/rand.h"
#include "databroker/store.h"
#include "test/support/cmocka.h"

enum { KILLS = 200, IN_FLIGHT = 16, LIFE_US_MAX = 12000 };

static const char *self;

struct slot {
    struct broker_write write;
    struct broker_records list;
    uint64_t number;
    int out; /* atomic */
};

static int ack_fd;

/* On the writer's thread: the acknowledgement leaves the process. */
static void on_done(struct broker_write *w)
{
    struct slot *slot = w->arg;
    uint64_t ack[2] = { slot->number, slot->list.items[0].version };

    if (w->err == ERR_OK && write(ack_fd, ack, sizeof(ack)) != (ssize_t)sizeof(ack)) {
        _exit(3);
    }
    __atomic_store_n(&slot->out, 0, __ATOMIC_SEQ_CST);
}

static void fill(struct slot *slot, uint64_t number)
{
    char id[32];
    struct broker_record record = { .type = SV("a"), .data_type = SV("t"), .data = SV("data") };

    broker_records_deinit(&slot->list);
    broker_records_init(&slot->list);
    (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)number);
    record.id = sv_from(id);
    broker_records_add(&slot->list, &record);
    slot->number = number;
    slot->write = (struct broker_write){
        .kind = BROKER_WRITE_PUT, .records = &slot->list, .done = on_done, .arg = slot
    };
    __atomic_store_n(&slot->out, 1, __ATOMIC_SEQ_CST);
}

static bool write_more(struct broker_store *store, struct slot slots[IN_FLIGHT], uint64_t *number)
{
    size_t i = 0;

    for (i = 0; i < IN_FLIGHT; i++) {
        if (__atomic_load_n(&slots[i].out, __ATOMIC_SEQ_CST) != 0) {
            continue;
        }
        fill(&slots[i], *number);
        ++*number;
        if (broker_store_sqlite.submit(store, &slots[i].write) != ERR_OK) {
            return false;
        }
    }
    return true;
}

/* Writes record after record until it is killed. */
static int victim(const char *file, uint64_t number)
{
    static struct slot slots[IN_FLIGHT];
    struct broker_store_opts opts = { .target = file };
    struct broker_store *store = NULL;
    struct diag d = { .text = "" };

    ack_fd = STDOUT_FILENO;
    if (broker_store_sqlite.open(&opts, &store, &d) != ERR_OK) {
        (void)fprintf(stderr, "%s\n", d.text);
        return 2;
    }
    if (write(ack_fd, &(uint64_t[2]){ 0, 0 }, 16) != 16) { /* ready */
        return 3;
    }
    for (;;) {
        if (!write_more(store, slots, &number)) {
            return 4;
        }
        (void)usleep(50);
    }
}

struct book {
    uint64_t *versions; /* by number; 0: not acknowledged */
    uint64_t room;
    uint64_t next; /* beyond every number that was tried */
    uint64_t acknowledged;
};

static void note(struct book *book, const uint64_t ack[2])
{
    assert_true(ack[0] < book->room);
    book->versions[ack[0]] = ack[1];
    book->acknowledged++;
    book->next = MAX(book->next, ack[0] + 1);
}

/* Runs the victim, kills it after a moment of writing and notes what it acknowledged. */
static void run_and_kill(const char *file, struct book *book)
{
    int fds[2];
    uint64_t ack[2];
    char number[32];
    pid_t pid = 0;
    int status = 0;

    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)book->next);
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(fds[1], STDOUT_FILENO);
        (void)close(fds[0]);
        (void)close(fds[1]);
        (void)execl(self, self, "victim", file, number, (char *)NULL);
        _exit(9);
    }
    (void)close(fds[1]);
    assert_int_equal(read(fds[0], ack, sizeof(ack)), sizeof(ack)); /* it is ready */
    (void)usleep((useconds_t)rand_below(LIFE_US_MAX));
    (void)kill(pid, SIGKILL);
    while (read(fds[0], ack, sizeof(ack)) == (ssize_t)sizeof(ack)) {
        note(book, ack);
    }
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    book->next += IN_FLIGHT; /* those that were on their way may be there, too */
}

static void check_integrity(const char *file)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;

    assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(stmt, 0), "ok");
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
}

static void check_book(const char *file, const struct book *book)
{
    struct broker_store_opts opts = { .target = file };
    struct broker_store *store = NULL;
    struct broker_info info = { 0 };
    uint64_t i = 0;

    assert_int_equal(broker_store_sqlite.open(&opts, &store, NULL), ERR_OK);
    assert_int_equal(broker_store_sqlite.info(store, clock_mono_ms() + 10000, &info), ERR_OK);
    for (i = 0; i < book->next; i++) {
        CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
        char id[32];

        if (book->versions[i] == 0) {
            continue;
        }
        broker_records_init(&out);
        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)i);
        assert_int_equal(
            broker_store_sqlite.get(store, SV("a"), sv_from(id), clock_mono_ms() + 10000, &out),
            ERR_OK);
        assert_int_equal(out.items[0].version, book->versions[i]);
        assert_true(out.items[0].version <= info.latest_version);
    }
    broker_store_sqlite.close(&store);
}

static void killed_in_the_middle_nothing_acknowledged_is_lost(void **state)
{
    char folder[] = "/tmp/postern-crash-XXXXXX";
    char file[64];
    char command[64];
    struct book book = { .room = 4000000 };
    int i = 0;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(file, sizeof(file), "%s/db", folder);
    book.versions = test_calloc(book.room, sizeof(*book.versions));
    for (i = 0; i < KILLS; i++) {
        run_and_kill(file, &book);
        if (i % 20 == 19) {
            check_integrity(file);
            check_book(file, &book);
        }
    }
    print_message("%d kills, %llu acknowledged writes\n", KILLS,
                  (unsigned long long)book.acknowledged);
    assert_true(book.acknowledged > KILLS);
    test_free(book.versions);
    for (i = 0; i < 4; i++) {
        static const char *const ends[] = { "", "-wal", "-shm", ".lock" };

        (void)snprintf(command, sizeof(command), "%s%s", file, ends[i]);
        (void)unlink(command);
    }
    (void)rmdir(folder);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_in_the_middle_nothing_acknowledged_is_lost),
    };

    self = "/proc/self/exe";
    if (argc == 4 && strcmp(argv[1], "victim") == 0) {
        uint64_t number = 0;

        return sv_u64(sv_from(argv[3]), UINT64_MAX, &number) == ERR_OK ? victim(argv[2], number)
                                                                       : 5;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
