/* policy_tree: the shape of a policy document, checked: blocks of criteria under an operator. It
 * borrows the JSON tree. Internal to common/policy. The language: docs/policy.md. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/policy/scan.h"

enum policy_combine { POLICY_AND = 0, POLICY_OR, POLICY_NOT, POLICY_NOR };

struct policy_tree_item {
    const char *name; /* criterion, with its sub-path */
    const json_t *data;
    const json_t *object; /* {name: data}, for its place */
    struct yaml_pos at;
};

struct policy_tree_block {
    bool deny; /* else allow */
    enum policy_combine combine;
    struct policy_tree_item *items;
    size_t count; /* never 0: empty operators are left out */
};

struct policy_tree {
    struct policy_tree_block *blocks;
    size_t count;
    size_t cap;
};

/* ERR_INVALID (fault shape). The tree is the caller's to deinit in any case. */
MUST_CHECK enum err policy_tree_read(struct policy_scan *scan, const json_t *ppl,
                                     struct policy_tree *tree);
void policy_tree_deinit(struct policy_tree *tree);
