#include "authorize/rules.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/policy/central.h"

/* Why a policy did not compile. */
struct mistake {
    enum policy_fault fault;
    struct diag why;
};

struct rule {
    struct policy *policy;   /* NULL: it did not compile */
    struct mistake *mistake; /* then */
    struct policy *shadow;   /* NULL: none, or it did not compile */
    uint32_t profile;
    int line; /* of the route, when it was compiled */
};

struct authz_rules {
    struct config *config;
    struct assertion_keys *keys;
    struct sealer *at_rest;
    struct authz_front *front;
    bool want_tokens;
    struct policy_central *central; /* NULL: none */
    struct rule *rules;             /* by config_route.index */
    struct authz_profile *profiles;
    size_t n_profiles;
    size_t n_invalid;
    size_t n_shadows;
};

static bool same_profile(const struct authz_profile *a, const struct authz_profile *b)
{
    if (a->issuer != b->issuer || a->tell != b->tell || a->groups_filter.n != b->groups_filter.n) {
        return false;
    }
    for (size_t i = 0; i < a->groups_filter.n; i++) {
        if (!sv_eq(a->groups_filter.v[i], b->groups_filter.v[i])) {
            return false;
        }
    }
    return true;
}

static uint32_t profile_take(struct authz_rules *rules, struct authz_profile profile)
{
    for (size_t i = 0; i < rules->n_profiles; i++) {
        if (same_profile(&rules->profiles[i], &profile)) {
            return (uint32_t)i;
        }
    }
    rules->profiles = mem_realloc(rules->profiles, rules->n_profiles + 1, sizeof(*rules->profiles));
    rules->profiles[rules->n_profiles] = profile;
    return (uint32_t)rules->n_profiles++;
}

static void rule_fail(struct rule *rule, enum policy_fault fault, const struct diag *why)
{
    rule->mistake = MEM_NEW(struct mistake);
    *rule->mistake = (struct mistake){ .fault = fault, .why = *why };
}

static void compile(struct rule *rule, const struct authz_rules *rules,
                    const struct config_route *route)
{
    const struct policy_source base = { .central = rules->central,
                                        .mtls_default_deny =
                                            config_mtls_default_deny(rules->config) };
    enum policy_fault fault = POLICY_FAULT_NONE;
    struct diag d = { .line = 0 };

    rule->line = route->line;
    if (route->json == NULL) { /* it was to be taken over, from rules that are not there */
        diag_set(&d, "the route is known without its policy; restart authorize");
        rule_fail(rule, POLICY_FAULT_ROUTE, &d);
    } else if (policy_compile_route(route->json, route->doc, &base, &rule->policy, &fault, &d) !=
               ERR_OK) {
        rule_fail(rule, fault, &d);
    }
}

/* A mistake in a policy that does not count closes nothing. */
static void compile_shadow(struct rule *rule, const struct authz_rules *rules,
                           const struct config_route *route)
{
    const struct policy_source base = { .central = rules->central,
                                        .mtls_default_deny =
                                            config_mtls_default_deny(rules->config) };
    enum policy_fault fault = POLICY_FAULT_NONE;
    struct diag d = { .line = 0 };
    char text[DIAG_LINE];

    if (policy_compile_shadow(route->json, route->doc, &base, &rule->shadow, &fault, &d) !=
        ERR_OK) {
        log_error("policy.shadow-invalid", KV_SV("route", route->from),
                  KV_SV("route-id", route->id_text), KV_STR("fault", policy_fault_name(fault)),
                  KV_STR("why", diag_format(&d, text)),
                  KV_STR("effect", "the shadow policy is not asked; the route is not touched"));
    }
}

/* The rule of a route about which nothing has changed. False: there is none. */
static bool take_over(struct rule *rule, const struct config_route *route,
                      const struct authz_rules *before)
{
    const struct config_route *was =
        before == NULL ? NULL : config_route_by_id(before->config, route->id);
    const struct rule *old = NULL;

    if (was == NULL || was->edition != route->edition) {
        return false;
    }
    old = &before->rules[was->index];
    rule->line = old->line;
    if (old->mistake != NULL) {
        rule_fail(rule, old->mistake->fault, &old->mistake->why);
        rule->mistake->why.line += rule->mistake->why.line == 0 ? 0 : route->line - was->line;
    } else {
        rule->policy = policy_ref(old->policy);
    }
    rule->shadow = old->shadow == NULL ? NULL : policy_ref(old->shadow);
    return true;
}

static void add_rule(struct authz_rules *rules, const struct config_route *route,
                     const struct authz_rules *before)
{
    struct rule *rule = &rules->rules[route->index];
    char text[DIAG_LINE];

    if (!take_over(rule, route, before)) {
        compile(rule, rules, route);
        compile_shadow(rule, rules, route);
    }
    rules->n_shadows += rule->shadow != NULL ? 1 : 0;
    if (rule->mistake != NULL) {
        rules->n_invalid++;
        log_error("policy.invalid", KV_SV("route", route->from), KV_SV("route-id", route->id_text),
                  KV_STR("fault", policy_fault_name(rule->mistake->fault)),
                  KV_STR("why", diag_format(&rule->mistake->why, text)));
    }
    rule->profile =
        profile_take(rules, (struct authz_profile){ .issuer = route->jwt_issuer_format,
                                                    .groups_filter = route->jwt_groups_filter,
                                                    .tell = route->tell });
    rules->want_tokens |= (route->tell & (CONFIG_TELL_ACCESS_TOKEN | CONFIG_TELL_ID_TOKEN)) != 0;
}

static void tell_central(const struct policy_central_item *item)
{
    char text[DIAG_LINE];

    if (item->rules.fault != POLICY_FAULT_NONE) {
        log_error("policy.invalid", KV_SV("policy", item->name),
                  KV_STR("fault", policy_fault_name(item->rules.fault)),
                  KV_STR("why", diag_format(&item->rules.why, text)));
    }
    if (item->shadow.fault != POLICY_FAULT_NONE) {
        log_error("policy.shadow-invalid", KV_SV("policy", item->name),
                  KV_STR("fault", policy_fault_name(item->shadow.fault)),
                  KV_STR("why", diag_format(&item->shadow.why, text)),
                  KV_STR("effect", "its routes are asked no shadow policy; they are not touched"));
    }
}

/* The named policies; those that were before, where nothing about them has changed and there is no
 * place in them to tell. */
static void add_central(struct authz_rules *rules, const struct authz_rules *before)
{
    const struct config *c = rules->config;

    if (before != NULL && before->config->policies_edition == c->policies_edition &&
        policy_central_broken(before->central) == 0) {
        rules->central = policy_central_ref(before->central);
        return;
    }
    rules->central = policy_central_new(c->policies, c->policies_doc);
    for (size_t i = 0; i < policy_central_count(rules->central); i++) {
        tell_central(policy_central_at(rules->central, i));
    }
}

static enum err load_keys(struct authz_rules *rules, struct diag *d)
{
    if (rules->config->signing_key != NULL) {
        return assertion_keys_of_pem(secret_bytes(rules->config->signing_key), &rules->keys, d);
    }
    enum err err = assertion_keys_of_shared(rules->config->keys, &rules->keys);

    if (err != ERR_OK) {
        diag_set(d, "the assertion key cannot be derived from shared_secret");
    }
    return err;
}

enum err authz_rules_new(const struct config *config, const struct authz_rules *before,
                         struct authz_rules **rules_out, struct diag *d)
{
    CLEANUP(authz_rules_free) struct authz_rules *rules = MEM_NEW(struct authz_rules);

    rules->config = config_ref(config);
    rules->at_rest = sealer_new(config->keys, KEYS_TOKEN_AT_REST);
    rules->front = authz_front_new(config);
    rules->rules = mem_array(config->n_routes + 1, sizeof(*rules->rules));
    enum err err = load_keys(rules, d);

    if (err != ERR_OK) {
        return err;
    }
    (void)profile_take(rules, (struct authz_profile){ .issuer = config->jwt_issuer_format,
                                                      .groups_filter = config->jwt_groups_filter,
                                                      .tell = CONFIG_TELL_HEADERS });
    add_central(rules, before);
    for (size_t i = 0; i < config->n_routes; i++) {
        add_rule(rules, &config->routes[i], before);
    }
    log_info("policy.loaded", KV_U64("routes", config->n_routes),
             KV_U64("invalid", rules->n_invalid), KV_STR("checksum", config->checksum));
    *rules_out = TAKE(rules);
    return ERR_OK;
}

void authz_rules_free(struct authz_rules **rules)
{
    struct authz_rules *r = TAKE(*rules);

    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->config->n_routes; i++) {
        policy_unref(&r->rules[i].policy);
        policy_unref(&r->rules[i].shadow);
        mem_free(&r->rules[i].mistake);
    }
    policy_central_unref(&r->central);
    sealer_free(&r->at_rest);
    authz_front_free(&r->front);
    mem_free(&r->rules);
    mem_free(&r->profiles);
    assertion_keys_free(&r->keys);
    config_unref(&r->config);
    mem_free(&r);
}

const struct config *authz_rules_config(const struct authz_rules *rules)
{
    return rules->config;
}

const struct assertion_keys *authz_rules_keys(const struct authz_rules *rules)
{
    return rules->keys;
}

struct sealer *authz_rules_at_rest(const struct authz_rules *rules)
{
    return rules->at_rest;
}

const struct authz_front *authz_rules_front(const struct authz_rules *rules)
{
    return rules->front;
}

bool authz_rules_want_tokens(const struct authz_rules *rules)
{
    return rules->want_tokens;
}

const struct policy *authz_rules_policy(const struct authz_rules *rules,
                                        const struct config_route *route)
{
    return rules->rules[route->index].policy;
}

const struct policy *authz_rules_shadow(const struct authz_rules *rules,
                                        const struct config_route *route)
{
    return rules->rules[route->index].shadow;
}

size_t authz_rules_shadows(const struct authz_rules *rules)
{
    return rules->n_shadows;
}

const char *authz_rules_mistake(const struct authz_rules *rules, const struct config_route *route,
                                char line[DIAG_LINE])
{
    const struct mistake *mistake = rules->rules[route->index].mistake;

    return mistake == NULL ? NULL : diag_format(&mistake->why, line);
}

int authz_rules_line_shift(const struct authz_rules *rules, const struct config_route *route)
{
    return route->line - rules->rules[route->index].line;
}

size_t authz_rules_profile(const struct authz_rules *rules, const struct config_route *route)
{
    return route != NULL ? rules->rules[route->index].profile : 0;
}

const struct authz_profile *authz_rules_profile_at(const struct authz_rules *rules, size_t index)
{
    CHECK(index < rules->n_profiles);
    return &rules->profiles[index];
}

size_t authz_rules_invalid(const struct authz_rules *rules)
{
    return rules->n_invalid;
}
