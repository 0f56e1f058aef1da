#include "common/policy/central.h"

#include <stdatomic.h>

#include "common/arena.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/policy/scan.h"

struct policy_central {
    atomic_uint refs;
    struct arena arena; /* the texts of names */
    struct policy_central_item *items;
    const char **names; /* of items, NUL-terminated */
    size_t count;
    size_t broken;
    struct map *by_name;
};

/* `default` and `enforced`, which config.yaml has checked to be true or false. */
static bool flag(const json_t *entry, const char *key)
{
    return json_is_true(json_object_get(entry, key));
}

static enum err compile(struct policy_scan *scan, const json_t *ppl,
                        const struct policy_central_item *item, struct policy **policy_out)
{
    const struct policy_source source = {
        .doc = scan->doc, .name = item->name, .ppl = ppl, .enforced = item->enforced
    };

    if (ppl == NULL) {
        return policy_scan_fail(scan, POLICY_FAULT_SHAPE,
                                "the policy has no rules; write them under \"policy\"");
    }
    return policy_compile(&source, policy_out, &scan->fault, scan->d);
}

static void compile_rules(const json_t *section, const struct yaml_doc *doc, const json_t *ppl,
                          const struct policy_central_item *item,
                          struct policy_central_rules *rules)
{
    struct policy_scan scan = { .doc = doc, .d = &rules->why };

    policy_scan_member(&scan, section, item->name.p); /* a NUL ends it */
    if (compile(&scan, ppl, item, &rules->policy) != ERR_OK) {
        rules->fault = scan.fault;
    }
}

static void compile_item(const json_t *section, const struct yaml_doc *doc, const json_t *entry,
                         struct policy_central_item *item)
{
    const json_t *ppl = json_object_get(entry, "policy");
    const json_t *shadow = json_object_get(entry, "shadow_policy");

    item->has_shadow = shadow != NULL;
    if (ppl != NULL || shadow == NULL) {
        compile_rules(section, doc, ppl, item, &item->rules);
    }
    if (shadow != NULL) {
        compile_rules(section, doc, shadow, item, &item->shadow);
    }
}

struct policy_central *policy_central_new(const json_t *section, const struct yaml_doc *doc)
{
    struct policy_central *central = NULL;
    const char *name = NULL;
    json_t *entry = NULL;

    if (json_object_size(section) == 0) {
        return NULL;
    }
    central = MEM_NEW(struct policy_central);
    atomic_init(&central->refs, 1);
    arena_init(&central->arena);
    central->by_name = map_new();
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    central->names = mem_array(json_object_size(section), sizeof(*central->names));
    central->items = mem_array(json_object_size(section), sizeof(*central->items));
    json_object_foreach(policy_scan_tree(section), name, entry)
    {
        struct policy_central_item *item = &central->items[central->count++];

        *item = (struct policy_central_item){ .name = arena_sv(&central->arena, sv_from(name)),
                                              .enforced = flag(entry, "enforced"),
                                              .fallback = flag(entry, "default") };
        central->names[central->count - 1] = item->name.p; /* arena_sv ends it with a NUL */
        compile_item(section, doc, entry, item);
        central->broken +=
            item->rules.fault != POLICY_FAULT_NONE || item->shadow.fault != POLICY_FAULT_NONE ? 1
                                                                                              : 0;
        (void)map_set(central->by_name, item->name, item);
    }
    return central;
}

struct policy_central *policy_central_ref(struct policy_central *central)
{
    if (central != NULL) {
        (void)atomic_fetch_add_explicit(&central->refs, 1, memory_order_relaxed);
    }
    return central;
}

void policy_central_unref(struct policy_central **central)
{
    struct policy_central *c = TAKE(*central);
    size_t i = 0;

    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (i = 0; i < c->count; i++) {
        policy_unref(&c->items[i].rules.policy);
        policy_unref(&c->items[i].shadow.policy);
    }
    map_free(&c->by_name);
    mem_free(&c->items);
    mem_free(&c->names);
    arena_deinit(&c->arena);
    mem_free(&c);
}

size_t policy_central_count(const struct policy_central *central)
{
    return central == NULL ? 0 : central->count;
}

const struct policy_central_item *policy_central_at(const struct policy_central *central, size_t i)
{
    CHECK(i < central->count);
    return &central->items[i];
}

const struct policy_central_item *policy_central_find(const struct policy_central *central,
                                                      struct sv name)
{
    return central == NULL ? NULL : map_get(central->by_name, name);
}

const char *policy_central_nearest(const struct policy_central *central, struct sv name)
{
    return central == NULL ? NULL : policy_scan_nearest(name, central->names, central->count);
}

size_t policy_central_broken(const struct policy_central *central)
{
    return central == NULL ? 0 : central->broken;
}
