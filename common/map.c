#include "common/map.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

#include "common/mem.h"
#include "common/rand.h"

enum { MAP_FIRST = 16 };

struct slot {
    uint64_t hash;
    char *key;
    size_t n;
    void *value; /* NULL: never used, or removed (then key is NULL too) */
    bool dead;   /* removed: a probe goes on behind it */
};

struct map {
    struct slot *slots;
    size_t cap; /* a power of two */
    size_t live;
    size_t used; /* live and dead */
};

static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_seed(void)
{
    rand_bytes(hash_key, sizeof(hash_key));
}

static uint64_t rotl(uint64_t x, unsigned b)
{
    return x << b | x >> (64U - b);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

/* The bytes behind the last whole word. */
static uint64_t last_bytes(struct sv key)
{
    size_t n = key.n % 8;
    uint64_t v = 0;

    if (n != 0 && key.n > 8) { /* in one step, with some of the word before */
        memcpy(&v, key.p + key.n - 8, 8);
        return le64toh(v) >> 8U * (8 - n);
    }
    for (size_t i = key.n - n; i < key.n; i++) {
        v |= (uint64_t)(unsigned char)key.p[i] << 8U * (i % 8);
    }
    return v;
}

/* SipHash-1-3 (Aumasson, Bernstein 2012; fewer rounds as in common hash tables). */
uint64_t map_hash(struct sv key)
{
    uint64_t v[4];
    uint64_t tail = (uint64_t)key.n << 56U;
    size_t i = 0;
    size_t words = key.n / 8;

    (void)pthread_once(&hash_once, hash_seed);
    v[0] = hash_key[0] ^ 0x736f6d6570736575ULL;
    v[1] = hash_key[1] ^ 0x646f72616e646f6dULL;
    v[2] = hash_key[0] ^ 0x6c7967656e657261ULL;
    v[3] = hash_key[1] ^ 0x7465646279746573ULL;
    for (i = 0; i < words; i++) {
        uint64_t m = 0;

        memcpy(&m, key.p + i * 8, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    tail |= last_bytes(key);
    v[3] ^= tail;
    sip_round(v);
    v[0] ^= tail;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct map *map_new(void)
{
    struct map *map = MEM_NEW(struct map);

    map->cap = MAP_FIRST;
    map->slots = mem_array(map->cap, sizeof(*map->slots));
    return map;
}

void map_free(struct map **map)
{
    struct map *m = TAKE(*map);
    size_t i = 0;

    if (m == NULL) {
        return;
    }
    for (i = 0; i < m->cap; i++) {
        mem_free(&m->slots[i].key);
    }
    mem_free(&m->slots);
    mem_free(&m);
}

/* The slot that holds key, or the free one where the probe ends. */
static struct slot *find(const struct map *map, uint64_t hash, struct sv key)
{
    size_t i = hash & (map->cap - 1);

    for (;;) {
        struct slot *s = &map->slots[i];

        if (s->value == NULL && !s->dead) {
            return s;
        }
        if (s->value != NULL && s->hash == hash && sv_eq(sv_of(s->key, s->n), key)) {
            return s;
        }
        i = (i + 1) & (map->cap - 1);
    }
}

static void rehash(struct map *map)
{
    struct slot *old = map->slots;
    size_t old_cap = map->cap;
    size_t i = 0;

    map->cap = map->live * 4 > old_cap ? old_cap * 2 : old_cap;
    map->slots = mem_array(map->cap, sizeof(*map->slots));
    map->used = map->live;
    for (i = 0; i < old_cap; i++) {
        if (old[i].value != NULL) {
            *find(map, old[i].hash, sv_of(old[i].key, old[i].n)) = old[i];
        }
    }
    mem_free(&old);
}

void *map_set(struct map *map, struct sv key, void *value)
{
    uint64_t hash = map_hash(key);
    struct slot *s = NULL;
    void *before = NULL;

    CHECK(value != NULL);
    if ((map->used + 1) * 4 > map->cap * 3) {
        rehash(map);
    }
    s = find(map, hash, key);
    before = s->value;
    if (before == NULL) {
        s->hash = hash;
        s->key = mem_dup(key.p, key.n);
        s->n = key.n;
        map->live++;
        map->used++;
    }
    s->value = value;
    return before;
}

void *map_get(const struct map *map, struct sv key)
{
    return find(map, map_hash(key), key)->value;
}

void *map_take(struct map *map, struct sv key)
{
    struct slot *s = find(map, map_hash(key), key);
    void *value = s->value;

    if (value != NULL) {
        mem_free(&s->key);
        s->value = NULL;
        s->dead = true;
        map->live--;
    }
    return value;
}

size_t map_count(const struct map *map)
{
    return map->live;
}

void map_each(const struct map *map, map_each_fn fn, void *arg)
{
    size_t i = 0;

    for (i = 0; i < map->cap; i++) {
        if (map->slots[i].value != NULL) {
            fn(sv_of(map->slots[i].key, map->slots[i].n), map->slots[i].value, arg);
        }
    }
}
