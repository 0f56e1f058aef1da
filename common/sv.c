#include "common/sv.h"

#include <string.h>

static unsigned char lower(char c)
{
    unsigned char u = (unsigned char)c;

    return (u >= 'A' && u <= 'Z') ? (unsigned char)(u | 0x20U) : u;
}

bool sv_eq(struct sv a, struct sv b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool sv_ieq(struct sv a, struct sv b)
{
    return a.n == b.n && sv_istarts(a, b);
}

bool sv_starts(struct sv s, struct sv prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool sv_istarts(struct sv s, struct sv prefix)
{
    size_t i = 0;

    if (s.n < prefix.n) {
        return false;
    }
    for (i = 0; i < prefix.n; i++) {
        if (s.p[i] != prefix.p[i] && lower(s.p[i]) != lower(prefix.p[i])) {
            return false;
        }
    }
    return true;
}

bool sv_ends(struct sv s, struct sv suffix)
{
    return s.n >= suffix.n && sv_eq(sv_from_at(s, s.n - suffix.n), suffix);
}

int sv_cmp(struct sv a, struct sv b)
{
    size_t n = MIN(a.n, b.n);
    int order = n == 0 ? 0 : memcmp(a.p, b.p, n);

    if (order != 0) {
        return order;
    }
    return (a.n > b.n) - (a.n < b.n);
}

size_t sv_rfind(struct sv s, char c)
{
    const char *hit = s.n == 0 ? NULL : memrchr(s.p, c, s.n);

    return hit == NULL ? SIZE_MAX : (size_t)(hit - s.p);
}

size_t sv_search(struct sv s, struct sv needle)
{
    const char *hit = NULL;

    if (needle.n == 0) {
        return 0;
    }
    if (s.n != 0) {
        hit = memmem(s.p, s.n, needle.p, needle.n);
    }
    return hit == NULL ? SIZE_MAX : (size_t)(hit - s.p);
}

struct sv sv_cut(struct sv *s, char c)
{
    size_t at = sv_find(*s, c);
    struct sv piece = *s;

    if (at == SIZE_MAX) {
        *s = (struct sv){ 0 };
        return piece;
    }
    piece.n = at;
    *s = sv_from_at(*s, at + 1);
    return piece;
}

enum err sv_u64(struct sv s, uint64_t max, uint64_t *v_out)
{
    uint64_t v = 0;
    size_t i = 0;

    if (s.n == 0) {
        return ERR_INVALID;
    }
    for (i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

        if (digit > 9) {
            return ERR_INVALID;
        }
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v)) {
            return ERR_LIMIT;
        }
    }
    if (v > max) {
        return ERR_LIMIT;
    }
    *v_out = v;
    return ERR_OK;
}

/* Length of the UTF-8 sequence at p with n bytes left, 0 where it is malformed (RFC 3629 §4). */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    size_t len = 0;
    size_t i = 0;

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
    }
    if (len == 0 || n < len) {
        return 0;
    }
    for (i = 1; i < len; i++) {
        if ((p[i] & 0xc0U) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return len;
}

static bool is_ascii_word(const unsigned char *p, size_t n)
{
    uint64_t x = 0;

    if (n < sizeof(x)) {
        return false;
    }
    memcpy(&x, p, sizeof(x));
    return (x & UINT64_C(0x8080808080808080)) == 0;
}

static bool is_plain_word(uint64_t x)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t del = x ^ (ones * 0x7f);

    return ((((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & (ones * 0x80)) == 0;
}

/* At least 16 bytes, in blocks that the compiler makes vector instructions of. The last block looks
 * again at some of the one before it. */
static bool are_plain_blocks(struct sv s)
{
    uint8_t bad __attribute__((vector_size(16))) = { 0 };
    uint8_t x __attribute__((vector_size(16)));
    uint64_t words[2];

    for (size_t i = 0; i + 16 < s.n; i += 16) {
        memcpy(&x, s.p + i, sizeof(x));
        bad |= (x < 0x20) | (x == 0x7f);
    }
    memcpy(&x, s.p + s.n - 16, sizeof(x));
    bad |= (x < 0x20) | (x == 0x7f);
    memcpy(words, &bad, sizeof(words));
    return (words[0] | words[1]) == 0;
}

bool sv_is_plain(struct sv s)
{
    uint64_t words[2] = { 0 };
    uint32_t halves[2] = { 0 };
    size_t i = 0;

    if (s.n >= 16) {
        return are_plain_blocks(s);
    }
    if (s.n >= 8) { /* front and back of a short text overlap */
        memcpy(&words[0], s.p, 8);
        memcpy(&words[1], s.p + s.n - 8, 8);
        return is_plain_word(words[0]) && is_plain_word(words[1]);
    }
    if (s.n >= 4) {
        memcpy(&halves[0], s.p, 4);
        memcpy(&halves[1], s.p + s.n - 4, 4);
        return is_plain_word((uint64_t)halves[0] << 32U | halves[1]);
    }
    for (i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

bool sv_is_utf8(struct sv s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0;

    while (i < s.n) {
        size_t len = is_ascii_word(p + i, s.n - i) ? 8 : utf8_sequence(p + i, s.n - i);

        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}
