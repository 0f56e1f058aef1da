/* The section `policies`: its shape, and which headers the policies of a route ask for. */
#include <string.h>

#include "common/config/config.h"
#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "authenticate_service_url: https://login.localhost\n"
#define ROUTE(host, more) "  - from: https://" host "\n    to: http://c\n" more

static const struct config_opts opts = { .file = "/c.yaml", .part = CONFIG_PART_PROXY };

static void every_mistake_is_named_with_its_place(void **state)
{
    static const struct {
        const char *yaml;
        const char *error;
    } rows[] = {
        { HEAD "policies: [a]\n", "/c.yaml:4:1: policies: expected names with a policy" },
        { HEAD "policies:\n  a: 7\n", "/c.yaml:5:3: expected a mapping" },
        { HEAD "policies:\n  a b: {policy: 7}\n", "/c.yaml:5:3: policies: a name has" },
        { HEAD "policies:\n  '': {policy: 7}\n", "/c.yaml:5:3: policies: a name has" },
        { HEAD "policies:\n  a: {enforcd: true}\n",
          "/c.yaml:5:7: unknown setting of a policy \"enforcd\"; did you mean \"enforced\"?" },
        { HEAD "policies:\n  a: {enforced: yes}\n", "/c.yaml:5:7: enforced: expected true" },
        { HEAD "policies:\n  a: {enforced: true, default: true}\n",
          "/c.yaml:5:3: policies: \"enforced\" already holds" },
        { HEAD "policies:\n  a: {policy: 7}\n  a: {policy: 8}\n", "/c.yaml:6:3: " },
        { HEAD "routes:\n" ROUTE("a.b", "    policies: {staff: 1}\n"),
          "/c.yaml:7:5: policies: expected a list" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config *config = NULL;
        struct config_errors *errors = NULL;
        bool found = false;

        if (config_parse(sv_from(rows[i].yaml), &opts, &config, &errors) == ERR_OK) {
            fail_msg("accepted: %s", rows[i].yaml);
        }
        for (size_t k = 0; k < config_errors_count(errors); k++) {
            found = found || strncmp(config_errors_text(errors, k), rows[i].error,
                                     strlen(rows[i].error)) == 0;
        }
        if (!found) {
            fail_msg("wanted: %s\n   got: %s", rows[i].error, config_errors_text(errors, 0));
        }
        config_errors_free(&errors);
    }
}

static void assert_headers(const struct config *config, size_t route, const char *want)
{
    const struct config_strings *got = &config->routes[route].policy_headers;
    struct sv rest = sv_from(want);
    size_t n = 0;

    while (rest.p != NULL && want[0] != '\0') {
        struct sv name = sv_cut(&rest, ' ');

        assert_true(n < got->n);
        if (!sv_eq(got->v[n], name)) {
            fail_msg("route %zu: %.*s for %.*s", route, SV_ARG(got->v[n]), SV_ARG(name));
        }
        n++;
    }
    assert_int_equal(n, got->n);
}

static void a_route_knows_which_headers_its_policies_ask_for(void **state)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    const char *text =
        HEAD "policies:\n"
             "  team: {policy: [{allow: {and: [{header/X-Team: a}, {header/x-team: b}]}}]}\n"
             "  other: {policy: {allow: {or: [{header/X-Other: a}]}}}\n"
             "routes:\n" ROUTE("a.b", "    policy: {allow: {or: [{email: header/X-No}]}}\n")
                 ROUTE("b.b", "    policies: team\n")
                     ROUTE("c.b", "    policies: [other, team]\n"
                                  "    policy: [{deny: {not: [{header/X-Own: {is: a}}]}}]\n");

    (void)state;
    assert_int_equal(config_parse(sv_from(text), &opts, &config, &errors), ERR_OK);
    assert_null(config->policies); /* the proxy compiles none */
    assert_headers(config, 0, "");
    assert_headers(config, 1, "x-team");
    assert_headers(config, 2, "x-own x-team x-other");
    config_unref(&config);
}

static void headers_of_enforced_and_default_policies_are_asked_for_everywhere(void **state)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    const char *text = HEAD "routes:\n" ROUTE(
        "a.b",
        "    policy: {allow: {or: [{email: a}]}}\n") "policies:\n"
                                                     "  e: {enforced: true, policy: {deny: {or: [{header/X-E: a}]}}}\n"
                                                     "  d: {default: true, policy: {allow: {or: [{header/X-D: a}]}}}\n";

    (void)state;
    assert_int_equal(config_parse(sv_from(text), &opts, &config, &errors), ERR_OK);
    assert_headers(config, 0, "x-e x-d");
    config_unref(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mistake_is_named_with_its_place),
        cmocka_unit_test(a_route_knows_which_headers_its_policies_ask_for),
        cmocka_unit_test(headers_of_enforced_and_default_policies_are_asked_for_everywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
