#include "common/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum { LOG_LINE_MAX = 16384 };

static const char *log_service = "postern";
static int log_level_now = LOG_INFO;

static const char *const level_names[] = { "error", "warn", "info", "debug", "trace" };

void log_init(const char *service, enum log_level level)
{
    log_service = service;
    log_set_level(level);
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&log_level_now, (int)level, __ATOMIC_RELAXED);
}

bool log_wants(enum log_level level)
{
    return (int)level <= __atomic_load_n(&log_level_now, __ATOMIC_RELAXED);
}

static void add_i64(struct buf *line, int64_t v)
{
    if (v < 0) {
        buf_add_char(line, '-');
    }
    buf_add_u64(line, v < 0 ? (uint64_t)0 - (uint64_t)v : (uint64_t)v);
}

void log_add_i64(struct buf *line, struct sv key, int64_t v)
{
    buf_add_sv(line, key);
    add_i64(line, v);
}

/* What stands in front of the event is the same for every line of a second and a service; only the
 * milliseconds change. */
void log_open(struct buf *line, int64_t wall_ms, struct sv event)
{
    enum { MS_AT = 29, HEAD_MAX = 128 };

    static _Thread_local int64_t second = -1;
    static _Thread_local const char *service;
    static _Thread_local char head[HEAD_MAX];
    static _Thread_local size_t head_n;
    unsigned ms = (unsigned)(wall_ms % 1000);

    if (second != wall_ms / 1000 || service != log_service) {
        struct buf text = { .p = head, .cap = sizeof(head), .max = sizeof(head) - 1 };
        char time[CLOCK_TEXT_SIZE];

        second = wall_ms / 1000;
        service = log_service;
        buf_add_str(&text, "{\"time\":\"");
        buf_add_str(&text, clock_format(wall_ms, time));
        buf_add_str(&text, "\",\"service\":\"");
        buf_add_str(&text, service);
        buf_add_str(&text, "\",\"event\":\"");
        CHECK(text.err == ERR_OK);
        head_n = text.n;
    }
    head[MS_AT] = (char)('0' + ms / 100);
    head[MS_AT + 1] = (char)('0' + ms / 10 % 10);
    head[MS_AT + 2] = (char)('0' + ms % 10);
    buf_add(line, head, head_n);
    buf_add_sv(line, event);
    buf_add_char(line, '"');
}

void log_close(struct buf *line)
{
    buf_add_str(line, "}\n");
}

static enum err write_all(int fd, struct sv text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return ERR_IO;
        }
        text = sv_from_at(text, (size_t)n);
    }
    return ERR_OK;
}

enum err log_write_lines(struct sv lines)
{
    return write_all(STDOUT_FILENO, lines);
}

static void add_kv(struct buf *line, const struct log_kv *kv)
{
    buf_add_str(line, ",\"");
    buf_add_str(line, kv->key);
    buf_add_str(line, "\":");
    switch (kv->kind) {
    case LOG_KV_SV:
        log_add_sv(line, (struct sv){ 0 }, kv->v.sv);
        break;
    case LOG_KV_U64:
        buf_add_u64(line, kv->v.u64);
        break;
    case LOG_KV_I64:
        add_i64(line, kv->v.i64);
        break;
    case LOG_KV_BOOL:
        buf_add_str(line, kv->v.flag ? "true" : "false");
        break;
    case LOG_KV_NONE:
        buf_add_str(line, "null");
        break;
    }
}

void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n)
{
    CLEANUP(buf_deinit) struct buf line = { 0 };
    size_t i = 0;

    buf_init(&line, LOG_LINE_MAX);
    log_open(&line, clock_wall_ms(), sv_from(event));
    log_add_str(&line, LOG_KEY("level"), level_names[level]);
    for (i = 0; i < n; i++) {
        add_kv(&line, &kv[i]);
    }
    log_close(&line);
    if (line.err == ERR_OK) {
        (void)write_all(STDERR_FILENO, buf_sv(&line)); /* nowhere left to report a failure */
    }
}

bool log_limit_pass(struct log_limit *limit, uint32_t burst)
{
    int64_t now = clock_mono_ms() / 1000;

    if (limit->second != now) {
        limit->second = now;
        limit->count = 0;
    }
    if (limit->count >= burst) {
        limit->dropped++;
        return false;
    }
    limit->count++;
    return true;
}
