/* authz_text: texts that repeat over many records, group ids and claim names above all: each exists
 * once, refcounted, with its hash, and is named by a small number. Beside them the memory in which the
 * whole replica lives. One thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/policy/input.h"
#include "common/slab.h"
#include "common/sv.h"

struct authz_texts;

struct authz_texts *authz_texts_new(void);
/* With all texts, and all that was taken of its memory. */
void authz_texts_free(struct authz_texts **texts);
struct slab *authz_texts_slab(const struct authz_texts *texts);
/* Where something is put together before its size is known. */
struct buf *authz_texts_room(struct authz_texts *texts);

/* A reference to the one copy of s; 0 is the empty text's. Numbers are small: the smallest free one is
 * given. */
uint32_t authz_text_take(struct authz_texts *texts, struct sv s);
void authz_text_drop(struct authz_texts *texts, uint32_t number);
/* 0: nobody holds it (or it is empty). No reference. */
uint32_t authz_text_find(const struct authz_texts *texts, struct sv s);
/* The bytes stay where they are until the last drop. */
struct policy_text authz_text_get(const struct authz_texts *texts, uint32_t number);
size_t authz_texts_count(const struct authz_texts *texts);

/* Takes note that claim, a text, has value once more. True: it has it so often that value is worth a
 * text of its own. */
bool authz_text_repeats(struct authz_texts *texts, uint32_t claim, struct sv value);
