/* sv: a borrowed run of bytes with a length. Wire data is never a C string: it may hold NUL, and
 * nothing here reads beyond n. The zero value is the empty text. Pure functions; any thread. */
#pragma once

#include <string.h>

#include "common/base.h"

struct sv {
    const char *p;
    size_t n;
};

#define SV(lit) ((struct sv){ .p = (lit), .n = sizeof(lit) - 1 })
/* For printf's "%.*s" with text that we made; never with bytes from outside. */
#define SV_ARG(s) (int)(s).n, (s).p

static inline struct sv sv_of(const void *p, size_t n)
{
    return (struct sv){ .p = (const char *)p, .n = n };
}

/* NULL gives the empty text. */
static inline struct sv sv_from(const char *s)
{
    return sv_of(s, s == NULL ? 0 : strlen(s));
}

bool sv_eq(struct sv a, struct sv b);

/* The rest from start; start <= n. */
static inline struct sv sv_from_at(struct sv s, size_t start)
{
    CHECK(start <= s.n);
    return start == 0 ? s : sv_of(s.p + start, s.n - start);
}

/* The first n bytes; n <= s.n. */
static inline struct sv sv_head(struct sv s, size_t n)
{
    CHECK(n <= s.n);
    return sv_of(s.p, n);
}

/* ASCII case-insensitive. */
bool sv_ieq(struct sv a, struct sv b);
bool sv_starts(struct sv s, struct sv prefix);
bool sv_istarts(struct sv s, struct sv prefix);
bool sv_ends(struct sv s, struct sv suffix);
int sv_cmp(struct sv a, struct sv b); /* byte order, shorter first */

/* Index of the first c, or needle; SIZE_MAX where there is none. */
static inline size_t sv_find(struct sv s, char c)
{
    const char *hit = s.n == 0 ? NULL : (const char *)memchr(s.p, c, s.n);

    return hit == NULL ? SIZE_MAX : (size_t)(hit - s.p);
}

size_t sv_rfind(struct sv s, char c);
size_t sv_search(struct sv s, struct sv needle);

/* Without SP and HTAB at both ends. */
static inline struct sv sv_trim(struct sv s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

/* Splits *s at the first c: returns what stood before it and leaves the rest in *s. At the end
 * returns the last piece and sets s->p NULL: loop while (s.p != NULL). */
struct sv sv_cut(struct sv *s, char c);
/* Decimal digits only, the whole text; ERR_INVALID or ERR_LIMIT (over max). */
MUST_CHECK enum err sv_u64(struct sv s, uint64_t max, uint64_t *v_out);
/* No control byte: none below 0x20, none 0x7f. */
bool sv_is_plain(struct sv s);
bool sv_is_utf8(struct sv s); /* RFC 3629: no overlong forms, no surrogates */
