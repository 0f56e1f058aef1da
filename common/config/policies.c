/* The section `policies`: policies with a name. Here their shape is checked; what their rules say is
 * common/policy's, as it is with those of routes. */
#include <string.h>

#include "common/config/reader.h"
#include "common/mem.h"

enum {
    NAME_MAX_LEN = 64,
    DEPTH_MAX = 8 /* list, action, operator, list, criterion, and to spare */
};

/* A policy's entry, as far as it is checked here. */
struct entry {
    bool fallback;
    bool enforced;
};

static const struct config_row entry_rows[] = {
    { "policy", CFG_OBJECT, 0, SIZE_MAX,
      .doc = "The rules, in the language of [policy.md](policy.md)." },
    { "shadow_policy", CFG_OBJECT, CFG_OURS, SIZE_MAX,
      .doc = "Rules to come in place of those, only asked: see "
             "[explain.md](explain.md#shadow-policies)." },
    { "default", CFG_BOOL, 0, offsetof(struct entry, fallback),
      .doc = "For routes that say nothing themselves about who may enter." },
    { "enforced", CFG_BOOL, 0, offsetof(struct entry, enforced),
      .doc = "On every route, whatever it says itself; `deny` rules alone." },
};

const struct config_rows config_rows_named_policy = CONFIG_ROWS(entry_rows, "setting of a policy");

static bool is_name(struct sv name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (!letter && c != '-' && c != '_' && c != '.') {
            return false;
        }
    }
    return name.n != 0 && name.n <= NAME_MAX_LEN;
}

static void read_entry(struct config_reader *r, const struct config_value *v)
{
    struct entry entry = { .fallback = false };

    if (!is_name(sv_from(v->key))) {
        config_error(r, v->place,
                     "policies: a name has up to %d letters, digits, dots, dashes and underscores",
                     NAME_MAX_LEN);
    }
    config_read_object(r, &config_rows_named_policy, v, &entry, NULL, NULL);
    if (entry.fallback && entry.enforced) {
        config_error(r, v->place,
                     "policies: \"enforced\" already holds on every route; leave \"default\" out");
    }
}

/* --- headers ------------------------------------------------------------------------------------- */

static void add_header(struct config_reader *r, struct sv given, struct config_strings *list)
{
    char *name = arena_str(r->arena, given);
    size_t i = 0;

    for (i = 0; i < given.n; i++) {
        name[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
    }
    for (i = 0; i < list->n && !sv_eq(list->v[i], sv_of(name, given.n)); i++) {
    }
    if (i == list->n && i < CONFIG_POLICY_HEADERS_MAX) {
        list->v[list->n++] = sv_of(name, given.n);
    }
}

/* Keys as header/X-Name, wherever criteria may stand: what a policy says is looked at elsewhere, and
 * a header too many does no harm. */
static void find_headers(struct config_reader *r, json_t *json, unsigned depth,
                         struct config_strings *list)
{
    const struct sv mark = SV("header/");
    const char *key = NULL;
    json_t *value = NULL;
    size_t i = 0;

    if (depth == DEPTH_MAX) {
        return;
    }
    json_array_foreach(json, i, value)
    {
        find_headers(r, value, depth + 1, list);
    }
    json_object_foreach(json, key, value)
    {
        if (sv_starts(sv_from(key), mark)) {
            add_header(r, sv_from_at(sv_from(key), mark.n), list);
        }
        find_headers(r, value, depth + 1, list);
    }
}

static bool names(const json_t *list, const char *name)
{
    const char *text = json_string_value(list);
    size_t i = 0;

    for (i = 0; i < json_array_size(list); i++) {
        text = json_string_value(json_array_get(list, i));
        if (text != NULL && strcmp(text, name) == 0) {
            return true;
        }
    }
    return !json_is_array(list) && text != NULL && strcmp(text, name) == 0;
}

/* Those of the central policies that apply, or in shadow may come to. */
static void find_central(struct config_reader *r, const json_t *used, const char *rules,
                         struct config_strings *list)
{
    const char *name = NULL;
    json_t *entry = NULL;
    json_t *section = base_unconst(r->c->policies);

    json_object_foreach(section, name, entry)
    {
        if (json_is_true(json_object_get(entry, "enforced")) ||
            json_is_true(json_object_get(entry, "default")) || names(used, name)) {
            find_headers(r, json_object_get(entry, rules), 0, list);
        }
    }
}

void config_finish_policy_headers(struct config_reader *r, struct config_route *route)
{
    struct sv found[CONFIG_POLICY_HEADERS_MAX];
    struct config_strings list = { .v = found };
    const json_t *used = json_object_get(route->json, "policies");

    find_headers(r, json_object_get(route->json, "policy"), 0, &list);
    find_central(r, used, "policy", &list);
    find_headers(r, json_object_get(route->json, "shadow_policy"), 0,
                 &list); /* last: they count least */
    find_central(r, used, "shadow_policy", &list);
    route->policy_headers.n = list.n;
    if (list.n != 0) {
        route->policy_headers.v = arena_alloc(r->arena, list.n * sizeof(*list.v));
        memcpy(route->policy_headers.v, found, list.n * sizeof(*list.v));
    }
}

/* --- the section --------------------------------------------------------------------------------- */

void config_read_policies(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;
    void *it = NULL;

    if (!json_is_object(v->json)) {
        config_error(r, v->place,
                     "policies: expected names with a policy each, as staff: {policy: …}");
        return;
    }
    if (json_object_size(v->json) > CONFIG_LIST_MAX) {
        config_error(r, v->place, "policies: more than %d of them", CONFIG_LIST_MAX);
        return;
    }
    for (it = json_object_iter(v->json); it != NULL; it = json_object_iter_next(v->json, it)) {
        struct config_value item =
            config_member(v, json_object_iter_key(it), json_object_iter_value(it));

        read_entry(r, &item);
    }
    c->policies = v->json;
    c->policies_doc = v->doc;
    /* A splice lies between the settings around the routes, of which this is one. */
    c->policies_edition =
        r->splice == NULL ? config_next_edition() : r->splice->before->config.policies_edition;
}
