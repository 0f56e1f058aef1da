/* policy_scan: what every step of reading a policy carries: where the tree came from, who owns the
 * result, and the first mistake. Internal to common/policy; one thread. */
#pragma once

#include <jansson.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/policy/policy.h"
#include "common/yaml.h"

struct policy_scan {
    const struct yaml_doc *doc; /* or NULL */
    struct diag *d;             /* or NULL */
    struct arena *arena;        /* of the policy that is being made */
    enum policy_fault fault;
    size_t items;       /* criteria and list members so far, at most POLICY_ITEMS_MAX */
    struct yaml_pos at; /* the criterion or operator that is being read */
};

/* Notes the mistake with its place (scan->at) and returns ERR_INVALID. */
enum err policy_scan_fail(struct policy_scan *scan, enum policy_fault fault, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* Counts n more items; a mistake of class data when the policy gets too big. */
MUST_CHECK enum err policy_scan_count(struct policy_scan *scan, size_t n);
/* Sets scan->at to a member or an item, where its place is known. */
void policy_scan_member(struct policy_scan *scan, const json_t *object, const char *key);
void policy_scan_item(struct policy_scan *scan, const json_t *array, size_t index);
/* jansson's iterator wants a tree writable, though it does not write. */
json_t *policy_scan_tree(const json_t *tree);
/* A copy of a JSON string in the policy's arena. */
struct sv policy_scan_text(struct policy_scan *scan, const json_t *string);
/* The name nearest to a misspelt one, NULL where none is near. */
const char *policy_scan_nearest(struct sv name, const char *const *names, size_t n);
