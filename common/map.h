/* map: hash table from text to pointer, keyed SipHash-like so that foreign keys cannot be chosen to
 * collide. Keys are copied; values are borrowed. Not shared between threads without care: readers
 * of a map that no longer changes need no lock. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct map;

struct map *map_new(void);
void map_free(struct map **map); /* values are the caller's */
/* Sets key to value (not NULL); returns the value it replaces, or NULL. */
void *map_set(struct map *map, struct sv key, void *value);
void *map_get(const struct map *map, struct sv key); /* NULL: not there */
/* Removes and returns the value; NULL: not there. */
void *map_take(struct map *map, struct sv key);
size_t map_count(const struct map *map);
/* Calls fn for every entry in no order; fn must not change the map. */
typedef void (*map_each_fn)(struct sv key, void *value, void *arg);
void map_each(const struct map *map, map_each_fn fn, void *arg);
/* The keyed hash itself, the same for the life of the process. */
uint64_t map_hash(struct sv key);
