/* log: one JSON line an event on standard error: {"time","level","service","event",…fields}.
 * Event names are dotted lower-case constants; fields are typed, escaped and cut at 1 KiB; there is
 * no way to log a struct secret. A line is one write(2): lines of several threads do not mix.
 * Lines of log_line (access, audit) go to standard output. Any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

enum log_level { LOG_ERROR = 0, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

enum log_kind { LOG_KV_NONE = 0, LOG_KV_SV, LOG_KV_U64, LOG_KV_I64, LOG_KV_BOOL };

struct log_kv {
    const char *key;
    enum log_kind kind;

    union {
        struct sv sv;
        uint64_t u64;
        int64_t i64;
        bool flag;
    } v;
};

#define KV_STR(k, s)  ((struct log_kv){ .key = (k), .kind = LOG_KV_SV, .v.sv = sv_from(s) })
#define KV_SV(k, s)   ((struct log_kv){ .key = (k), .kind = LOG_KV_SV, .v.sv = (s) })
#define KV_U64(k, n)  ((struct log_kv){ .key = (k), .kind = LOG_KV_U64, .v.u64 = (n) })
#define KV_I64(k, n)  ((struct log_kv){ .key = (k), .kind = LOG_KV_I64, .v.i64 = (n) })
#define KV_BOOL(k, b) ((struct log_kv){ .key = (k), .kind = LOG_KV_BOOL, .v.flag = (b) })
#define KV_ERR(e)     KV_STR("error", err_name(e))

/* service: a constant such as "proxy". Before it is called lines carry "postern". */
void log_init(const char *service, enum log_level level);
void log_set_level(enum log_level level);
bool log_wants(enum log_level level);

void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n);

#define LOG_EVENT(level, event, ...)                                      \
    do {                                                                  \
        if (log_wants(level)) {                                           \
            const struct log_kv kv_[] = { { .key = NULL }, __VA_ARGS__ }; \
            log_event((level), (event), kv_ + 1, ARRAY_LEN(kv_) - 1);     \
        }                                                                 \
    } while (0)

/* They read like functions, as everywhere in this field. NOLINTBEGIN(readability-identifier-naming) */
#define log_error(event, ...) LOG_EVENT(LOG_ERROR, event, ##__VA_ARGS__)
#define log_warn(event, ...)  LOG_EVENT(LOG_WARN, event, ##__VA_ARGS__)
#define log_info(event, ...)  LOG_EVENT(LOG_INFO, event, ##__VA_ARGS__)
#define log_debug(event, ...) LOG_EVENT(LOG_DEBUG, event, ##__VA_ARGS__)
#define log_trace(event, ...) LOG_EVENT(LOG_TRACE, event, ##__VA_ARGS__)
/* NOLINTEND(readability-identifier-naming) */

/* Field writers for hot lines (access, audit), which build their text in a buf of their own:
 * log_open starts {"time":…,"service":…,"event":…, each log_add_* appends ,"key":value and
 * log_close ends the line with }\n. key: LOG_KEY("request-id"). */
#define LOG_KEY(name) SV(",\"" name "\":")
void log_open(struct buf *line, int64_t wall_ms, struct sv event);

static inline void log_add_sv(struct buf *line, struct sv key, struct sv v)
{
    enum { VALUE_MAX = 1024 };

    buf_add_sv(line, key);
    buf_add_json(line, v.n > VALUE_MAX ? sv_head(v, VALUE_MAX) : v);
}

static inline void log_add_str(struct buf *line, struct sv key, const char *v)
{
    log_add_sv(line, key, sv_from(v));
}

static inline void log_add_u64(struct buf *line, struct sv key, uint64_t v)
{
    buf_add_sv(line, key);
    buf_add_u64(line, v);
}

void log_add_i64(struct buf *line, struct sv key, int64_t v);
void log_close(struct buf *line);
/* Writes whole lines to standard output. ERR_IO: not all was written. May block: the caller
 * gathers lines and calls it once a loop turn. */
MUST_CHECK enum err log_write_lines(struct sv lines);

/* True at most burst times a second for one place: for errors a peer can repeat at will. */
struct log_limit {
    int64_t second;
    uint32_t count;
    uint32_t dropped;
};

bool log_limit_pass(struct log_limit *limit, uint32_t burst);
