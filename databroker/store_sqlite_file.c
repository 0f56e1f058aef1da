/* The file of the store: one process has it, nobody else may read it, and it stays where it is. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/store_sqlite_int.h"

enum { CHUNK = 65536 };

/* Two processes that both count versions would damage each other. */
static enum err lock(struct broker_store *store, struct diag *d)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };

    buf_init(&path, 4096);
    buf_printf(&path, "%s.lock", store->name);
    store->lock_fd = open(buf_cstr(&path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0) {
        diag_set(d, "cannot create %s: %s", buf_cstr(&path), strerrordesc_np(errno));
        return ERR_IO;
    }
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        diag_set(d, "%s is in use by another databroker", store->name);
        return ERR_EXISTS;
    }
    return ERR_OK;
}

/* Sessions are in it: nobody else may read it. SQLite gives its other files the same mode. */
static enum err create(const char *name, struct diag *d)
{
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) {
        diag_set(d, "cannot open %s: %s", name, strerrordesc_np(errno));
        return ERR_IO;
    }
    (void)close(fd);
    return ERR_OK;
}

enum err broker_file_open(struct broker_store *store, struct diag *d)
{
    enum err err = lock(store, d);

    return err == ERR_OK ? create(store->name, d) : err;
}

void broker_file_close(struct broker_store *store)
{
    if (store->lock_fd >= 0) {
        (void)close(store->lock_fd);
    }
}

/* -shm has no part in what lasts, but whoever opens the store beside another one would share no locks with us. */
static void look(const struct broker_store *store, struct broker_file_id ids_out[BROKER_FILES])
{
    static const char *const ends[BROKER_FILES] = { "", "-wal", "-shm" };
    size_t i = 0;

    for (i = 0; i < BROKER_FILES; i++) {
        CLEANUP(buf_deinit) struct buf path = { 0 };
        struct stat st = { .st_ino = 0 };

        buf_init(&path, 4096);
        buf_printf(&path, "%s%s", store->name, ends[i]);
        if (stat(buf_cstr(&path), &st) != 0) {
            st = (struct stat){ .st_ino = 0 };
        }
        ids_out[i] = (struct broker_file_id){ .device = st.st_dev, .inode = st.st_ino };
    }
}

void broker_file_remember(struct broker_store *store)
{
    look(store, store->files);
}

enum err broker_file_stays(struct broker_store *store)
{
    struct broker_file_id now[BROKER_FILES];

    look(store, now);
    if (memcmp(now, store->files, sizeof(now)) == 0) {
        return ERR_OK;
    }
    if (log_limit_pass(&store->noise, 1)) {
        log_error(
            "store.file-gone", KV_STR("file", store->name),
            KV_STR("cause", "it, its -wal or its -shm was deleted, moved or replaced while open"),
            KV_STR("hint", "move them back, or restore a backup and restart"));
    }
    return ERR_UNAVAILABLE;
}

static enum err err_of_errno(void)
{
    return errno == ENOSPC || errno == EDQUOT ? ERR_LIMIT : ERR_IO;
}

static enum err renew(int fd)
{
    CLEANUP(mem_free) char *chunk = mem_alloc(CHUNK);
    off_t at = 0;
    ssize_t n = 0;

    for (at = 0;; at += n) {
        n = pread(fd, chunk, CHUNK, at);
        if (n <= 0) {
            break;
        }
        if (pwrite(fd, chunk, (size_t)n, at) != n) {
            return err_of_errno();
        }
    }
    return n == 0 && fdatasync(fd) == 0 ? ERR_OK : err_of_errno();
}

enum err broker_file_renew_log(const struct broker_store *store)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };
    enum err err = ERR_OK;
    int fd = -1;

    buf_init(&path, 4096);
    buf_printf(&path, "%s-wal", store->name);
    fd = open(buf_cstr(&path), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? ERR_OK : ERR_IO;
    }
    err = renew(fd);
    (void)close(fd);
    return err;
}
