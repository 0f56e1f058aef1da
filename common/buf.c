#include "common/buf.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"

enum { BUF_FIRST = 256 };

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_deinit(struct buf *b)
{
    mem_free(&b->p);
    b->n = 0;
    b->cap = 0;
}

void buf_reset(struct buf *b)
{
    b->n = 0;
    b->err = ERR_OK;
}

char *buf_room_slow(struct buf *b, size_t n)
{
    size_t want = 0;

    if (b->err != ERR_OK) {
        return NULL;
    }
    if (n > b->max || b->n > b->max - n) {
        b->err = ERR_LIMIT;
        return NULL;
    }
    want = b->n + n + 1; /* one more for buf_cstr */
    if (want > b->cap) {
        size_t cap = MAX(b->cap * 2, (size_t)BUF_FIRST);

        cap = MIN(MAX(cap, want), b->max + 1);
        b->p = mem_realloc(b->p, cap, 1);
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char digits[20]; /* of UINT64_MAX */
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    buf_add(b, digits + at, sizeof(digits) - at);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    int n = 0;

    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        b->err = b->err == ERR_OK ? ERR_INTERNAL : b->err;
        return;
    }
    if (buf_room(b, (size_t)n) != NULL) {
        (void)vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
        b->n += (size_t)n;
    }
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

/* 1: stands for itself in a JSON string; 0: needs an escape; 2: may begin a UTF-8 sequence. */
static const unsigned char json_class[256] = {
    [' '] = 1, ['!'] = 1, ['#' ... '['] = 1, [']' ... '~'] = 1, [0xc2 ... 0xf4] = 2,
};

struct block {
    unsigned char v __attribute__((vector_size(16)));
};

/* Sixteen bytes that all stand for themselves. */
static bool is_plain(struct block x)
{
    struct block special;
    uint64_t halves[2];

    special.v = (x.v - 0x20 > 0x7e - 0x20) | (x.v == '"') | (x.v == '\\');
    memcpy(halves, &special, sizeof(halves));
    return (halves[0] | halves[1]) == 0;
}

static bool is_plain_block(const char *p)
{
    struct block x;

    memcpy(&x, p, sizeof(x));
    return is_plain(x);
}

static bool is_plain_pair(const uint64_t words[2])
{
    const uint64_t pair __attribute__((vector_size(16))) = { words[0], words[1] };
    struct block x;

    memcpy(&x, &pair, sizeof(x));
    return is_plain(x);
}

/* Longest valid UTF-8 prefix of s that needs no escape. */
static size_t json_plain(struct sv s)
{
    size_t i = 0;

    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = 1;

        if (s.n - i >= sizeof(struct block) && is_plain_block(s.p + i)) {
            i += sizeof(struct block);
            continue;
        }
        if (json_class[c] == 1) {
            i++;
            continue;
        }
        if (json_class[c] == 0) {
            break;
        }
        len = c >= 0xf0 ? 4 : (c >= 0xe0 ? 3 : 2);
        if (s.n - i < len || !sv_is_utf8(sv_of(s.p + i, len))) {
            break;
        }
        i += len;
    }
    return i;
}

static void json_escape(struct buf *b, unsigned char c)
{
    switch (c) {
    case '"':
        buf_add_str(b, "\\\"");
        break;
    case '\\':
        buf_add_str(b, "\\\\");
        break;
    case '\n':
        buf_add_str(b, "\\n");
        break;
    case '\r':
        buf_add_str(b, "\\r");
        break;
    case '\t':
        buf_add_str(b, "\\t");
        break;
    default:
        if (c >= 0x80) {
            buf_add_str(b, "\\ufffd");
        } else {
            buf_printf(b, "\\u%04x", c);
        }
    }
}

/* Ids, names, addresses: nothing to be escaped. Front and back of a short text overlap, and so do the last
 * two blocks of a long one. */
static bool is_all_plain(struct sv s)
{
    enum { BLOCK = sizeof(struct block) };

    uint64_t words[2] = { 0 };
    uint32_t halves[2] = { 0 };
    size_t i = 0;

    if (s.n >= BLOCK) {
        for (i = 0; i + BLOCK < s.n; i += BLOCK) {
            if (!is_plain_block(s.p + i)) {
                return false;
            }
        }
        return is_plain_block(s.p + s.n - BLOCK);
    }
    if (s.n >= sizeof(words[0])) {
        memcpy(&words[0], s.p, sizeof(words[0]));
        memcpy(&words[1], s.p + s.n - sizeof(words[1]), sizeof(words[1]));
        return is_plain_pair(words);
    }
    if (s.n >= sizeof(halves[0])) {
        memcpy(&halves[0], s.p, sizeof(halves[0]));
        memcpy(&halves[1], s.p + s.n - sizeof(halves[1]), sizeof(halves[1]));
        words[0] = (uint64_t)halves[0] << 32U | halves[1];
        words[1] = words[0];
        return is_plain_pair(words);
    }
    while (i < s.n && json_class[(unsigned char)s.p[i]] == 1) {
        i++;
    }
    return i == s.n;
}

static void add_quoted(struct buf *b, struct sv s)
{
    char *at = buf_room(b, s.n + 2);

    if (at == NULL) {
        return;
    }
    at[0] = '"';
    if (s.n != 0) {
        memcpy(at + 1, s.p, s.n);
    }
    at[s.n + 1] = '"';
    buf_grew(b, s.n + 2);
}

void buf_add_json(struct buf *b, struct sv s)
{
    if (is_all_plain(s)) {
        add_quoted(b, s);
        return;
    }
    buf_add_char(b, '"');
    while (s.n > 0) {
        size_t plain = json_plain(s);

        buf_add(b, s.p, plain);
        s = sv_from_at(s, plain);
        if (s.n > 0) {
            json_escape(b, (unsigned char)s.p[0]);
            s = sv_from_at(s, 1);
        }
    }
    buf_add_char(b, '"');
}

void buf_add_html(struct buf *b, struct sv s)
{
    size_t i = 0;

    for (i = 0; i < s.n; i++) {
        switch (s.p[i]) {
        case '&':
            buf_add_str(b, "&amp;");
            break;
        case '<':
            buf_add_str(b, "&lt;");
            break;
        case '>':
            buf_add_str(b, "&gt;");
            break;
        case '"':
            buf_add_str(b, "&quot;");
            break;
        case '\'':
            buf_add_str(b, "&#39;");
            break;
        default:
            buf_add_char(b, s.p[i]);
        }
    }
}

void buf_add_urlenc(struct buf *b, struct sv s)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t i = 0;

    for (i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            c == '-' || c == '.' || c == '_' || c == '~') {
            buf_add_char(b, (char)c);
        } else {
            buf_add_char(b, '%');
            buf_add_char(b, hex[c >> 4U]);
            buf_add_char(b, hex[c & 15U]);
        }
    }
}

void buf_drop_front(struct buf *b, size_t n)
{
    CHECK(n <= b->n);
    if (n == 0) {
        return;
    }
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

enum err buf_finish(const struct buf *b, struct sv *sv_out)
{
    if (b->err == ERR_OK) {
        *sv_out = buf_sv(b);
    }
    return b->err;
}

const char *buf_cstr(struct buf *b)
{
    if (b->err != ERR_OK || b->p == NULL) {
        return "";
    }
    b->p[b->n] = '\0';
    return b->p;
}

char *buf_take(struct buf *b)
{
    char *text = mem_strdup(buf_cstr(b));

    buf_deinit(b);
    return text;
}
