/* slab: memory for a great many small things that live for long: a few bytes of overhead where malloc
 * has sixteen, apart from the memory of short-lived things, and given back to the system when nothing
 * in a piece of it lives any more. Where there are very many, the memory is in huge pages, if the kernel
 * has them. Who takes remembers how much. One thread at a time. */
#pragma once

#include "common/base.h"

struct slab;

struct slab *slab_new(void);
/* With all that is still taken. */
void slab_free(struct slab **slab);
/* n bytes at a multiple of 8, not cleared. Out of memory stops the process, as with mem_alloc. */
void *slab_take(struct slab *slab, size_t n);
/* p is NULL or was taken with the same n. */
void slab_give(struct slab *slab, void *p, size_t n);
/* What it has of the system's memory; a part of it may never have been touched. */
size_t slab_bytes(const struct slab *slab);
