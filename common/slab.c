#include "common/slab.h"

#include <sys/mman.h>

#include "common/list.h"
#include "common/mem.h"

/* The sanitizer sees through malloc, not through this: there everything is malloc's. */
#ifdef __SANITIZE_ADDRESS__
enum { SMALL_MAX = 0 };
#else
enum { SMALL_MAX = 1024 };
#endif

enum { GRAIN = 8, CLASSES = SMALL_MAX / GRAIN + 1, CHUNK = 256 * 1024 };

/* At the beginning of CHUNK bytes that begin at a multiple of CHUNK: things of one size. */
struct chunk {
    struct list in_slab;  /* of slab.chunks */
    struct list in_class; /* of slab.open where it has room */
    void *given;          /* what was given back; each holds the address of the next */
    uint32_t bumped;      /* offset of what was never taken */
    uint32_t live;
    uint32_t size;
};

/* Before a thing that is too large for a chunk. */
struct large {
    struct list in_slab;
    char bytes[] __attribute__((aligned(16)));
};

struct slab {
    struct list chunks;
    struct list large;
    struct list open[CLASSES];
    size_t bytes;
};

struct slab *slab_new(void)
{
    struct slab *slab = MEM_NEW(struct slab);

    list_init(&slab->chunks);
    list_init(&slab->large);
    for (size_t i = 0; i < CLASSES; i++) {
        list_init(&slab->open[i]);
    }
    return slab;
}

void slab_free(struct slab **slab)
{
    struct slab *s = TAKE(*slab);
    struct list *it;
    struct list *tmp;

    if (s == NULL) {
        return;
    }
    LIST_FOREACH_SAFE(it, tmp, &s->large) {
        struct large *large = LIST_ENTRY(it, struct large, in_slab);

        mem_free(&large);
    }
    LIST_FOREACH_SAFE(it, tmp, &s->chunks) {
        CHECK(munmap(LIST_ENTRY(it, struct chunk, in_slab), CHUNK) == 0);
    }
    mem_free(&s);
}

/* --- chunks ----------------------------------------------------------------------------------- */

/* mmap knows no alignment: twice as much is mapped and what sticks out is unmapped. */
static void *map_chunk(void)
{
    char *p =
        mmap(NULL, 2 * (size_t)CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    size_t before = (CHUNK - ((uintptr_t)p & (CHUNK - 1))) & (CHUNK - 1);

    CHECK(before == 0 || munmap(p, before) == 0);
    CHECK(munmap(p + before + CHUNK, CHUNK - before) == 0);
    return p + before;
}

static struct chunk *chunk_new(struct slab *slab, size_t size)
{
    struct chunk *c = map_chunk();

    *c = (struct chunk){ .bumped = sizeof(*c), .size = (uint32_t)size };
    list_push_back(&slab->chunks, &c->in_slab);
    list_push_back(&slab->open[size / GRAIN], &c->in_class);
    slab->bytes += CHUNK;
    return c;
}

static bool is_full(const struct chunk *c)
{
    return c->given == NULL && c->bumped + c->size > CHUNK;
}

static void *chunk_take(struct chunk *c)
{
    void *p = c->given;

    if (p != NULL) {
        memcpy(&c->given, p, sizeof(c->given));
    } else {
        p = (char *)c + c->bumped;
        c->bumped += c->size;
    }
    c->live++;
    if (is_full(c)) {
        list_remove(&c->in_class);
    }
    return p;
}

/* The last open one of its size stays: one thing that comes and goes would map and unmap it. */
static void chunk_free_if_empty(struct slab *slab, struct chunk *c)
{
    const struct list *open = &slab->open[c->size / GRAIN];

    if (c->live == 0 && open->next != open->prev) {
        list_remove(&c->in_class);
        list_remove(&c->in_slab);
        CHECK(munmap(c, CHUNK) == 0);
        slab->bytes -= CHUNK;
    }
}

static void chunk_give(struct slab *slab, struct chunk *c, void *p)
{
    bool full = is_full(c);

    memcpy(p, &c->given, sizeof(c->given));
    c->given = p;
    c->live--;
    if (full) {
        list_push_back(&slab->open[c->size / GRAIN], &c->in_class);
    }
    chunk_free_if_empty(slab, c);
}

/* --- the whole -------------------------------------------------------------------------------- */

static size_t class_size(size_t n)
{
    return (MAX(n, (size_t)GRAIN) + GRAIN - 1) / GRAIN * GRAIN;
}

void *slab_take(struct slab *slab, size_t n)
{
    size_t size = class_size(n);

    if (size > SMALL_MAX) {
        struct large *large = mem_alloc(sizeof(*large) + n);

        list_push_back(&slab->large, &large->in_slab);
        slab->bytes += sizeof(*large) + n;
        return large->bytes;
    }
    struct list *open = &slab->open[size / GRAIN];

    return chunk_take(list_empty(open) ? chunk_new(slab, size)
                                       : LIST_ENTRY(open->next, struct chunk, in_class));
}

void slab_give(struct slab *slab, void *p, size_t n)
{
    size_t size = class_size(n);

    if (p == NULL) {
        return;
    }
    if (size > SMALL_MAX) {
        struct large *large = CONTAINER_OF(p, struct large, bytes);

        list_remove(&large->in_slab);
        slab->bytes -= sizeof(*large) + n;
        mem_free(&large);
        return;
    }
    struct chunk *c = (void *)((char *)p - ((uintptr_t)p & (CHUNK - 1)));

    CHECK(c->size == size && c->live > 0);
    chunk_give(slab, c, p);
}

size_t slab_bytes(const struct slab *slab)
{
    return slab->bytes;
}
