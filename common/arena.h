/* arena: memory of one request, freed all at once. Blocks are kept across arena_reset, so that a
 * warm arena asks the allocator for nothing. Owned by one thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used;                /* bytes taken of the newest block */
    size_t total;               /* bytes of all blocks */
};

void arena_init(struct arena *a);
void arena_deinit(struct arena *a);
/* Forgets every allocation; keeps one block of up to 64 KiB for the next round. */
void arena_reset(struct arena *a);
void *arena_alloc(struct arena *a, size_t n);  /* 16-byte aligned, not cleared */
void *arena_zalloc(struct arena *a, size_t n); /* cleared */
struct sv arena_sv(struct arena *a, struct sv s);
char *arena_str(struct arena *a, struct sv s); /* NUL-terminated copy */
