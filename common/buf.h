/* buf: growing text or bytes with a cap and a sticky error: append freely, ask once at the end.
 * The bytes are not NUL-terminated but by buf_cstr. Owned by one thread. */
#pragma once

#include <stdarg.h>
#include <string.h>

#include "common/base.h"
#include "common/sv.h"

struct buf {
    char *p;
    size_t n;
    size_t cap;   /* at most max + 1 */
    size_t max;   /* beyond it err becomes ERR_LIMIT and nothing is added any more */
    enum err err; /* sticky */
};

void buf_init(struct buf *b, size_t max);
void buf_deinit(struct buf *b); /* frees; usable as CLEANUP(buf_deinit) */
void buf_reset(struct buf *b);  /* empties, keeps the memory, clears the error */
/* Makes room for n more bytes and returns their place, NULL on limit; then buf_grew(b, used). */
char *buf_room_slow(struct buf *b, size_t n);

static inline char *buf_room(struct buf *b, size_t n)
{
    /* One byte stays free for buf_cstr. */
    return b->err == ERR_OK && n < b->cap - b->n ? b->p + b->n : buf_room_slow(b, n);
}

static inline void buf_grew(struct buf *b, size_t n)
{
    CHECK(n < b->cap - b->n || n == 0);
    b->n += n;
}

static inline void buf_add(struct buf *b, const void *p, size_t n)
{
    char *at = buf_room(b, n);

    if (at != NULL && n != 0) {
        CHECK(p != NULL);
        memcpy(at, p, n);
        b->n += n;
    }
}

static inline void buf_add_sv(struct buf *b, struct sv s)
{
    buf_add(b, s.p, s.n);
}

static inline void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

static inline void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

static inline struct sv buf_sv(const struct buf *b)
{
    return sv_of(b->p, b->n);
}

void buf_add_u64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void buf_add_json(struct buf *b, struct sv s);
/* Text for HTML content and double-quoted attributes: & < > " ' are written as references. */
void buf_add_html(struct buf *b, struct sv s);
/* Percent-encodes all but RFC 3986's unreserved characters. */
void buf_add_urlenc(struct buf *b, struct sv s);
void buf_drop_front(struct buf *b, size_t n);
/* ERR_OK and the bytes, or the sticky error. */
MUST_CHECK enum err buf_finish(const struct buf *b, struct sv *sv_out);
/* NUL-terminated view; "" after an error. */
const char *buf_cstr(struct buf *b);
/* Moves the text out as a NUL-terminated string for mem_free; "" after an error. */
char *buf_take(struct buf *b);
