/* keyed: hash table of things that hold their own key, for very many of them: 12 bytes a place, at
 * least two thirds of the places used. It is made of shards that grow and shrink each by itself, so
 * that no moment has two copies of the whole. Keys are hashed as in map.h. One thread at a time. */
#pragma once

#include "common/base.h"
#include "common/slab.h"
#include "common/sv.h"

struct keyed;

/* The key of an item; it must not change while the item is in. */
typedef struct sv (*keyed_key_fn)(const void *item);

/* The places are taken of slab, which outlives the table. */
struct keyed *keyed_new(keyed_key_fn key_of, struct slab *slab);
void keyed_free(struct keyed **keyed);                     /* items are the caller's */
void *keyed_get(const struct keyed *keyed, struct sv key); /* NULL: not there */
/* Where many things are wanted at once: keyed_expect, for each, has the place of a key of that hash
 * (map_hash) brought near; keyed_guess then tells which item is there, most likely the one, without a look
 * into it; NULL: surely none. By the time of keyed_get what one asked for is at hand. */
void keyed_expect(const struct keyed *keyed, uint64_t hash);
const void *keyed_guess(const struct keyed *keyed, uint64_t hash);
/* Returns the item of the same key that it replaces, or NULL. */
void *keyed_set(struct keyed *keyed, void *item);
/* Removes and returns the item; NULL: not there. */
void *keyed_take(struct keyed *keyed, struct sv key);
size_t keyed_count(const struct keyed *keyed);
/* Calls fn for every item in no order; fn must not change the table. */
typedef void (*keyed_each_fn)(void *item, void *arg);
void keyed_each(const struct keyed *keyed, keyed_each_fn fn, void *arg);
