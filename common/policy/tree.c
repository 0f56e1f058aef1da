#include "common/policy/tree.h"

#include <string.h>

#include "common/mem.h"

static const char *kind_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
    default:
        return "nothing";
    }
}

static bool read_combine(const char *name, enum policy_combine *combine_out)
{
    static const char *const names[] = { "and", "or", "not", "nor" };
    unsigned i = 0;

    for (i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *combine_out = (enum policy_combine)i;
            return true;
        }
    }
    return false;
}

static struct policy_tree_block *add_block(struct policy_tree *tree)
{
    if (tree->count == tree->cap) {
        tree->cap = tree->cap == 0 ? 4 : tree->cap * 2;
        tree->blocks = mem_realloc(tree->blocks, tree->cap, sizeof(*tree->blocks));
    }
    tree->blocks[tree->count] = (struct policy_tree_block){ 0 };
    return &tree->blocks[tree->count++];
}

static enum err read_item(struct policy_scan *scan, const json_t *item,
                          struct policy_tree_item *item_out)
{
    void *iter = NULL;

    if (!json_is_object(item)) {
        return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                "a criterion is an object with one key, as {email: a@b.c}; this "
                                "is %s",
                                kind_name(item));
    }
    if (json_object_size(item) != 1) {
        return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                "a criterion has exactly one key, this has %zu; start each with -",
                                json_object_size(item));
    }
    iter = json_object_iter(policy_scan_tree(item));
    item_out->name = json_object_iter_key(iter);
    item_out->data = json_object_iter_value(iter);
    item_out->object = item;
    policy_scan_member(scan, item, item_out->name);
    item_out->at = scan->at;
    return ERR_OK;
}

static enum err read_operator(struct policy_scan *scan, bool deny, enum policy_combine combine,
                              const json_t *items, struct policy_tree *tree)
{
    struct policy_tree_block *block = NULL;
    enum err err = ERR_OK;
    size_t i = 0;

    if (!json_is_array(items)) {
        return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                "an operator takes a list of criteria; this is %s",
                                kind_name(items));
    }
    if (json_array_size(items) == 0) {
        return ERR_OK;
    }
    err = policy_scan_count(scan, json_array_size(items));
    if (err != ERR_OK) {
        return err;
    }
    block = add_block(tree);
    block->deny = deny;
    block->combine = combine;
    block->count = json_array_size(items);
    block->items = mem_array(block->count, sizeof(*block->items));
    for (i = 0; i < block->count && err == ERR_OK; i++) {
        policy_scan_item(scan, items, i);
        err = read_item(scan, json_array_get(items, i), &block->items[i]);
    }
    return err;
}

static enum err read_action(struct policy_scan *scan, bool deny, const json_t *body,
                            struct policy_tree *tree)
{
    const char *name = NULL;
    json_t *value = NULL;
    enum policy_combine combine = POLICY_AND;
    enum err err = ERR_OK;

    if (!json_is_object(body)) {
        return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                "an action takes an object of and, or, not, nor; this is %s",
                                kind_name(body));
    }
    json_object_foreach(policy_scan_tree(body), name, value)
    {
        policy_scan_member(scan, body, name);
        if (strcmp(name, "action") == 0) {
            continue;
        }
        if (!read_combine(name, &combine)) {
            static const char *const known[] = { "and", "or", "not", "nor" };
            const char *near = policy_scan_nearest(sv_from(name), known, ARRAY_LEN(known));

            return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                    "\"%.40s\" is no operator%s%s; known are and, or, not, nor",
                                    name, near == NULL ? "" : ", did you mean ",
                                    near == NULL ? "" : near);
        }
        err = read_operator(scan, deny, combine, value, tree);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static enum err read_rules(struct policy_scan *scan, const json_t *rules, struct policy_tree *tree)
{
    const char *name = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;

    if (!json_is_object(rules)) {
        return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                "a policy is an object with allow and deny, or a list of them; "
                                "this is %s",
                                kind_name(rules));
    }
    json_object_foreach(policy_scan_tree(rules), name, value)
    {
        bool deny = strcmp(name, "deny") == 0;

        policy_scan_member(scan, rules, name);
        if (!deny && strcmp(name, "allow") != 0) {
            return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                    "\"%.40s\" is no action; known are allow and deny", name);
        }
        err = read_action(scan, deny, value, tree);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

enum err policy_tree_read(struct policy_scan *scan, const json_t *ppl, struct policy_tree *tree)
{
    enum err err = ERR_OK;
    size_t i = 0;

    if (!json_is_array(ppl)) {
        return read_rules(scan, ppl, tree);
    }
    for (i = 0; i < json_array_size(ppl) && err == ERR_OK; i++) {
        policy_scan_item(scan, ppl, i);
        err = read_rules(scan, json_array_get(ppl, i), tree);
    }
    return err;
}

void policy_tree_deinit(struct policy_tree *tree)
{
    size_t i = 0;

    for (i = 0; i < tree->count; i++) {
        mem_free(&tree->blocks[i].items);
    }
    mem_free(&tree->blocks);
    *tree = (struct policy_tree){ 0 };
}
