#include "cli/advice.h"

#include <stdarg.h>
#include <string.h>

#include "cli/command.h"
#include "cli/people.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/policy/advise.h"
#include "common/policy/central.h"
#include "common/route/settle.h"
#include "common/route/table.h"

enum { SENTENCE_MAX = 1024 };

/* Where sentences go, and what they are about. */
struct teller {
    config_advice_fn fn;
    void *arg;
    const char *file;
    int line; /* of the whole, where a part has no place */
    int column;
    size_t n;
};

static void say(struct teller *t, struct yaml_pos at, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void say(struct teller *t, struct yaml_pos at, const char *fmt, ...)
{
    CLEANUP(buf_deinit) struct buf b;
    va_list ap;

    buf_init(&b, SENTENCE_MAX);
    if (t->n++ >= CONFIG_ADVICE_MAX) {
        return;
    }
    buf_printf(&b, "%s:%d:%d: ", t->file, at.line != 0 ? at.line : t->line,
               at.line != 0 ? at.column : t->column);
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    t->fn(buf_cstr(&b), t->arg);
}

static void told(struct teller *t)
{
    if (t->n > CONFIG_ADVICE_MAX) {
        size_t more = t->n - CONFIG_ADVICE_MAX;

        t->n = 0;
        say(t, (struct yaml_pos){ 0 }, "and %zu more of these", more);
    }
}

static void about_route(struct teller *t, const struct config_route *route)
{
    t->file = route->file;
    t->line = route->line;
    t->column = route->column;
}

/* --- routes -------------------------------------------------------------------------------------- */

/* Whether every request that fits route fits other, which is asked first. */
static bool is_hidden(const struct config_route *route, const struct config_route *other)
{
    if (other == NULL || other == route || (other->port != 0 && other->port != route->port)) {
        return false;
    }
    if (other->match == CONFIG_MATCH_PREFIX) {
        return sv_starts(route->match_value, other->match_value);
    }
    return other->match == CONFIG_MATCH_PATH && route->match == CONFIG_MATCH_PATH;
}

/* Whether the proxy itself answers every request that fits route. */
static bool is_own(const struct config_route *route)
{
    return route->match == CONFIG_MATCH_PATH
               ? route_own_path(route->match_value)
               : sv_starts(route->match_value, SV("/.pomerium/")) ||
                     sv_starts(route->match_value, SV("/.well-known/pomerium/"));
}

void cli_advise_routes(const struct config *config, config_advice_fn fn, void *arg)
{
    struct route_table *table = route_table_new(config->routes, config->n_routes);
    struct teller t = { .fn = fn, .arg = arg };

    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *route = &config->routes[i];
        const struct config_route *other = NULL;
        bool unclear = false;

        if (route->kind != CONFIG_ROUTE_HTTP || route->match == CONFIG_MATCH_REGEX) {
            continue;
        }
        about_route(&t, route);
        if (is_own(route)) {
            say(&t, (struct yaml_pos){ 0 },
                "no request gets here: on every host the proxy answers %s itself",
                route->match_value.p);
            continue;
        }
        /* A host with '*' is asked for as it is written: what fits that fits all its hosts. */
        other = route_table_find(table, route->host,
                                 route->port != 0 ? route->port : (route->from_https ? 443 : 80),
                                 route->match_value, &unclear);
        if (is_hidden(route, other)) {
            say(&t, (struct yaml_pos){ 0 },
                "no request gets here: %s at line %d takes all of %s%s; put this route before it",
                other->match == CONFIG_MATCH_PREFIX ? "the prefix" : "the path", other->line,
                route->from.p, route->match_value.n > 1 ? route->match_value.p : "");
        }
    }
    told(&t);
    route_table_free(&table);
}

/* --- rules --------------------------------------------------------------------------------------- */

static void on_advice(void *arg, struct yaml_pos at, const char *sentence)
{
    say(arg, at, "%s", sentence);
}

/* Calls fn for every policy that compiles: the central ones, then the routes'. */
typedef void (*policy_fn)(struct teller *t, const struct policy *policy, void *arg);

static void each_policy(const struct config *config, struct teller *t, policy_fn fn, void *arg)
{
    struct policy_central *central = policy_central_new(config->policies, config->policies_doc);
    const struct policy_source base = { .central = central,
                                        .mtls_default_deny = config_mtls_default_deny(config) };

    t->file = config->policies_doc != NULL ? yaml_file(config->policies_doc) : "";
    for (size_t i = 0; i < policy_central_count(central); i++) {
        if (policy_central_at(central, i)->rules.policy != NULL) {
            fn(t, policy_central_at(central, i)->rules.policy, arg);
        }
    }
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *route = &config->routes[i];
        struct policy *policy = NULL;
        struct diag d = { .line = 0 };

        about_route(t, route);
        if (policy_compile_route(route->json, route->doc, &base, &policy, NULL, &d) == ERR_OK) {
            fn(t, policy, arg);
        }
        policy_unref(&policy);
    }
    policy_central_unref(&central);
}

static void advise_policy(struct teller *t, const struct policy *policy, void *arg)
{
    (void)arg;
    policy_advise(policy, on_advice, t);
}

void cli_advise_policies(const struct config *config, config_advice_fn fn, void *arg)
{
    struct teller t = { .fn = fn, .arg = arg };

    each_policy(config, &t, advise_policy, NULL);
    told(&t);
}

/* --- groups -------------------------------------------------------------------------------------- */

/* A group that some policy asks for; where first. */
struct group {
    const char *file;
    struct yaml_pos at;
    bool seen;
};

struct groups {
    struct map *by_name;
    struct teller *teller; /* knows the file of the policy that is looked at */
};

static void on_group(void *arg, struct yaml_pos at, struct sv name)
{
    struct groups *groups = arg;

    if (map_get(groups->by_name, name) == NULL) {
        struct group *group = MEM_NEW(struct group);

        *group = (struct group){ .file = groups->teller->file, .at = at };
        if (at.line == 0) {
            group->at = (struct yaml_pos){ groups->teller->line, groups->teller->column };
        }
        (void)map_set(groups->by_name, name, group);
    }
}

static void gather_groups(struct teller *t, const struct policy *policy, void *arg)
{
    (void)t;
    policy_each_group(policy, on_group, arg);
}

static void see_all(const struct groups *groups, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *name = json_array_get(list, i);
        struct group *group = json_is_string(name)
                                  ? map_get(groups->by_name, sv_from(json_string_value(name)))
                                  : NULL;

        if (group != NULL) {
            group->seen = true;
        }
    }
}

static bool on_member(const json_t *person, void *arg)
{
    see_all(arg, json_object_get(person, "groups"));
    see_all(arg, json_object_get(json_object_get(person, "user_claims"), "groups"));
    see_all(arg, json_object_get(json_object_get(person, "claims"), "groups"));
    return true;
}

static void tell_group(struct sv name, void *value, void *arg)
{
    const struct groups *groups = arg;
    const struct group *group = value;

    if (!group->seen) {
        groups->teller->file = group->file;
        say(groups->teller, group->at,
            "nobody is in the group \"%.*s\": look at its spelling; `groups` are those of the "
            "directory, `claim/groups` those that the provider tells at a login",
            (int)MIN(name.n, (size_t)100), name.p);
    }
}

static void free_group(struct sv name, void *value, void *arg)
{
    (void)name;
    (void)arg;
    mem_free(&value);
}

bool cli_advise_groups(const struct config *config, const char *users,
                       const struct cli_broker *broker, config_advice_fn fn, void *arg)
{
    struct teller t = { .fn = fn, .arg = arg };
    struct groups groups = { .by_name = map_new(), .teller = &t };
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    enum err err = ERR_OK;

    each_policy(config, &t, gather_groups, &groups);
    if (map_count(groups.by_name) != 0) {
        err = users != NULL ? cli_people_of_file(users, on_member, &groups, &d)
                            : cli_people_of_broker(broker, on_member, &groups);
    }
    if (err == ERR_OK) {
        map_each(groups.by_name, tell_group, &groups);
        told(&t);
    } else if (users != NULL) {
        (void)cli_fail(1, "%s", diag_format(&d, line));
    }
    map_each(groups.by_name, free_group, NULL);
    map_free(&groups.by_name);
    return err == ERR_OK;
}
