#include "common/keyed.h"

#include <string.h>

#include "common/map.h"
#include "common/mem.h"

enum { SHARDS = 1024, SHARD_MIN = 4, FAR = 3 /* a probe is rarely longer */ };

/* One beside the other: who comes for the item has the line with the hash. */
struct place {
    void *item; /* NULL: free */
    uint32_t hash;
} __attribute__((packed, aligned(4)));

/* Open addressing with linear probing. */
struct shard {
    struct place *places;
    uint32_t cap;
    uint32_t live;
};

struct keyed {
    keyed_key_fn key_of;
    struct slab *slab;
    size_t count;
    struct shard shards[SHARDS];
};

struct keyed *keyed_new(keyed_key_fn key_of, struct slab *slab)
{
    struct keyed *k = MEM_NEW(struct keyed);

    k->key_of = key_of;
    k->slab = slab;
    return k;
}

static void places_free(struct slab *slab, struct shard *s)
{
    slab_give(slab, s->places, s->cap * sizeof(*s->places));
    s->places = NULL;
    s->cap = 0;
}

void keyed_free(struct keyed **keyed)
{
    if (*keyed != NULL) {
        for (size_t i = 0; i < SHARDS; i++) {
            places_free((*keyed)->slab, &(*keyed)->shards[i]);
        }
    }
    mem_free(keyed);
}

/* Two independent parts of one hash: which shard, and where in it. */
static const struct shard *shard_of(const struct keyed *k, uint64_t hash)
{
    return &k->shards[(hash >> 32U) % SHARDS];
}

/* Where a probe begins: a scaled hash instead of a remainder, so that cap may be any number. */
static uint32_t home_of(const struct shard *s, uint32_t hash)
{
    return (uint32_t)((uint64_t)hash * s->cap >> 32U);
}

static uint32_t behind(const struct shard *s, uint32_t i)
{
    return i + 1 == s->cap ? 0 : i + 1;
}

/* The place of key, or the free one where the probe ends. s has a free place. */
static uint32_t find(const struct keyed *k, const struct shard *s, uint32_t hash, struct sv key)
{
    uint32_t i = home_of(s, hash);

    while (s->places[i].item != NULL &&
           (s->places[i].hash != hash || !sv_eq(k->key_of(s->places[i].item), key))) {
        i = behind(s, i);
    }
    return i;
}

static void resize(struct slab *slab, struct shard *s, uint32_t cap)
{
    struct shard old = *s;

    s->cap = cap;
    s->places = slab_take(slab, cap * sizeof(*s->places));
    memset(s->places, 0, cap * sizeof(*s->places));
    for (uint32_t i = 0; i < old.cap; i++) {
        if (old.places[i].item != NULL) {
            uint32_t at = home_of(s, old.places[i].hash);

            while (s->places[at].item != NULL) {
                at = behind(s, at);
            }
            s->places[at] = old.places[i];
        }
    }
    places_free(slab, &old);
}

/* At most five of six places are used: the probe always ends. */
static void make_room(struct slab *slab, struct shard *s)
{
    if (((uint64_t)s->live + 1) * 6 > (uint64_t)s->cap * 5) {
        CHECK(s->cap <= UINT32_MAX / 2);
        resize(slab, s, MAX(s->cap + s->cap / 4, (uint32_t)SHARD_MIN));
    }
}

static void give_back(struct slab *slab, struct shard *s)
{
    if (s->live == 0) {
        places_free(slab, s);
    } else if (s->cap > SHARD_MIN && (uint64_t)s->live * 5 < (uint64_t)s->cap * 2) {
        resize(slab, s, MAX(s->live + s->live / 2 + 1, (uint32_t)SHARD_MIN));
    }
}

void *keyed_get(const struct keyed *k, struct sv key)
{
    uint64_t hash = map_hash(key);
    const struct shard *s = shard_of(k, hash);

    return s->live == 0 ? NULL : s->places[find(k, s, (uint32_t)hash, key)].item;
}

void keyed_expect(const struct keyed *k, uint64_t hash)
{
    const struct shard *s = shard_of(k, hash);

    if (s->live != 0) {
        const char *at = (const char *)(s->places + home_of(s, (uint32_t)hash));

        __builtin_prefetch(at);
        __builtin_prefetch(at + FAR * sizeof(struct place)); /* it may be in the next line */
    }
}

const void *keyed_guess(const struct keyed *k, uint64_t hash)
{
    const struct shard *s = shard_of(k, hash);
    uint32_t i = s->live == 0 ? 0 : home_of(s, (uint32_t)hash);

    if (s->live == 0) {
        return NULL;
    }
    while (s->places[i].item != NULL && s->places[i].hash != (uint32_t)hash) {
        i = behind(s, i);
    }
    return s->places[i].item;
}

void *keyed_set(struct keyed *k, void *item)
{
    struct sv key = k->key_of(item);
    uint64_t hash = map_hash(key);
    struct shard *s = base_unconst(shard_of(k, hash));

    make_room(k->slab, s);
    uint32_t at = find(k, s, (uint32_t)hash, key);
    void *before = s->places[at].item;

    if (before == NULL) {
        s->live++;
        k->count++;
    }
    s->places[at].item = item;
    s->places[at].hash = (uint32_t)hash;
    return before;
}

/* Moves those behind the hole that would not be found past it (Knuth, vol. 3, 6.4, algorithm R). */
static void close_hole(struct shard *s, uint32_t hole)
{
    uint32_t i = hole;

    for (;;) {
        i = behind(s, i);
        if (s->places[i].item == NULL) {
            break;
        }
        uint32_t home = home_of(s, s->places[i].hash);
        bool passes = hole < i ? home <= hole || home > i : home <= hole && home > i;

        if (passes) {
            s->places[hole] = s->places[i];
            hole = i;
        }
    }
    s->places[hole].item = NULL;
}

void *keyed_take(struct keyed *k, struct sv key)
{
    uint64_t hash = map_hash(key);
    struct shard *s = base_unconst(shard_of(k, hash));

    if (s->live == 0) {
        return NULL;
    }
    uint32_t at = find(k, s, (uint32_t)hash, key);
    void *item = s->places[at].item;

    if (item != NULL) {
        close_hole(s, at);
        s->live--;
        k->count--;
        give_back(k->slab, s);
    }
    return item;
}

size_t keyed_count(const struct keyed *k)
{
    return k->count;
}

void keyed_each(const struct keyed *k, keyed_each_fn fn, void *arg)
{
    for (size_t i = 0; i < SHARDS; i++) {
        for (uint32_t at = 0; at < k->shards[i].cap; at++) {
            if (k->shards[i].places[at].item != NULL) {
                fn(k->shards[i].places[at].item, arg);
            }
        }
    }
}
