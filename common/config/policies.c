/* The section `policies`: policies with a name. Here their shape is checked; what their rules say is
 * common/policy's, as it is with those of routes. */
#include "common/config/reader.h"

enum { NAME_MAX_LEN = 64 };

/* A policy's entry, as far as it is checked here. */
struct entry {
    bool fallback;
    bool enforced;
};

static const struct config_row entry_rows[] = {
    { "policy", CFG_OBJECT, 0, SIZE_MAX,
      .doc = "The rules, in the language of [policy.md](policy.md)." },
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
