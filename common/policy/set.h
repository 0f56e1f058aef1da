/* policy_set: names that a policy compares with, in a hash table: one probe for 10,000 of them.
 * Lives in an arena, immutable once built. Internal to common/policy; any thread. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/policy/input.h"

struct policy_set {
    const struct policy_text *slots; /* hash 0: free */
    size_t mask;
    size_t count;
    uint64_t maybe[4]; /* a bit for each hash: of few names, most others are told at a glance, which
                          the processor foresees */
};

/* While a policy is read: names gathered for a set. The texts are borrowed. */
struct policy_names {
    struct policy_text *items;
    size_t count;
    size_t cap;
};

void policy_names_add(struct policy_names *names, struct sv text);
void policy_names_append(struct policy_names *names, const struct policy_names *more);
void policy_names_deinit(struct policy_names *names);
/* Doubles are kept once. */
struct policy_set policy_set_build(struct arena *arena, const struct policy_names *names);
bool policy_set_has(const struct policy_set *set, const struct policy_text *text);
bool policy_text_eq(const struct policy_text *a, const struct policy_text *b);
