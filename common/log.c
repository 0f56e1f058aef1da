#include "common/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum { LOG_LINE_MAX = 16384, LOG_VALUE_MAX = 1024 };

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

enum err log_level_parse(struct sv name, enum log_level *level_out)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(level_names); i++) {
        if (sv_eq(name, sv_from(level_names[i]))) {
            *level_out = (enum log_level)i;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

static void add_key(struct buf *line, const char *key)
{
    buf_add_str(line, ",\"");
    buf_add_str(line, key);
    buf_add_str(line, "\":");
}

void log_add_sv(struct buf *line, const char *key, struct sv v)
{
    add_key(line, key);
    buf_add_json(line, v.n > LOG_VALUE_MAX ? sv_head(v, LOG_VALUE_MAX) : v);
}

void log_add_str(struct buf *line, const char *key, const char *v)
{
    log_add_sv(line, key, sv_from(v));
}

void log_add_u64(struct buf *line, const char *key, uint64_t v)
{
    add_key(line, key);
    buf_add_u64(line, v);
}

void log_add_i64(struct buf *line, const char *key, int64_t v)
{
    add_key(line, key);
    if (v < 0) {
        buf_add_char(line, '-');
    }
    buf_add_u64(line, v < 0 ? (uint64_t)0 - (uint64_t)v : (uint64_t)v);
}

void log_add_bool(struct buf *line, const char *key, bool v)
{
    add_key(line, key);
    buf_add_str(line, v ? "true" : "false");
}

/* The text of a second is the same for every line in it; only the milliseconds change. */
static void add_time(struct buf *line, int64_t wall_ms)
{
    static _Thread_local int64_t cached_s = -1;
    static _Thread_local char cached[CLOCK_TEXT_SIZE];
    unsigned ms = (unsigned)(wall_ms % 1000);

    if (cached_s != wall_ms / 1000) {
        cached_s = wall_ms / 1000;
        (void)clock_format(wall_ms, cached);
    }
    cached[20] = (char)('0' + ms / 100);
    cached[21] = (char)('0' + ms / 10 % 10);
    cached[22] = (char)('0' + ms % 10);
    buf_add(line, cached, strlen(cached));
}

void log_open(struct buf *line, int64_t wall_ms, const char *event)
{
    buf_add_str(line, "{\"time\":\"");
    add_time(line, wall_ms);
    buf_add_str(line, "\",\"service\":\"");
    buf_add_str(line, log_service);
    buf_add_str(line, "\",\"event\":\"");
    buf_add_str(line, event);
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
    switch (kv->kind) {
    case LOG_KV_SV:
        log_add_sv(line, kv->key, kv->v.sv);
        break;
    case LOG_KV_U64:
        log_add_u64(line, kv->key, kv->v.u64);
        break;
    case LOG_KV_I64:
        log_add_i64(line, kv->key, kv->v.i64);
        break;
    case LOG_KV_BOOL:
        log_add_bool(line, kv->key, kv->v.flag);
        break;
    case LOG_KV_NONE:
        break;
    }
}

void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n)
{
    CLEANUP(buf_deinit) struct buf line = { 0 };
    size_t i = 0;

    buf_init(&line, LOG_LINE_MAX);
    log_open(&line, clock_wall_ms(), event);
    log_add_str(&line, "level", level_names[level]);
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
