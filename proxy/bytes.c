#include "proxy/bytes.h"

#include <string.h>

#include "common/mem.h"

struct block {
    struct block *next;
};

void proxy_blocks_deinit(struct proxy_blocks *pool)
{
    while (pool->first != NULL) {
        struct block *b = pool->first;

        pool->first = b->next;
        mem_free(&b);
    }
    pool->n = 0;
}

static char *block_get(struct proxy_blocks *pool)
{
    struct block *b = pool->first;

    if (b == NULL) {
        return mem_alloc(PROXY_BLOCK);
    }
    pool->first = b->next;
    pool->n--;
    return (char *)b;
}

static void block_put(struct proxy_blocks *pool, char *p, size_t cap)
{
    struct block *b = (struct block *)(void *)p;

    if (cap != PROXY_BLOCK || pool->n >= PROXY_BLOCKS_KEPT) {
        mem_free(&p);
        return;
    }
    b->next = pool->first;
    pool->first = b;
    pool->n++;
}

char *proxy_bytes_room(struct proxy_blocks *pool, struct proxy_bytes *b, size_t n)
{
    size_t have = b->end - b->start;
    size_t cap = 0;
    char *p = NULL;

    if (b->cap - b->end >= n && b->cap != 0) {
        return b->p + b->end;
    }
    if (b->cap != 0 && b->cap - have >= n) {
        memmove(b->p, b->p + b->start, have);
        b->start = 0;
        b->end = have;
        return b->p + b->end;
    }
    CHECK(have <= SIZE_MAX / 4 && n <= SIZE_MAX / 4);
    cap = have + n <= PROXY_BLOCK ? PROXY_BLOCK : (have + n) + (have + n) / 2;
    p = cap == PROXY_BLOCK ? block_get(pool) : mem_alloc(cap);
    if (have != 0) {
        memcpy(p, b->p + b->start, have);
    }
    if (b->cap != 0) {
        block_put(pool, b->p, b->cap);
    }
    *b = (struct proxy_bytes){ .p = p, .end = have, .cap = cap };
    return b->p + b->end;
}

void proxy_bytes_add(struct proxy_blocks *pool, struct proxy_bytes *b, struct sv s)
{
    if (s.n == 0) {
        return;
    }
    memcpy(proxy_bytes_room(pool, b, s.n), s.p, s.n);
    b->end += s.n;
}

void proxy_bytes_drop(struct proxy_blocks *pool, struct proxy_bytes *b)
{
    if (b->cap != 0) {
        block_put(pool, b->p, b->cap);
    }
    *b = (struct proxy_bytes){ 0 };
}
