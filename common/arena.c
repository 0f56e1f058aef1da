#include "common/arena.h"

#include <string.h>

#include "common/mem.h"

enum { ARENA_BLOCK = 4096, ARENA_KEEP = 65536, ARENA_ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t size;
    _Alignas(ARENA_ALIGN) char data[];
};

void arena_init(struct arena *a)
{
    *a = (struct arena){ 0 };
}

void arena_deinit(struct arena *a)
{
    while (a->blocks != NULL) {
        struct arena_block *b = a->blocks;

        a->blocks = b->next;
        mem_free(&b);
    }
    *a = (struct arena){ 0 };
}

void arena_reset(struct arena *a)
{
    size_t total = MIN(a->total, (size_t)ARENA_KEEP);

    a->used = 0;
    if (a->blocks != NULL && (a->blocks->next != NULL || a->blocks->size > ARENA_KEEP)) {
        arena_deinit(a);
        a->total = total; /* what add_block begins with */
    }
}

static void add_block(struct arena *a, size_t need)
{
    size_t size = MAX(need, MIN(MAX(a->total, (size_t)ARENA_BLOCK), (size_t)ARENA_KEEP));
    struct arena_block *b = mem_alloc(sizeof(*b) + size);

    a->total = (a->blocks == NULL ? 0 : a->total) + size;
    b->next = a->blocks;
    b->size = size;
    a->blocks = b;
    a->used = 0;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need = (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    void *p = NULL;

    CHECK(need >= n);
    if (a->blocks == NULL || a->blocks->size - a->used < need) {
        add_block(a, need);
    }
    p = a->blocks->data + a->used;
    a->used += need;
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    return memset(arena_alloc(a, n), 0, n);
}

struct sv arena_sv(struct arena *a, struct sv s)
{
    return sv_of(arena_str(a, s), s.n);
}

char *arena_str(struct arena *a, struct sv s)
{
    char *p = arena_alloc(a, s.n + 1);

    if (s.n != 0) {
        memcpy(p, s.p, s.n);
    }
    p[s.n] = '\0';
    return p;
}
