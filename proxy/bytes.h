/* proxy_bytes: a run of bytes between two sockets, in blocks that a worker lends and takes back, so
 * that an idle connection holds none. One thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum { PROXY_BLOCK = 32768, PROXY_BLOCKS_KEPT = 1024 };

struct proxy_blocks {
    void *first; /* LIFO: the warmest first */
    size_t n;
};

struct proxy_bytes {
    char *p;
    size_t start; /* bytes before it are used up */
    size_t end;
    size_t cap; /* 0: holds no block */
};

void proxy_blocks_deinit(struct proxy_blocks *pool);
/* At least n free bytes at the end; may move what is there, from start, to the block's beginning. */
char *proxy_bytes_room(struct proxy_blocks *pool, struct proxy_bytes *b, size_t n);
void proxy_bytes_add(struct proxy_blocks *pool, struct proxy_bytes *b, struct sv s);
/* Gives the block back; what was in it is gone. */
void proxy_bytes_drop(struct proxy_blocks *pool, struct proxy_bytes *b);

static inline struct sv proxy_bytes_sv(const struct proxy_bytes *b)
{
    return sv_of(b->p == NULL ? "" : b->p + b->start, b->end - b->start);
}

static inline size_t proxy_bytes_n(const struct proxy_bytes *b)
{
    return b->end - b->start;
}
