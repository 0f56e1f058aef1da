#include "common/policy/set.h"

#include <string.h>

#include "common/map.h"
#include "common/mem.h"

struct policy_text policy_text_of(struct sv s)
{
    uint64_t hash = map_hash(s);

    return (struct policy_text){ .s = s, .hash = hash == 0 ? 1 : hash };
}

bool policy_text_eq(const struct policy_text *a, const struct policy_text *b)
{
    /* Hashes first: the processor guesses that they differ, and is right. */
    if ((a->hash != b->hash && a->hash != 0 && b->hash != 0) || a->s.n != b->s.n) {
        return false;
    }
    return a->s.n == 0 || memcmp(a->s.p, b->s.p, a->s.n) == 0;
}

void policy_names_add(struct policy_names *names, struct sv text)
{
    if (names->count == names->cap) {
        names->cap = names->cap == 0 ? 4 : names->cap * 2;
        names->items = mem_realloc(names->items, names->cap, sizeof(*names->items));
    }
    names->items[names->count++] = policy_text_of(text);
}

void policy_names_append(struct policy_names *names, const struct policy_names *more)
{
    size_t i = 0;

    for (i = 0; i < more->count; i++) {
        policy_names_add(names, more->items[i].s);
    }
}

void policy_names_deinit(struct policy_names *names)
{
    mem_free(&names->items);
    *names = (struct policy_names){ 0 };
}

/* The slot of text, or the free one where it would stand. */
static size_t find_slot(const struct policy_text *slots, size_t mask,
                        const struct policy_text *text)
{
    size_t i = (size_t)text->hash & mask;

    while (slots[i].hash != 0 && !policy_text_eq(&slots[i], text)) {
        i = (i + 1) & mask;
    }
    return i;
}

/* Of the bits of a set: others of the hash than find_slot takes. */
static size_t word_of(uint64_t hash)
{
    return (size_t)(hash >> 62U);
}

static uint64_t bit_of(uint64_t hash)
{
    return UINT64_C(1) << (hash >> 56U & 63U);
}

struct policy_set policy_set_build(struct arena *arena, const struct policy_names *names)
{
    struct policy_set set = { 0 };
    struct policy_text *slots = NULL;
    size_t size = 8;
    size_t i = 0;

    if (names->count == 0) {
        return set;
    }
    while (size < names->count * 4) { /* who is not in the set nearly always meets a free slot */
        size *= 2;
    }
    slots = arena_zalloc(arena, size * sizeof(*slots));
    for (i = 0; i < names->count; i++) {
        size_t at = find_slot(slots, size - 1, &names->items[i]);

        set.count += slots[at].hash == 0 ? 1 : 0;
        slots[at] = names->items[i];
    }
    for (i = 0; i < names->count; i++) {
        const uint64_t hash = names->items[i].hash;

        set.maybe[word_of(hash)] |= bit_of(hash);
    }
    set.slots = slots;
    set.mask = size - 1;
    return set;
}

bool policy_set_has(const struct policy_set *set, const struct policy_text *text)
{
    struct policy_text with_hash = *text;

    if (set->count == 0) {
        return false;
    }
    if (with_hash.hash == 0) {
        with_hash = policy_text_of(text->s);
    }
    return (set->maybe[word_of(with_hash.hash)] & bit_of(with_hash.hash)) != 0 &&
           set->slots[find_slot(set->slots, set->mask, &with_hash)].hash != 0;
}
