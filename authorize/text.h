/* authz_text: each different text of the replica exists once, refcounted, with its hash. User ids,
 * group ids, claim names and values repeat a thousandfold over sessions. One thread. */
#pragma once

#include "common/base.h"
#include "common/policy/input.h"
#include "common/sv.h"

struct authz_texts;

struct authz_texts *authz_texts_new(void);
/* All texts must have been dropped. */
void authz_texts_free(struct authz_texts **texts);
/* A reference to the one copy of s. The bytes stay where they are until the last drop. */
struct policy_text authz_text_take(struct authz_texts *texts, struct sv s);
/* Gives a reference back; text becomes the empty text. */
void authz_text_drop(struct authz_texts *texts, struct policy_text *text);
size_t authz_texts_count(const struct authz_texts *texts);
