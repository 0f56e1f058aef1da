/* A file of lines: appended to, turned over by size or age, taken up again after a crash. Whoever else
 * moves it away (logrotate) needs to tell nobody: its name is looked at before every write. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/audit/audit.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

struct file_sink {
    struct audit_sink base;
    struct config *config;
    char name[PATH_MAX];
    int fd;
    struct stat known; /* of fd */
    int64_t began_s;   /* wall clock */
    struct buf tail;   /* the last of what stood there */
};

void audit_file_name(const struct config *config, struct buf *out)
{
    buf_add_sv(out, config->audit.folder);
    buf_add_char(out, '/');
    buf_add_str(out, config_part_name(config->part));
    buf_add_str(out, ".audit.log");
}

static enum err refuse(struct file_sink *f, struct diag *d, const char *what)
{
    diag_set(d, "audit: cannot %s %.300s: %s", what, f->name, strerrordesc_np(errno));
    return ERR_IO;
}

static void let_go(struct file_sink *f)
{
    if (f->fd >= 0) {
        (void)close(f->fd); /* what was to be on disk is */
        f->fd = -1;
    }
}

/* --- what stands there ------------------------------------------------------------------------ */

static enum err read_tail(struct file_sink *f, struct diag *d)
{
    off_t from = MAX(f->known.st_size - (off_t)2 * AUDIT_LINE_MAX, (off_t)0);
    char *room = NULL;

    buf_reset(&f->tail);
    room = buf_room(&f->tail, (size_t)2 * AUDIT_LINE_MAX);
    while (from < f->known.st_size) {
        ssize_t n = pread(f->fd, room, (size_t)(f->known.st_size - from), from);

        if (n <= 0) {
            return refuse(f, d, "read");
        }
        buf_grew(&f->tail, (size_t)n);
        room += n;
        from += n;
    }
    return ERR_OK;
}

/* A write that a crash has cut leaves a line without an end: it gets one, and stays as it is. */
static enum err mend(struct file_sink *f, struct diag *d)
{
    size_t done = 0;

    if (f->tail.n == 0 || f->tail.p[f->tail.n - 1] == '\n') {
        return ERR_OK;
    }
    log_warn("audit.torn-line", KV_STR("file", f->name));
    return audit_write_fd(f->fd, SV("\n"), &done, d);
}

/* The last whole line. One that lacks but its end is whole. */
static struct sv last_line(const struct file_sink *f)
{
    struct sv text = buf_sv(&f->tail);
    struct audit_link link;
    size_t at = sv_rfind(text, '\n');
    struct sv torn = at == SIZE_MAX ? text : sv_from_at(text, at + 1);

    if (torn.n != 0 && audit_link_read(torn, &link)) {
        return torn;
    }
    if (at == SIZE_MAX) {
        return (struct sv){ 0 };
    }
    text.n = at;
    at = sv_rfind(text, '\n');
    return at == SIZE_MAX ? text : sv_from_at(text, at + 1);
}

static int64_t birth_s(const struct file_sink *f)
{
    struct statx x = { .stx_mask = 0 };

    if (statx(f->fd, "", AT_EMPTY_PATH, STATX_BTIME, &x) == 0 && (x.stx_mask & STATX_BTIME) != 0) {
        return x.stx_btime.tv_sec;
    }
    return clock_wall_s();
}

static enum err take_up(struct file_sink *f, struct diag *d)
{
    mode_t mode = f->config->audit.group_readable ? 0640 : 0600;
    enum err err = ERR_OK;

    f->fd = open(f->name, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode);
    if (f->fd < 0 || fstat(f->fd, &f->known) != 0) {
        return refuse(f, d, "open");
    }
    if (!S_ISREG(f->known.st_mode)) {
        diag_set(d, "audit: %.300s is no regular file", f->name);
        return ERR_INVALID;
    }
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0) {
        diag_set(d,
                 "audit: another process writes %.300s; give each its own audit.folder, by "
                 "AUDIT_FOLDER in its environment",
                 f->name);
        return ERR_EXISTS;
    }
    if ((f->known.st_mode & 0777) != mode && fchmod(f->fd, mode) != 0) {
        return refuse(f, d, "set the mode of");
    }
    f->began_s = birth_s(f);
    err = read_tail(f, d);
    return err == ERR_OK ? mend(f, d) : err;
}

/* --- turning over ----------------------------------------------------------------------------- */

static void number_name(const struct file_sink *f, unsigned i, char out[PATH_MAX + 16])
{
    (void)snprintf(out, PATH_MAX + 16, i == 0 ? "%s" : "%s.%u", f->name, i);
}

static bool is_due(const struct file_sink *f)
{
    const struct config_audit *c = &f->config->audit;

    return f->known.st_size > 0 &&
           ((c->rotate_mib != 0 && f->known.st_size >= (off_t)c->rotate_mib * 1024 * 1024) ||
            (c->rotate_ms != 0 && clock_wall_s() - f->began_s >= c->rotate_ms / 1000));
}

static void sync_folder(const struct file_sink *f)
{
    struct buf folder;
    int fd = -1;

    buf_init(&folder, PATH_MAX);
    buf_add_sv(&folder, f->config->audit.folder);
    fd = open(buf_cstr(&folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    buf_deinit(&folder);
    if (fd >= 0) {
        (void)fsync(fd); /* the file itself is synced: its old name would do */
        (void)close(fd);
    }
}

static void tell_not_rotated(const char *name)
{
    static struct log_limit limit; /* the writer's thread alone */

    if (log_limit_pass(&limit, 1)) {
        log_error("audit.not-rotated", KV_STR("file", name),
                  KV_STR("reason", strerrordesc_np(errno)));
    }
}

/* x -> x.1 -> x.2 …; the one beyond `keep` is written over. Each step is whole by itself: a crash in
 * between leaves a number out. Where it fails, the file just grows on. */
static void turn_over(struct file_sink *f)
{
    char from[PATH_MAX + 16];
    char to[PATH_MAX + 16];

    for (unsigned i = f->config->audit.keep; i > 0; i--) {
        number_name(f, i - 1, from);
        number_name(f, i, to);
        if (rename(from, to) != 0 && (errno != ENOENT || i == 1)) {
            tell_not_rotated(from);
            return;
        }
    }
    if (f->config->audit.fsync) {
        sync_folder(f);
    }
    let_go(f);
}

/* --- the operations --------------------------------------------------------------------------- */

/* Somebody has moved the file, or cut it short. */
static bool is_elsewhere(const struct file_sink *f)
{
    struct stat now;

    return stat(f->name, &now) != 0 || now.st_ino != f->known.st_ino ||
           now.st_dev != f->known.st_dev || now.st_size < f->known.st_size;
}

/* What stands there can be no beginning of our chain: it would look like a fraud. */
static bool is_unlinked(const struct file_sink *f)
{
    enum config_audit_chain kind = f->config->audit.chain;
    struct audit_link link = { .kind = CONFIG_AUDIT_CHAIN_OFF };

    (void)audit_link_read(last_line(f), &link);
    return f->tail.n != 0 && kind != CONFIG_AUDIT_CHAIN_OFF && link.kind != kind;
}

static enum err file_open(struct audit_sink *sink, struct audit_place *place_out, struct diag *d)
{
    struct file_sink *f = (struct file_sink *)(void *)sink;
    enum err err = ERR_OK;

    *place_out = (struct audit_place){ .is_new = false };
    if (f->fd >= 0 && is_elsewhere(f)) {
        let_go(f);
    }
    if (f->fd >= 0 && is_due(f)) {
        turn_over(f);
    }
    if (f->fd >= 0) {
        return ERR_OK;
    }
    err = take_up(f, d);
    if (err == ERR_OK && is_unlinked(f)) {
        turn_over(f);
        err = f->fd >= 0 ? ERR_OK : take_up(f, d);
    }
    if (err != ERR_OK) {
        let_go(f);
        return err;
    }
    *place_out = (struct audit_place){ .is_new = true, .last = last_line(f) };
    return ERR_OK;
}

static enum err file_write(struct audit_sink *sink, struct sv lines, size_t *done_out,
                           struct diag *d)
{
    struct file_sink *f = (struct file_sink *)(void *)sink;
    enum err err = audit_write_fd(f->fd, lines, done_out, d);

    f->known.st_size += (off_t)*done_out;
    if (err == ERR_OK && f->config->audit.fsync && fdatasync(f->fd) != 0) {
        return refuse(f, d, "sync");
    }
    return err;
}

static void file_close(struct audit_sink *sink)
{
    struct file_sink *f = (struct file_sink *)(void *)sink;

    let_go(f);
    buf_deinit(&f->tail);
    config_unref(&f->config);
    mem_free(&f);
}

struct audit_sink *audit_file_new(const struct config *config)
{
    static const struct audit_sink_ops ops = { .open = file_open,
                                               .write = file_write,
                                               .close = file_close,
                                               .confirms = true,
                                               .retry_max_ms = 1000 };
    struct file_sink *f = MEM_NEW(struct file_sink);
    struct buf name;

    f->base.ops = &ops;
    f->config = config_ref(config);
    f->fd = -1;
    buf_init(&f->tail, (size_t)2 * AUDIT_LINE_MAX + 1);
    buf_init(&name, sizeof(f->name) - 1);
    audit_file_name(config, &name);
    (void)snprintf(f->name, sizeof(f->name), "%s", buf_cstr(&name));
    buf_deinit(&name);
    return &f->base;
}
