/* base: what every file needs: error codes, attributes, assertions, scope guards.
 * Nothing here allocates or does I/O, but check_failed, which stops the process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK        __attribute__((warn_unused_result))
#define NORETURN          __attribute__((noreturn))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define ARRAY_LEN(a)      (sizeof(a) / sizeof((a)[0]))
#define BIT(n)            (1U << (unsigned)(n))
#define MIN(a, b)         ((a) < (b) ? (a) : (b))
#define MAX(a, b)         ((a) > (b) ? (a) : (b))

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Every fallible function returns one of these; the edge maps them to HTTP or gRPC status. */
enum err {
    ERR_OK = 0,
    ERR_INVALID,     /* the input breaks its grammar or its rules */
    ERR_LIMIT,       /* a bound on count, size, depth was reached */
    ERR_NOT_FOUND,   /* no such thing */
    ERR_EXISTS,      /* it is there already, or somebody else holds it */
    ERR_DENIED,      /* the caller may not */
    ERR_EXPIRED,     /* it was valid once */
    ERR_TIMEOUT,     /* a wait had its bound */
    ERR_UNAVAILABLE, /* a peer or a resource is not there now; trying later may help */
    ERR_IO,          /* file or socket failed */
    ERR_CRYPTO,      /* a signature, tag or key does not fit */
    ERR_UNSUPPORTED, /* known, but not built */
    ERR_CANCELLED,   /* the caller gave up */
    ERR_AGAIN,       /* not complete yet: more input or a later call is needed */
    ERR_ABORTED,     /* a state both sides relied on is gone: start over */
    ERR_INTERNAL     /* our own bug, reported instead of trusted */
};

/* Stable lower-case name for logs, never NULL. */
const char *err_name(enum err err);

/* For our own bugs only: input, peers and files must never reach it. */
#define CHECK(cond)                                  \
    do {                                             \
        if (__builtin_expect(!(cond), 0)) {          \
            check_failed(#cond, __FILE__, __LINE__); \
        }                                            \
    } while (0)

NORETURN void check_failed(const char *cond, const char *file, int line);

/* CLEANUP(x_free) struct x *p = …;  frees p at scope end. TAKE(p) hands p on and leaves NULL. */
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define TAKE(p)                     \
    __extension__({                 \
        __typeof__(p) taken_ = (p); \
        (p) = NULL;                 \
        taken_;                     \
    })

/* For libraries that take a pointer without const and only read. */
static inline void *base_unconst(const void *p)
{
    union {
        const void *as_given;
        void *as_wanted;
    } u = { .as_given = p };

    return u.as_wanted;
}
