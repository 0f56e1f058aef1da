/* rules: what a reload compiles anew, and what it takes over. */
#include "authorize/rules.h"

#include <stdio.h>

#include "common/mem.h"
#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "authenticate_service_url: https://login.localhost\n"           \
    "routes:\n"
#define ROUTE(host, policy) "  - from: https://" host "\n    to: http://c\n    policy: " policy "\n"
#define USER(name)          "[{allow: {or: [{email: {is: " name "}}]}}]"
#define PAGES(policy_c)     \
    ROUTE("a.b", USER("a")) \
    ROUTE("b.b", USER("b")) \
    ROUTE("c.b", policy_c) ROUTE("d.b", USER("d")) ROUTE("e.b", "7") ROUTE("f.b", USER("f"))

struct stage {
    struct config *config;
    struct authz_rules *rules;
};

/* The next configuration; the rules before it stay, too. */
static struct stage next(const struct stage *before, const char *text)
{
    const struct config_opts opts = { .file = "/test.yaml",
                                      .part = CONFIG_PART_AUTHORIZE,
                                      .previous = before == NULL ? NULL : before->config };
    struct config_errors *errors = NULL;
    struct stage s = { .config = NULL };
    struct diag d = { .line = 0 };

    if (config_parse(sv_from(text), &opts, &s.config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    assert_int_equal(authz_rules_new(s.config, before == NULL ? NULL : before->rules, &s.rules, &d),
                     ERR_OK);
    return s;
}

static void end(struct stage *s)
{
    authz_rules_free(&s->rules);
    config_unref(&s->config);
}

static const struct policy *policy_of(const struct stage *s, size_t i)
{
    return authz_rules_policy(s->rules, &s->config->routes[i]);
}

static enum policy_outcome ask(const struct stage *s, size_t i, const char *email)
{
    struct policy_input in = { .session = true, .email = policy_text_of(sv_from(email)) };
    struct policy_verdict verdict = { .outcome = POLICY_DENY };

    policy_eval(policy_of(s, i), &in, &verdict);
    return verdict.outcome;
}

static void a_reload_compiles_only_what_has_changed(void **state)
{
    struct stage one = next(NULL, HEAD PAGES(USER("c")));
    struct stage two = next(&one, HEAD PAGES(USER("c2")));
    struct stage three = { .config = NULL };

    (void)state;
    assert_int_equal(ask(&one, 2, "c"), POLICY_ALLOW);
    assert_int_equal(ask(&two, 2, "c"), POLICY_DENY);
    assert_int_equal(ask(&two, 2, "c2"), POLICY_ALLOW);
    end(&one); /* what was taken over lives on */
    three = next(&two, HEAD ROUTE("0.b", USER("z")) PAGES(USER("c2")));
    assert_ptr_equal(policy_of(&three, 3), policy_of(&two, 2));
    assert_ptr_equal(policy_of(&three, 4), policy_of(&two, 3));
    assert_int_equal(ask(&three, 0, "z"), POLICY_ALLOW);
    assert_int_equal(ask(&three, 1, "a"), POLICY_ALLOW);
    assert_int_equal(ask(&three, 2, "b"), POLICY_ALLOW);
    assert_int_equal(ask(&three, 2, "a"), POLICY_DENY);
    end(&two);
    assert_int_equal(ask(&three, 4, "d"), POLICY_ALLOW);
    end(&three);
}

static void a_policy_that_does_not_compile_stays_closed(void **state)
{
    struct stage one = next(NULL, HEAD PAGES(USER("c")));
    struct stage two = next(&one, HEAD ROUTE("0.b", USER("z")) PAGES(USER("c")));

    (void)state;
    assert_int_equal(two.config->routes[5].edition, one.config->routes[4].edition);
    assert_null(policy_of(&two, 5));
    assert_int_equal(authz_rules_invalid(two.rules), 1);
    assert_int_equal(ask(&two, 5, "e"), POLICY_UNAVAILABLE);
    end(&one);
    end(&two);
}

/* A route of a configuration that these rules do not follow: there is nothing to compile it from. */
static void without_the_rules_before_nothing_is_open(void **state)
{
    struct stage one = next(NULL, HEAD PAGES(USER("c")));
    struct stage two = next(&one, HEAD ROUTE("0.b", USER("z")) PAGES(USER("c")));
    struct authz_rules *rules = NULL;
    struct diag d = { .line = 0 };

    (void)state;
    assert_int_equal(authz_rules_new(two.config, NULL, &rules, &d), ERR_OK);
    assert_ptr_equal(two.config->routes[3].json, NULL);
    assert_null(authz_rules_policy(rules, &two.config->routes[3]));
    authz_rules_free(&rules);
    end(&one);
    end(&two);
}

#define CENTRAL(staff, extra)                   \
    "policies:\n  staff: {policy: " staff "}\n" \
    "  no-x: {enforced: true, policy: [{deny: {or: [{email: {is: x}}]}}]}\n" extra
#define NAMED(host, names) "  - from: https://" host "\n    to: http://c\n    policies: " names "\n"

#define TEAM(policy_c, staff) \
    HEAD ROUTE("0.b", USER("z")) NAMED("g.b", "[staff]") PAGES(policy_c) CENTRAL(staff, "")

static void central_policies_stay_when_one_route_changes(void **state)
{
    struct stage one = next(NULL, TEAM(USER("c"), USER("s")));
    struct stage two = next(&one, TEAM(USER("x"), USER("s")));
    struct stage three = next(&two, TEAM(USER("x"), USER("t")));

    (void)state;
    assert_ptr_equal(policy_of(&two, 1), policy_of(&one, 1));
    assert_int_equal(ask(&one, 1, "s"), POLICY_ALLOW);
    end(&one);
    assert_int_equal(ask(&two, 1, "s"), POLICY_ALLOW);
    assert_int_equal(ask(&two, 4, "x"), POLICY_DENY); /* it lets x in, and no-x keeps x out */
    assert_int_equal(ask(&three, 1, "s"), POLICY_DENY);
    assert_int_equal(ask(&three, 1, "t"), POLICY_ALLOW);
    assert_int_equal(ask(&three, 4, "x"), POLICY_DENY);
    end(&two);
    end(&three);
}

static void a_central_mistake_closes_the_routes_it_applies_to(void **state)
{
    struct stage one = next(NULL, HEAD PAGES(USER("c")) NAMED("g.b", "[staff]")
                                      NAMED("h.b", "[stuff]") CENTRAL("7", ""));
    struct stage two = next(&one, HEAD PAGES(USER("d")) NAMED("g.b", "[staff]")
                                      NAMED("h.b", "[stuff]") CENTRAL("7", ""));
    struct stage three =
        next(&two, HEAD PAGES(USER("d")) CENTRAL(USER("s"), "  y: {enforced: true}\n"));

    (void)state;
    assert_int_equal(authz_rules_invalid(one.rules), 3);
    assert_int_equal(ask(&one, 0, "a"), POLICY_ALLOW);
    assert_int_equal(ask(&one, 6, "s"), POLICY_UNAVAILABLE);
    assert_int_equal(ask(&one, 7, "s"), POLICY_UNAVAILABLE);
    assert_int_equal(authz_rules_invalid(two.rules), 3);
    assert_int_equal(ask(&two, 6, "s"), POLICY_UNAVAILABLE);
    assert_int_equal(ask(&two, 7, "s"), POLICY_UNAVAILABLE);
    assert_int_equal(authz_rules_invalid(three.rules), 6);
    assert_int_equal(ask(&three, 0, "a"), POLICY_UNAVAILABLE);
    end(&one);
    end(&two);
    end(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_compiles_only_what_has_changed),
        cmocka_unit_test(a_policy_that_does_not_compile_stays_closed),
        cmocka_unit_test(without_the_rules_before_nothing_is_open),
        cmocka_unit_test(central_policies_stay_when_one_route_changes),
        cmocka_unit_test(a_central_mistake_closes_the_routes_it_applies_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
