/* struct policy: what policy.c builds and eval.c asks. Internal to common/policy. */
#pragma once

#include <stdatomic.h>

#include "common/arena.h"
#include "common/policy/policy.h"
#include "common/policy/pred.h"

/* A criterion as it was written, for people; not read on the way of a request. */
struct policy_saying {
    const char *name; /* with its sub-path */
    struct sv text;   /* its data, at most POLICY_SAYING_MAX; of several that became one: all */
    size_t others;    /* how many more were written that found no room in text */
    bool cut;         /* text is shorter than what was written */
    struct yaml_pos at;
};

enum { POLICY_SAYING_MAX = 160 };

struct policy_block {
    enum policy_combine combine;
    const struct policy_pred *preds;
    const struct policy_saying *sayings; /* one for each predicate */
    size_t count;
};

/* Blocks of one action; a side is true if any of its blocks is, here or in a part. */
struct policy_side {
    const struct policy_block *blocks;
    size_t count;
};

struct policy {
    atomic_uint refs;
    struct arena arena; /* owns everything below */
    struct policy *of;  /* that the data of predicates is borrowed from; NULL: its own */
    struct sv name;     /* of a central one */
    struct policy_side allow;
    struct policy_side deny;
    struct policy **parts; /* the central ones that apply, a reference each; they have none */
    size_t n_parts;
    const struct sv *headers; /* that it asks for, parts included */
    size_t n_headers;
    int64_t age_ms; /* the shortest auth_age, parts included; 0: none */
    bool mcp_server;
    bool enforced; /* a central one that no route can lift */
};

/* Whether a route leaves it to others who may enter it. */
bool policy_source_is_silent(const struct policy_source *src);
