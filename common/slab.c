#include "common/slab.h"

#include <sys/mman.h>

#include "common/list.h"
#include "common/mem.h"

/* The sanitizer sees through malloc, not through this: there everything is malloc's. */
#ifdef __SANITIZE_ADDRESS__
enum { SMALL_MAX = 0, MIDDLE_MAX = 0 };
#else
enum { SMALL_MAX = 1024, MIDDLE_MAX = 32 * 1024 };
#endif

enum {
    GRAIN = 8,
    LINE = 64,          /* of the processor's caches */
    MIDDLE_GRAIN = 512, /* of what is larger than SMALL_MAX */
    SMALL_CLASSES = SMALL_MAX / GRAIN + 1,
    CLASSES = SMALL_CLASSES + (MIDDLE_MAX - SMALL_MAX) / MIDDLE_GRAIN,
    CHUNK = 256 * 1024,
    CHUNKS = 8,
    REGION = CHUNKS * CHUNK,
    /* Regions in small pages before those in huge ones: a huge page is there as a whole from the
     * first byte on, and those with few things must not pay for that. */
    MODEST = 4
};

/* REGION bytes that begin at a multiple of REGION, the size of a huge page: the processor finds its way
 * to each of a million things without a walk through tables of pages. */
struct region {
    struct list in_slab; /* of slab.regions */
    struct list in_free; /* of slab.free where a chunk is not used */
    char *bytes;
    unsigned used; /* chunks, a bit each */
    bool huge;     /* it goes back as a whole: a huge page that loses a part becomes small ones */
};

/* At the beginning of CHUNK bytes that begin at a multiple of CHUNK: things of one size. It takes a LINE, so
 * that things of so many lines lie in no more of them. */
struct chunk {
    struct region *region;
    struct list in_class; /* of slab.open where it has room */
    void *given;          /* what was given back; each holds the address of the next */
    uint32_t bumped;      /* offset of what was never taken */
    uint32_t live;
    uint32_t size;
};

_Static_assert(sizeof(struct chunk) <= LINE, "a chunk's things begin behind it");

/* Before a thing that is too large for a chunk. */
struct large {
    struct list in_slab;
    char bytes[] __attribute__((aligned(16)));
};

struct slab {
    struct list regions;
    struct list free;
    size_t n_regions;
    struct list large;
    struct list open[CLASSES];
    size_t bytes;
};

/* --- regions ---------------------------------------------------------------------------------- */

/* mmap knows no alignment: twice as much is mapped and what sticks out is unmapped. */
static void *map_region(void)
{
    char *p =
        mmap(NULL, 2 * (size_t)REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    size_t before = (REGION - ((uintptr_t)p & (REGION - 1))) & (REGION - 1);

    CHECK(before == 0 || munmap(p, before) == 0);
    CHECK(munmap(p + before + REGION, REGION - before) == 0);
    return p + before;
}

static struct region *region_new(struct slab *slab)
{
    struct region *r = MEM_NEW(struct region);

    r->bytes = map_region();
    r->huge = slab->n_regions >= MODEST;
    /* A wish: a kernel that knows no huge pages says no. */
    (void)madvise(r->bytes, REGION, r->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    list_push_back(&slab->regions, &r->in_slab);
    list_push_back(&slab->free, &r->in_free);
    slab->n_regions++;
    slab->bytes += r->huge ? REGION : 0;
    return r;
}

static void region_free(struct slab *slab, struct region *r)
{
    list_remove(&r->in_slab);
    list_remove(&r->in_free);
    CHECK(munmap(r->bytes, REGION) == 0);
    slab->n_regions--;
    slab->bytes -= r->huge ? REGION : 0;
    mem_free(&r);
}

/* --- chunks ----------------------------------------------------------------------------------- */

static size_t class_of(size_t size)
{
    return size <= SMALL_MAX ? size / GRAIN : SMALL_CLASSES + (size - SMALL_MAX - 1) / MIDDLE_GRAIN;
}

static struct chunk *chunk_new(struct slab *slab, size_t size)
{
    struct region *r = list_empty(&slab->free)
                           ? region_new(slab)
                           : LIST_ENTRY(slab->free.next, struct region, in_free);
    unsigned i = (unsigned)__builtin_ctz(~r->used);
    struct chunk *c = (void *)(r->bytes + (size_t)i * CHUNK);

    r->used |= 1U << i;
    if (r->used == (1U << CHUNKS) - 1) {
        list_remove(&r->in_free);
    }
    *c = (struct chunk){ .region = r, .bumped = LINE, .size = (uint32_t)size };
    list_push_back(&slab->open[class_of(size)], &c->in_class);
    slab->bytes += r->huge ? 0 : CHUNK;
    return c;
}

/* The last region that has room stays: what comes and goes would map and unmap it. */
static void chunk_free(struct slab *slab, struct chunk *c)
{
    struct region *r = c->region;
    size_t i = (size_t)((char *)c - r->bytes) / CHUNK;

    list_remove(&c->in_class);
    if (r->used == (1U << CHUNKS) - 1) {
        list_push_back(&slab->free, &r->in_free);
    }
    r->used &= ~(1U << i);
    slab->bytes -= r->huge ? 0 : CHUNK;
    if (r->used == 0 && slab->free.next != slab->free.prev) {
        region_free(slab, r);
    } else if (!r->huge) {
        CHECK(madvise(c, CHUNK, MADV_DONTNEED) == 0);
    }
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

/* Of small pages the last open one of a size stays: one thing that comes and goes would fetch them from
 * the system and give them back. A table that grows is done with its sizes. */
static void chunk_free_if_empty(struct slab *slab, struct chunk *c)
{
    const struct list *open = &slab->open[class_of(c->size)];

    if (c->live == 0 && (c->region->huge || c->size > SMALL_MAX || open->next != open->prev)) {
        chunk_free(slab, c);
    }
}

static void chunk_give(struct slab *slab, struct chunk *c, void *p)
{
    bool full = is_full(c);

    memcpy(p, &c->given, sizeof(c->given));
    c->given = p;
    c->live--;
    if (full) {
        list_push_back(&slab->open[class_of(c->size)], &c->in_class);
    }
    chunk_free_if_empty(slab, c);
}

/* --- the whole -------------------------------------------------------------------------------- */

struct slab *slab_new(void)
{
    struct slab *slab = MEM_NEW(struct slab);

    list_init(&slab->regions);
    list_init(&slab->free);
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
    LIST_FOREACH_SAFE(it, tmp, &s->regions) {
        region_free(s, LIST_ENTRY(it, struct region, in_slab));
    }
    mem_free(&s);
}

/* What n bytes take; 0: it is too large for a chunk. */
static size_t size_of(size_t n)
{
    size_t least = MAX(n, (size_t)1);
    size_t grain = least <= SMALL_MAX ? GRAIN : MIDDLE_GRAIN;

    return least <= MIDDLE_MAX ? (least + grain - 1) / grain * grain : 0;
}

void *slab_take(struct slab *slab, size_t n)
{
    size_t size = size_of(n);

    if (size == 0) {
        struct large *large = mem_alloc(sizeof(*large) + n);

        list_push_back(&slab->large, &large->in_slab);
        slab->bytes += sizeof(*large) + n;
        return large->bytes;
    }
    struct list *open = &slab->open[class_of(size)];

    return chunk_take(list_empty(open) ? chunk_new(slab, size)
                                       : LIST_ENTRY(open->next, struct chunk, in_class));
}

void slab_give(struct slab *slab, void *p, size_t n)
{
    size_t size = size_of(n);

    if (p == NULL) {
        return;
    }
    if (size == 0) {
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
