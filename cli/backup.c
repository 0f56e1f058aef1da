#include "cli/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/buf.h"
#include "common/rand.h"
#include "common/sv.h"

enum {
    APPLICATION_ID = 0x506f7374, /* as in databroker/store_sqlite.c */
    BUSY_MS = 10000,
    PATH_ROOM = 4352
};

static void db_close(sqlite3 **db)
{
    (void)sqlite3_close(*db);
    *db = NULL;
}

static void name_of(char out[PATH_ROOM], const char *path, const char *end)
{
    (void)snprintf(out, PATH_ROOM, "%s%s", path, end);
}

static enum err db_open(const char *path, int flags, sqlite3 **db_out, struct diag *d)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(path, &db, flags, NULL);

    if (rc != SQLITE_OK) {
        diag_set(d, "cannot open %s: %s", path, sqlite3_errstr(rc));
        db_close(&db);
        return access(path, F_OK) == 0 ? ERR_IO : ERR_NOT_FOUND;
    }
    (void)sqlite3_busy_timeout(db, BUSY_MS);
    *db_out = db;
    return ERR_OK;
}

static enum err db_exec(sqlite3 *db, const char *sql, struct diag *d)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        diag_set(d, "%s: %s", sqlite3_db_filename(db, "main"), sqlite3_errmsg(db));
        return ERR_IO;
    }
    return ERR_OK;
}

/* The first column of the first row; false: there is none. */
static bool db_ask(sqlite3 *db, const char *sql, int64_t *number_out, char *text, size_t room)
{
    sqlite3_stmt *stmt = NULL;
    bool fine = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
                sqlite3_step(stmt) == SQLITE_ROW;

    if (fine) {
        *number_out = sqlite3_column_int64(stmt, 0);
        (void)snprintf(text, room, "%s", (const char *)sqlite3_column_text(stmt, 0));
    }
    (void)sqlite3_finalize(stmt);
    return fine;
}

/* Whether it is one of ours and whole; counts its records. */
static enum err db_check(sqlite3 *db, const char *path, int64_t *records_out, struct diag *d)
{
    char text[256] = "";
    int64_t n = 0;

    if (!db_ask(db, "PRAGMA application_id", &n, text, sizeof(text)) || n != APPLICATION_ID) {
        diag_set(d, "%s is no store of a databroker", path);
        return ERR_INVALID;
    }
    if (!db_ask(db, "PRAGMA integrity_check(1)", &n, text, sizeof(text)) ||
        strcmp(text, "ok") != 0) {
        diag_set(d, "%s is damaged: %s", path, text[0] == '\0' ? sqlite3_errmsg(db) : text);
        return ERR_INVALID;
    }
    if (!db_ask(db, "SELECT count(*) FROM records WHERE type <> 'postern.io/DataKey'", records_out,
                text, sizeof(text))) {
        diag_set(d, "%s cannot be read: %s", path, sqlite3_errmsg(db));
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* All pages in one step: in WAL mode it reads one state and holds up no writer, while smaller steps
 * would begin anew at each write. */
static enum err copy_pages(sqlite3 *from, sqlite3 *to, struct diag *d)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    int rc = SQLITE_ERROR;

    if (backup != NULL) {
        (void)sqlite3_backup_step(backup, -1);
        rc = sqlite3_backup_finish(backup);
    }
    if (rc != SQLITE_OK) {
        diag_set(d, "the copy failed: %s", sqlite3_errmsg(to));
        return ERR_IO;
    }
    return db_exec(to, "PRAGMA journal_mode = DELETE", d); /* one file, no -wal beside it */
}

static enum err sync_path(const char *path, int flags, struct diag *d)
{
    int fd = open(path, flags | O_RDONLY | O_CLOEXEC);
    bool fine = fd >= 0 && fsync(fd) == 0;

    if (!fine) {
        diag_set(d, "cannot write %s to disk: %s", path, strerrordesc_np(errno));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return fine ? ERR_OK : ERR_IO;
}

static enum err sync_folder(const char *path, struct diag *d)
{
    char folder[PATH_ROOM];
    char *slash = NULL;

    name_of(folder, path, "");
    slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[slash == folder ? 1 : 0] = '\0';
    }
    return sync_path(slash == NULL ? "." : folder, O_DIRECTORY, d);
}

/* A new file beside path, mode 0600. */
static enum err temp_make(const char *path, char out[PATH_ROOM], struct diag *d)
{
    int fd = -1;

    if (strlen(path) + sizeof(".before-restore-wal") > PATH_ROOM) {
        diag_set(d, "the name is too long");
        return ERR_LIMIT;
    }
    name_of(out, path, ".XXXXXX");
    fd = mkostemp(out, O_CLOEXEC);
    if (fd < 0) {
        diag_set(d, "cannot create a file beside %s: %s", path, strerrordesc_np(errno));
        return ERR_IO;
    }
    (void)close(fd);
    return ERR_OK;
}

static enum err temp_rename(const char *temp, const char *path, struct diag *d)
{
    enum err err = sync_path(temp, 0, d);

    if (err == ERR_OK && rename(temp, path) != 0) {
        diag_set(d, "cannot rename %s to %s: %s", temp, path, strerrordesc_np(errno));
        err = ERR_IO;
    }
    return err == ERR_OK ? sync_folder(path, d) : err;
}

/* Copies from to the new file temp, changes it by sql, and checks what came out. */
static enum err copy_to(sqlite3 *from, const char *temp, const char *sql, int64_t *records_out,
                        struct diag *d)
{
    CLEANUP(db_close) sqlite3 *to = NULL;
    enum err err = db_open(temp, SQLITE_OPEN_READWRITE, &to, d);

    if (err == ERR_OK) {
        err = copy_pages(from, to, d);
    }
    if (err == ERR_OK && sql != NULL) {
        err = db_exec(to, sql, d);
    }
    return err == ERR_OK ? db_check(to, temp, records_out, d) : err;
}

enum err cli_backup(const char *store, const char *file, int64_t *records_out, struct diag *d)
{
    CLEANUP(db_close) sqlite3 *from = NULL;
    char temp[PATH_ROOM] = "";
    enum err err = db_open(store, SQLITE_OPEN_READWRITE, &from, d);

    if (err == ERR_OK) {
        err = temp_make(file, temp, d);
    }
    if (err == ERR_OK) {
        err = copy_to(from, temp, NULL, records_out, d);
    }
    if (err == ERR_OK) {
        err = temp_rename(temp, file, d);
    }
    if (err != ERR_OK && temp[0] != '\0') {
        (void)unlink(temp);
    }
    return err;
}

/* ---- restore ---------------------------------------------------------------------------------- */

/* The lock that a databroker holds while it has the store open. */
static enum err lock_store(const char *store, int *fd_out, struct diag *d)
{
    char path[PATH_ROOM];

    name_of(path, store, ".lock");
    *fd_out = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd_out < 0) {
        diag_set(d, "cannot create %s: %s", path, strerrordesc_np(errno));
        return ERR_IO;
    }
    if (flock(*fd_out, LOCK_EX | LOCK_NB) != 0) {
        diag_set(d, "a databroker has %s open: stop it first", store);
        return ERR_EXISTS;
    }
    return ERR_OK;
}

/* What makes it another store to followers: another server version, a log that begins here, and versions
 * beyond any that were given since the backup. */
static void changes_of(struct buf *sql, bool ended)
{
    uint64_t server_version = 0;

    while (server_version == 0) {
        server_version = rand_u64();
    }
    buf_printf(sql,
               "PRAGMA secure_delete = ON; BEGIN IMMEDIATE; DELETE FROM changes; "
               "UPDATE store SET latest_version = latest_version + 4294967296; "
               "UPDATE store SET server_version = %lld, log_floor = latest_version; %s COMMIT",
               (long long)server_version,
               ended ? "DELETE FROM records WHERE type = 'type.googleapis.com/session.Session';"
                     : "");
}

/* The new file belongs to whom the old one, or the folder, belongs to: root restores for a daemon. */
static enum err give_to_owner(const char *temp, const char *store, struct diag *d)
{
    char folder[PATH_ROOM];
    struct stat st = { .st_uid = 0 };
    char *slash = NULL;

    name_of(folder, store, "");
    slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[1] = '\0';
    }
    if (geteuid() != 0 || (stat(store, &st) != 0 && stat(slash == NULL ? "." : folder, &st) != 0)) {
        return ERR_OK;
    }
    if (chown(temp, st.st_uid, st.st_gid) != 0) {
        diag_set(d, "cannot give %s to its owner: %s", temp, strerrordesc_np(errno));
        return ERR_IO;
    }
    return ERR_OK;
}

/* Moves the present store and its log away, the log last: a log without its store is ignored. That of an
 * earlier restore goes first: what moves away may have none, and would be read with that one. */
static enum err move_away(const char *store, struct diag *d)
{
    static const char *const ends[] = { "", "-wal" };
    char from[PATH_ROOM];
    char to[PATH_ROOM];

    name_of(to, store, ".before-restore-wal");
    if (unlink(to) != 0 && errno != ENOENT) {
        diag_set(d, "cannot remove %s: %s", to, strerrordesc_np(errno));
        return ERR_IO;
    }
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        name_of(from, store, ends[i]);
        name_of(to, store, i == 0 ? ".before-restore" : ".before-restore-wal");
        if (rename(from, to) != 0 && errno != ENOENT) {
            diag_set(d, "cannot rename %s: %s", from, strerrordesc_np(errno));
            return ERR_IO;
        }
    }
    name_of(from, store, "-shm");
    (void)unlink(from);
    return sync_folder(store, d);
}

static enum err restore_locked(const char *store, const char *file, const char *sql,
                               int64_t *records_out, struct diag *d)
{
    CLEANUP(db_close) sqlite3 *from = NULL;
    char temp[PATH_ROOM] = "";
    enum err err = db_open(file, SQLITE_OPEN_READONLY, &from, d);

    if (err == ERR_OK) {
        err = db_check(from, file, records_out, d);
    }
    if (err == ERR_OK) {
        err = temp_make(store, temp, d);
    }
    if (err == ERR_OK) {
        err = copy_to(from, temp, sql, records_out, d);
    }
    if (err == ERR_OK) {
        err = give_to_owner(temp, store, d);
    }
    if (err == ERR_OK) {
        err = move_away(store, d);
    }
    if (err == ERR_OK) {
        err = temp_rename(temp, store, d);
    }
    if (err != ERR_OK && temp[0] != '\0') {
        (void)unlink(temp);
    }
    return err;
}

enum err cli_restore(const char *store, const char *file, bool ended, int64_t *records_out,
                     struct diag *d)
{
    CLEANUP(buf_deinit) struct buf sql = { 0 };
    int lock = -1;
    enum err err = lock_store(store, &lock, d);

    buf_init(&sql, 1024);
    changes_of(&sql, ended);
    if (err == ERR_OK) {
        err = restore_locked(store, file, buf_cstr(&sql), records_out, d);
    }
    if (lock >= 0) {
        (void)close(lock);
    }
    return err;
}
