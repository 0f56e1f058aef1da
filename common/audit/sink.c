#include "common/audit/sink.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

struct audit_sink *audit_sink_new(const struct config *config)
{
    switch (config->audit.sink) {
    case CONFIG_AUDIT_FILE:
        return audit_file_new(config);
    case CONFIG_AUDIT_SYSLOG:
    case CONFIG_AUDIT_JOURNALD:
        return audit_syslog_new(config);
    case CONFIG_AUDIT_OTLP:
        return audit_otlp_new(config);
    case CONFIG_AUDIT_STDOUT:
        break;
    }
    return audit_stdout_new(config);
}

void audit_sink_close(struct audit_sink **sink)
{
    struct audit_sink *s = TAKE(*sink);

    if (s != NULL) {
        s->ops->close(s);
    }
}

enum err audit_sink_check(const struct config *config, struct diag *d)
{
    struct buf folder;
    enum err err = ERR_OK;

    if (config->audit.sink != CONFIG_AUDIT_FILE) {
        return ERR_OK;
    }
    buf_init(&folder, 4096);
    buf_add_sv(&folder, config->audit.folder);
    if (access(buf_cstr(&folder), W_OK | X_OK) != 0) {
        diag_set(d, "audit.folder: %.200s: %s", buf_cstr(&folder), strerrordesc_np(errno));
        err = ERR_IO;
    }
    buf_deinit(&folder);
    return err;
}

/* --- standard output -------------------------------------------------------------------------- */

struct stdout_sink {
    struct audit_sink base;
    bool opened;
};

static enum err stdout_open(struct audit_sink *sink, struct audit_place *place_out, struct diag *d)
{
    struct stdout_sink *s = (struct stdout_sink *)(void *)sink;

    (void)d;
    *place_out = (struct audit_place){ .is_new = !s->opened };
    s->opened = true;
    return ERR_OK;
}

enum err audit_write_fd(int fd, struct sv lines, size_t *done_out, struct diag *d)
{
    *done_out = 0;
    while (*done_out < lines.n) {
        ssize_t n = write(fd, lines.p + *done_out, lines.n - *done_out);

        if (n > 0) {
            *done_out += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            diag_set(d, "%s", n == 0 ? "nothing was taken" : strerrordesc_np(errno));
            return ERR_IO;
        }
    }
    return ERR_OK;
}

static enum err stdout_write(struct audit_sink *sink, struct sv lines, size_t *done_out,
                             struct diag *d)
{
    (void)sink;
    return audit_write_fd(STDOUT_FILENO, lines, done_out, d);
}

static void stdout_close(struct audit_sink *sink)
{
    mem_free(&sink);
}

struct audit_sink *audit_stdout_new(const struct config *config)
{
    static const struct audit_sink_ops ops = { .open = stdout_open,
                                               .write = stdout_write,
                                               .close = stdout_close,
                                               .confirms = true,
                                               .retry_max_ms = 1000 };
    struct stdout_sink *s = MEM_NEW(struct stdout_sink);

    (void)config;
    s->base.ops = &ops;
    return &s->base;
}
