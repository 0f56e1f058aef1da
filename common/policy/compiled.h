/* struct policy: what policy.c builds and eval.c asks. Internal to common/policy. */
#pragma once

#include <stdatomic.h>

#include "common/arena.h"
#include "common/policy/policy.h"
#include "common/policy/pred.h"

struct policy_block {
    enum policy_combine combine;
    const struct policy_pred *preds;
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
    struct policy_side allow;
    struct policy_side deny;
    struct policy **parts; /* the central ones that apply, a reference each; they have none */
    size_t n_parts;
    bool mcp_server;
    bool enforced; /* a central one that no route can lift */
};
