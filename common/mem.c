#include "common/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

NORETURN static void out_of_memory(size_t n)
{
    (void)fprintf(stderr, "{\"level\":\"error\",\"event\":\"out-of-memory\",\"bytes\":%zu}\n", n);
    abort();
}

void *mem_alloc(size_t n)
{
    void *p = malloc(n == 0 ? 1 : n);

    if (p == NULL) {
        out_of_memory(n);
    }
    return p;
}

void *mem_zalloc(size_t n)
{
    return mem_array(1, n);
}

void *mem_array(size_t count, size_t size)
{
    void *p = calloc(count == 0 ? 1 : count, size == 0 ? 1 : size);

    if (p == NULL) {
        out_of_memory(size);
    }
    return p;
}

void *mem_aligned_array(size_t count, size_t size, size_t align)
{
    size_t n = 0;
    void *p = NULL;

    CHECK(!__builtin_mul_overflow(count == 0 ? 1 : count, size, &n) && size % align == 0);
    p = aligned_alloc(align, n);
    if (p == NULL) {
        out_of_memory(n);
    }
    memset(p, 0, n);
    return p;
}

void *mem_realloc(void *p, size_t count, size_t size)
{
    void *q = reallocarray(p, count == 0 ? 1 : count, size == 0 ? 1 : size);

    if (q == NULL) {
        out_of_memory(size);
    }
    return q;
}

void *mem_dup(const void *p, size_t n)
{
    void *q = mem_alloc(n);

    if (n != 0) {
        memcpy(q, p, n);
    }
    return q;
}

char *mem_strdup(const char *s)
{
    return mem_dup(s, strlen(s) + 1);
}

char *mem_svdup(struct sv s)
{
    char *p = mem_alloc(s.n + 1);

    if (s.n != 0) {
        CHECK(memchr(s.p, '\0', s.n) == NULL);
        memcpy(p, s.p, s.n);
    }
    p[s.n] = '\0';
    return p;
}

void mem_free(void *p)
{
    void **slot = p;

    free(*slot);
    *slot = NULL;
}

void mem_release(void *p)
{
    free(p);
}
