/* arena: memory of one request, freed all at once. A block that was enough for one round is kept for
 * the next, so that a warm arena asks the allocator for nothing. Owned by one thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used;                /* bytes taken of the newest block */
    size_t total;               /* bytes of all blocks, also of those of the round before */
};

void arena_init(struct arena *a);
void arena_deinit(struct arena *a);
/* Forgets every allocation. The next round has one block of as many bytes, at most 64 KiB. */
void arena_reset(struct arena *a);
void *arena_alloc(struct arena *a, size_t n);  /* 16-byte aligned, not cleared */
void *arena_zalloc(struct arena *a, size_t n); /* cleared */
struct sv arena_sv(struct arena *a, struct sv s);
char *arena_str(struct arena *a, struct sv s); /* NUL-terminated copy */
