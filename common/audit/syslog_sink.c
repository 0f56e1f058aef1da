/* Lines as datagrams for the log daemon of this machine: syslog (RFC 5424) or journald's own protocol
 * (systemd.io/JOURNAL_NATIVE_PROTOCOL). A datagram is taken whole or not at all; when nobody listens,
 * lines wait and are tried again like those for any other sink. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/audit/audit.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    PRIORITY = 10 * 8 + 6, /* authpriv, informational */
    SEND_S = 1,            /* a full socket is a failure after that long */
    WANTED_BYTES = 8 * 1024 * 1024
};

struct syslog_sink {
    struct audit_sink base;
    struct config *config;
    char host[HOST_NAME_MAX + 1];
    int fd;
    bool opened;
    struct buf message;
};

static const char *socket_name(const struct syslog_sink *s)
{
    if (s->config->audit.socket.n != 0) {
        return s->config->audit.socket.p;
    }
    return s->config->audit.sink == CONFIG_AUDIT_JOURNALD ? "/run/systemd/journal/socket"
                                                          : "/dev/log";
}

static void hang_up(struct syslog_sink *s)
{
    if (s->fd >= 0) {
        (void)close(s->fd);
        s->fd = -1;
    }
}

static enum err call(struct syslog_sink *s, struct diag *d)
{
    const struct timeval patience = { .tv_sec = SEND_S };
    const int room = WANTED_BYTES;
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    const char *name = socket_name(s);

    if (s->fd >= 0) {
        return ERR_OK;
    }
    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", name); /* bounded by the settings */
    s->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || connect(s->fd, (const struct sockaddr *)&to, sizeof(to)) != 0) {
        diag_set(d, "audit: nobody listens at %s: %s", name, strerrordesc_np(errno));
        hang_up(s);
        return ERR_IO;
    }
    (void)setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    (void)setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)); /* as much as may be */
    return ERR_OK;
}

/* RFC 5424 6: <PRI>1 TIME HOST APP PROCID MSGID SD MSG. */
static void write_syslog(struct syslog_sink *s, struct sv line)
{
    char time[CLOCK_TEXT_SIZE];

    buf_printf(&s->message, "<%d>1 %s %s postern-%s %ld audit - ", (int)PRIORITY,
               clock_format(clock_wall_ms(), time), s->host, config_part_name(s->config->part),
               (long)getpid());
    buf_add_sv(&s->message, line);
}

static void write_journald(struct syslog_sink *s, struct sv line)
{
    buf_printf(&s->message,
               "PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=postern-%s\nPOSTERN_AUDIT=1\n"
               "MESSAGE=",
               config_part_name(s->config->part));
    buf_add_sv(&s->message, line);
    buf_add_char(&s->message, '\n');
}

/* True: the line is taken, or will never be. */
static bool send_line(struct syslog_sink *s, struct sv line, struct diag *d)
{
    ssize_t n = 0;

    buf_reset(&s->message);
    if (s->config->audit.sink == CONFIG_AUDIT_JOURNALD) {
        write_journald(s, line);
    } else {
        write_syslog(s, line);
    }
    CHECK(s->message.err == ERR_OK);
    do {
        n = send(s->fd, s->message.p, s->message.n, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return true;
    }
    if (errno == EMSGSIZE) { /* nothing would ever follow it */
        log_error("audit.too-long", KV_U64("bytes", s->message.n));
        return true;
    }
    diag_set(d, "audit: %s takes nothing: %s", socket_name(s), strerrordesc_np(errno));
    hang_up(s);
    return false;
}

static enum err syslog_open(struct audit_sink *sink, struct audit_place *place_out, struct diag *d)
{
    struct syslog_sink *s = (struct syslog_sink *)(void *)sink;

    (void)d;
    *place_out = (struct audit_place){ .is_new = !s->opened };
    s->opened = true;
    return ERR_OK;
}

static enum err syslog_write(struct audit_sink *sink, struct sv lines, size_t *done_out,
                             struct diag *d)
{
    struct syslog_sink *s = (struct syslog_sink *)(void *)sink;

    *done_out = 0;
    while (*done_out < lines.n) {
        struct sv rest = sv_from_at(lines, *done_out);
        size_t n = sv_find(rest, '\n');

        if (call(s, d) != ERR_OK || !send_line(s, sv_head(rest, n), d)) {
            return ERR_IO;
        }
        *done_out += n + 1;
    }
    return ERR_OK;
}

static void syslog_close(struct audit_sink *sink)
{
    struct syslog_sink *s = (struct syslog_sink *)(void *)sink;

    hang_up(s);
    buf_deinit(&s->message);
    config_unref(&s->config);
    mem_free(&s);
}

struct audit_sink *audit_syslog_new(const struct config *config)
{
    static const struct audit_sink_ops ops = { .open = syslog_open,
                                               .write = syslog_write,
                                               .close = syslog_close,
                                               .confirms = true,
                                               .is_remote = true,
                                               .retry_max_ms = 1000 };
    struct syslog_sink *s = MEM_NEW(struct syslog_sink);

    s->base.ops = &ops;
    s->config = config_ref(config);
    s->fd = -1;
    if (gethostname(s->host, sizeof(s->host) - 1) != 0 || s->host[0] == '\0') {
        (void)snprintf(s->host, sizeof(s->host), "-"); /* NILVALUE */
    }
    buf_init(&s->message, (size_t)2 * AUDIT_LINE_MAX);
    return &s->base;
}
