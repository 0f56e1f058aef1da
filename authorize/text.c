#include "authorize/text.h"

#include <string.h>

#include "common/map.h"
#include "common/mem.h"

struct shared_text {
    uint32_t refs;
    char bytes[];
};

struct authz_texts {
    struct map *by_text;
};

struct authz_texts *authz_texts_new(void)
{
    struct authz_texts *texts = MEM_NEW(struct authz_texts);

    texts->by_text = map_new();
    return texts;
}

void authz_texts_free(struct authz_texts **texts)
{
    if (*texts == NULL) {
        return;
    }
    CHECK(map_count((*texts)->by_text) == 0);
    map_free(&(*texts)->by_text);
    mem_free(texts);
}

struct policy_text authz_text_take(struct authz_texts *texts, struct sv s)
{
    if (s.n == 0) {
        return (struct policy_text){ .hash = 0 };
    }
    struct shared_text *text = map_get(texts->by_text, s);

    if (text == NULL) {
        text = mem_alloc(sizeof(*text) + s.n + 1);
        text->refs = 0;
        memcpy(text->bytes, s.p, s.n);
        text->bytes[s.n] = '\0';
        (void)map_set(texts->by_text, s, text);
    }
    CHECK(text->refs < UINT32_MAX);
    text->refs++;
    return policy_text_of(sv_of(text->bytes, s.n));
}

void authz_text_drop(struct authz_texts *texts, struct policy_text *text)
{
    struct sv s = text->s;

    *text = (struct policy_text){ .hash = 0 };
    if (s.n == 0) {
        return;
    }
    struct shared_text *shared = map_get(texts->by_text, s);

    CHECK(shared != NULL && shared->refs > 0 && shared->bytes == s.p);
    shared->refs--;
    if (shared->refs == 0) {
        (void)map_take(texts->by_text, s);
        mem_free(&shared);
    }
}

size_t authz_texts_count(const struct authz_texts *texts)
{
    return map_count(texts->by_text);
}
