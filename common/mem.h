/* mem: allocation that never returns NULL: out of memory stops the process, which the supervisor
 * restarts. Sizes that come from outside go through a bounded buf, never straight to here.
 * Any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

void *mem_alloc(size_t n);
void *mem_zalloc(size_t n);
/* count * size bytes, zeroed; an overflow stops the process. */
void *mem_array(size_t count, size_t size);
/* The same at a multiple of align, which divides size; grows by nothing but a new one. */
void *mem_aligned_array(size_t count, size_t size, size_t align);
void *mem_realloc(void *p, size_t count, size_t size);
void *mem_dup(const void *p, size_t n);
char *mem_strdup(const char *s);
/* A NUL-terminated copy; the text must hold no NUL (checked). */
char *mem_svdup(struct sv s);
/* Frees *p and sets it NULL; p is the address of any pointer: usable as CLEANUP(mem_free). */
void mem_free(void *p);

/* Frees what a library allocated with malloc and handed over. */
void mem_release(void *p);

#define MEM_NEW(type) ((type *)mem_zalloc(sizeof(type)))

/* Asks for n bytes from p to be brought into the processor's caches; nobody waits for them. */
static inline void mem_bring(const void *p, size_t n)
{
    enum { LINE = 64 };

    const char *from = (const char *)p - ((uintptr_t)p & (LINE - 1));

    for (const char *at = from; at < (const char *)p + n; at += LINE) {
        __builtin_prefetch(at);
    }
}
