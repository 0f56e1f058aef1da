#include "authorize/text.h"

#include <string.h>

#include "common/keyed.h"
#include "common/map.h"
#include "common/mem.h"

enum { HABITS = 4, HABIT_SEEN = 8, FIRST_TEXTS = 64, ROOM_MAX = 64 << 20 };

/* Values of a claim that may be frequent ones (Misra, Gries 1982): hashes with what they are ahead. */
struct habits {
    uint32_t hash[HABITS];
    uint8_t seen[HABITS];
};

struct text {
    uint32_t number;
    uint32_t refs;
    struct habits habits;
    uint32_t n;
    char bytes[];
};

struct authz_texts {
    struct slab *slab;
    struct keyed *by_text;
    struct policy_text *items; /* by number; one that is free has its next in s.n */
    uint32_t n_items;
    uint32_t cap;
    uint32_t free; /* 0: none */
    struct buf room;
};

static struct sv key_of(const void *item)
{
    const struct text *t = item;

    return sv_of(t->bytes, t->n);
}

struct authz_texts *authz_texts_new(void)
{
    struct authz_texts *t = MEM_NEW(struct authz_texts);

    t->slab = slab_new();
    t->by_text = keyed_new(key_of, t->slab);
    t->cap = FIRST_TEXTS;
    t->items = mem_array(t->cap, sizeof(*t->items));
    t->n_items = 1; /* 0 is the empty one */
    buf_init(&t->room, ROOM_MAX);
    return t;
}

void authz_texts_free(struct authz_texts **texts)
{
    if (*texts != NULL) {
        keyed_free(&(*texts)->by_text);
        mem_free(&(*texts)->items);
        buf_deinit(&(*texts)->room);
        slab_free(&(*texts)->slab);
    }
    mem_free(texts);
}

struct slab *authz_texts_slab(const struct authz_texts *texts)
{
    return texts->slab;
}

struct buf *authz_texts_room(struct authz_texts *texts)
{
    return &texts->room;
}

static struct text *text_at(const struct authz_texts *texts, uint32_t number)
{
    CHECK(number > 0 && number < texts->n_items && texts->items[number].s.p != NULL);
    return CONTAINER_OF(base_unconst(texts->items[number].s.p), struct text, bytes);
}

static uint32_t number_take(struct authz_texts *texts)
{
    uint32_t number = texts->free;

    if (number != 0) {
        texts->free = (uint32_t)texts->items[number].s.n;
        return number;
    }
    if (texts->n_items == texts->cap) {
        CHECK(texts->cap <= UINT32_MAX / 2);
        texts->cap *= 2;
        texts->items = mem_realloc(texts->items, texts->cap, sizeof(*texts->items));
    }
    return texts->n_items++;
}

uint32_t authz_text_take(struct authz_texts *texts, struct sv s)
{
    if (s.n == 0) {
        return 0;
    }
    struct text *text = keyed_get(texts->by_text, s);

    if (text == NULL) {
        CHECK(s.n < UINT32_MAX);
        text = slab_take(texts->slab, sizeof(*text) + s.n);
        *text = (struct text){ .number = number_take(texts), .n = (uint32_t)s.n };
        memcpy(text->bytes, s.p, s.n);
        texts->items[text->number] = policy_text_of(sv_of(text->bytes, text->n));
        (void)keyed_set(texts->by_text, text);
    }
    CHECK(text->refs < UINT32_MAX);
    text->refs++;
    return text->number;
}

void authz_text_drop(struct authz_texts *texts, uint32_t number)
{
    if (number == 0) {
        return;
    }
    struct text *text = text_at(texts, number);

    CHECK(text->refs > 0);
    text->refs--;
    if (text->refs == 0) {
        (void)keyed_take(texts->by_text, key_of(text));
        texts->items[number] = (struct policy_text){ .s = { NULL, texts->free } };
        texts->free = number;
        slab_give(texts->slab, text, sizeof(*text) + text->n);
    }
}

uint32_t authz_text_find(const struct authz_texts *texts, struct sv s)
{
    const struct text *text = s.n == 0 ? NULL : keyed_get(texts->by_text, s);

    return text != NULL ? text->number : 0;
}

struct policy_text authz_text_get(const struct authz_texts *texts, uint32_t number)
{
    CHECK(number < texts->n_items);
    return texts->items[number];
}

size_t authz_texts_count(const struct authz_texts *texts)
{
    return keyed_count(texts->by_text);
}

bool authz_text_repeats(struct authz_texts *texts, uint32_t claim, struct sv value)
{
    struct habits *h = claim == 0 ? NULL : &text_at(texts, claim)->habits;
    uint32_t hash = (uint32_t)map_hash(value);
    size_t spare = HABITS;

    for (size_t i = 0; h != NULL && i < HABITS; i++) {
        if (h->seen[i] != 0 && h->hash[i] == hash) {
            if (h->seen[i] < HABIT_SEEN) {
                h->seen[i]++;
            }
            return h->seen[i] == HABIT_SEEN;
        }
        spare = h->seen[i] == 0 ? i : spare;
    }
    if (h == NULL) {
        return false;
    }
    if (spare < HABITS) {
        h->hash[spare] = hash;
        h->seen[spare] = 1;
        return false;
    }
    for (size_t i = 0; i < HABITS; i++) {
        h->seen[i]--;
    }
    return false;
}
