
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/policy/central.h"
#include "common/policy/cert.h"
#include "common/policy/scan.h"
#include "test/support/cmocka.h"

static struct policy *compile(const char *text)
{
    struct policy *policy = NULL;
    struct diag d = { 0 };

    if (policy_compile_text(sv_from(text), "p", NULL, &policy, NULL, &d) != ERR_OK) {
        fail_msg("%s: %s", text, d.text);
    }
    return policy;
}

static enum policy_outcome ask(const char *text, const struct policy_input *in)
{
    CLEANUP(policy_unref) struct policy *policy = compile(text);
    struct policy_verdict v = { 0 };

    policy_eval(policy, in, &v);
    return v.outcome;
}

static struct policy_input person(const char *email)
{
    return (struct policy_input){ .session = true,
                                  .user_id = policy_text_of(SV("u-1")),
                                  .email = policy_text_of(sv_from(email)),
                                  .method = SV("GET"),
                                  .path = SV("/") };
}

static void the_zero_of_everything_denies(void **state)
{
    struct policy_verdict v = { 0 };

    (void)state;
    assert_int_equal(v.outcome, POLICY_DENY);
    assert_int_equal(policy_status(&v, true), 403);
    assert_int_equal(policy_status(&v, false), 403);
}

static void groups_that_could_not_be_had_count_against_the_visitor(void **state)
{
    static const char *const allows[] = { "groups: {has: a}", "groups: {exclude: a}" };
    struct policy_input in = person("a@x.test");
    char text[160];

    (void)state;
    in.groups_missed = true;
    for (size_t i = 0; i < ARRAY_LEN(allows); i++) {
        (void)snprintf(text, sizeof(text), "allow: {or: [{%s}]}", allows[i]);
        assert_int_equal(ask(text, &in), POLICY_DENY);
        (void)snprintf(text, sizeof(text), "allow: {not: [{%s}]}", allows[i]);
        assert_int_equal(ask(text, &in), POLICY_DENY);
        (void)snprintf(text, sizeof(text), "{allow: {or: [{accept: true}]}, deny: {or: [{%s}]}}",
                       allows[i]);
        assert_int_equal(ask(text, &in), POLICY_DENY);
        (void)snprintf(text, sizeof(text), "{allow: {or: [{accept: true}]}, deny: {not: [{%s}]}}",
                       allows[i]);
        assert_int_equal(ask(text, &in), POLICY_DENY);
    }
    in.groups_missed = false; /* nobody said that there are any */
    assert_int_equal(ask("{allow: {or: [{accept: true}]}, deny: {or: [{groups: {has: a}}]}}", &in),
                     POLICY_ALLOW);
}

static void no_policy_is_unavailable(void **state)
{
    const struct policy_input in = { .session = true };
    struct policy_verdict v = { 0 };

    (void)state;
    policy_eval(NULL, &in, &v);
    assert_int_equal(v.outcome, POLICY_UNAVAILABLE);
    assert_int_equal(v.status, 503);
    assert_true(policy_reasons(&v) == POLICY_REASON_BIT(POLICY_REASON_POLICY_INVALID));
}

static void reasons_have_stable_numbers_and_unique_names(void **state)
{
    policy_reason_set set =
        POLICY_REASON_BIT(POLICY_REASON_EMAIL_OK) | POLICY_REASON_BIT(POLICY_REASON_ACCEPT);
    unsigned i = 0;

    (void)state;
    for (i = 1; i < POLICY_REASON_COUNT; i++) {
        const char *name = policy_reason_name((enum policy_reason)i);

        assert_string_not_equal(name, "unknown");
        assert_int_equal(policy_reason_of(sv_from(name)), i);
    }
    assert_string_equal(policy_reason_name(POLICY_REASON_COUNT), "unknown");
    assert_string_equal(policy_reason_name(POLICY_REASON_NONE), "unknown");
    assert_int_equal(policy_reason_of(SV("unknown")), POLICY_REASON_NONE);
    assert_int_equal(POLICY_REASON_POLICY_INVALID, 48); /* on the wire */
    assert_int_equal(POLICY_REASON_USER_UNAUTHENTICATED, 37);
    assert_int_equal(policy_reason_next(&set), POLICY_REASON_ACCEPT);
    assert_int_equal(policy_reason_next(&set), POLICY_REASON_EMAIL_OK);
    assert_int_equal(policy_reason_next(&set), POLICY_REASON_NONE);
    set = POLICY_REASON_BIT(127) | POLICY_REASON_BIT(64) | POLICY_REASON_BIT(63);
    assert_int_equal(policy_reason_next(&set), 63);
    assert_int_equal(policy_reason_next(&set), 64);
    assert_int_equal(policy_reason_next(&set), 127);
    assert_int_equal(policy_reason_next(&set), POLICY_REASON_NONE);
}

/* Whatever combination of identity criteria stands there: nobody without a session is let in. */
static void identity_criteria_never_admit_an_anonymous_visitor(void **state)
{
    static const char *const criteria[] = {
        "authenticated_user: 1",
        "user: u",
        "user: {not: u}",
        "email: {not: a}",
        "email: {not_in: []}",
        "email: {}",
        "email: {contains: ''}",
        "domain: {not: a}",
        "domain: {}",
        "groups: {exclude: a}",
        "groups: {}",
        "claim/a: {exclude: b}",
        "claim/a: {}",
        "device: {}",
        "device: {approved: 0}",
        "ssh_username_matches_email: 1",
        "ssh_username_matches_claim: a",
        "record: {type: a, exists: false}",
        "record: {type: a, field: b, not: c}",
    };
    static const char *const combine[] = { "and", "or", "not", "nor" };
    const struct policy_input in = { .method = SV("GET"), .path = SV("/") };
    char text[256];
    size_t i = 0;
    size_t j = 0;
    size_t k = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(criteria); i++) {
        for (j = 0; j < ARRAY_LEN(criteria); j++) {
            for (k = 0; k < ARRAY_LEN(combine); k++) {
                (void)snprintf(text, sizeof(text), "allow: {%s: [{%s}, {%s}]}", combine[k],
                               criteria[i], criteria[j]);
                assert_int_equal(ask(text, &in), POLICY_LOGIN);
            }
        }
    }
}

/* Ten thousand names in every spelling, and what stands beside them. */
static void big_lists_answer_exactly(void **state)
{
    struct buf in_list;
    struct buf or_list;
    struct policy *policies[2] = { NULL, NULL };
    struct policy_input in = { 0 };
    struct policy_verdict v = { 0 };
    unsigned i = 0;

    (void)state;
    buf_init(&in_list, 1 << 22);
    buf_init(&or_list, 1 << 22);
    buf_add_str(&in_list, "allow: {or: [{email: {in: [");
    buf_add_str(&or_list, "allow: {or: [");
    for (i = 0; i < 10000; i++) {
        buf_printf(&in_list, "%su%u@acme.test", i == 0 ? "" : ", ", i * 2);
        buf_printf(&or_list, "%s{email: u%u@acme.test}", i == 0 ? "" : ", ", i * 2);
    }
    buf_add_str(&in_list, "]}}]}");
    buf_add_str(&or_list, "]}");
    policies[0] = compile(buf_cstr(&in_list));
    policies[1] = compile(buf_cstr(&or_list));
    for (i = 0; i < 20002; i += 7) {
        char email[32];

        (void)snprintf(email, sizeof(email), "u%u@acme.test", i);
        in = person(email);
        policy_eval(policies[0], &in, &v);
        assert_int_equal(v.outcome, i % 2 == 0 && i < 20000 ? POLICY_ALLOW : POLICY_DENY);
        in.email.hash = 0; /* a text without its hash is the same text */
        policy_eval(policies[1], &in, &v);
        assert_int_equal(v.outcome, i % 2 == 0 && i < 20000 ? POLICY_ALLOW : POLICY_DENY);
    }
    policy_unref(&policies[0]);
    policy_unref(&policies[1]);
    buf_deinit(&in_list);
    buf_deinit(&or_list);
}

/* A few kilobytes of aliases must not become gigabytes of policy. */
static void aliases_cannot_blow_a_policy_up(void **state)
{
    static const char *const bodies[] = {
        "[{email: a@b.c}, {email: b@b.c}, {user: c}, {http_path: /}]",
        "[{email: {in: [a, b, c, d]}}, {source_ip: [10.0.0.1, 10.0.0.2]}]",
    };
    size_t i = 0;
    size_t j = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(bodies); i++) {
        struct policy *policy = NULL;
        enum policy_fault fault = POLICY_FAULT_NONE;
        struct buf text;

        buf_init(&text, 1 << 22);
        buf_printf(&text, "- allow: &rule {or: %s}\n", bodies[i]);
        for (j = 0; j < 70000; j++) {
            buf_add_str(&text, "- allow: *rule\n");
        }
        assert_int_equal(policy_compile_text(buf_sv(&text), "p", NULL, &policy, &fault, NULL),
                         ERR_INVALID);
        assert_int_equal(fault, POLICY_FAULT_DATA);
        buf_deinit(&text);
    }
}

struct fault_row {
    const char *text;
    enum policy_fault fault;
    int line;
    int column;
    const char *part; /* of the sentence */
};

static void mistakes_have_class_place_and_hint(void **state)
{
    static const struct fault_row rows[] = {
        { "allow:\n  or:\n    - emial: a@b.c\n", POLICY_FAULT_UNKNOWN_CRITERION, 3, 7,
          "did you mean \"email\"" },
        { "allow:\n  or:\n    - http_methd: GET\n", POLICY_FAULT_UNKNOWN_CRITERION, 3, 7,
          "\"http_method\"" },
        { "allow:\n  xor: []\n", POLICY_FAULT_SHAPE, 2, 3, "did you mean or" },
        { "allow:\n  or:\n    - email:\n        start_with: x\n", POLICY_FAULT_OPERATOR, 4, 9,
          "did you mean \"starts_with\"" },
        { "- allow: {}\n- permit: {}\n", POLICY_FAULT_SHAPE, 2, 3, "allow and deny" },
        { "allow:\n  or:\n    - source_ip:\n        - 10.0.0.1\n        - nonsense\n",
          POLICY_FAULT_DATA, 5, 11, "nonsense" },
        { "allow:\n  or:\n    - accept: 1\n      reject: 1\n", POLICY_FAULT_SHAPE, 3, 7,
          "exactly one key" },
        { "deny:\n  or:\n    - http_path: /a%20b\n", POLICY_FAULT_DATA, 3, 7, "compared decoded" },
        { "deny:\n  or:\n    - http_path: {in: [/a, /%41]}\n", POLICY_FAULT_DATA, 3, 7,
          "compared decoded" },
        { "deny:\n  or:\n    - http_path: {starts_with: /a%2fb}\n", POLICY_FAULT_DATA, 3, 7,
          "compared decoded" },
        { "allow: [1\n", POLICY_FAULT_YAML, 2, 1, "not YAML" },
        { "", POLICY_FAULT_YAML, 0, 0, "empty" },
        { "allow:\n  or:\n    - user: 5\n", POLICY_FAULT_COMPILE, 3, 7, "quote" },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct policy *policy = NULL;
        enum policy_fault fault = POLICY_FAULT_NONE;
        struct diag d = { 0 };

        assert_int_equal(
            policy_compile_text(sv_from(rows[i].text), "p.yaml", NULL, &policy, &fault, &d),
            ERR_INVALID);
        assert_null(policy);
        if (fault != rows[i].fault || strstr(d.text, rows[i].part) == NULL ||
            d.line != rows[i].line || d.column != rows[i].column) {
            fail_msg("%s gave %s %d:%d %s", rows[i].text, policy_fault_name(fault), d.line,
                     d.column, d.text);
        }
        assert_string_equal(d.file, "p.yaml");
    }
}

static void a_route_is_read_as_in_the_configuration(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    CLEANUP(policy_unref) struct policy *policy = NULL;
    struct policy_source source = { .mtls_default_deny = true };
    struct policy_input in = person("ana@acme.test");
    struct policy_verdict v = { 0 };

    (void)state;
    assert_int_equal(yaml_parse(SV("from: x\nallowed_users: [ana@acme.test]\npolicy:\n"
                                   "  - deny: {or: [{http_path: /secret}]}\n"),
                                "c.yaml", &doc, NULL),
                     ERR_OK);
    assert_int_equal(policy_source_of_route(yaml_root(doc), doc, &source, NULL), ERR_OK);
    assert_true(source.mtls_default_deny);
    assert_int_equal(policy_compile(&source, &policy, NULL, NULL), ERR_OK);
    policy_eval(policy, &in, &v);
    assert_int_equal(v.outcome, POLICY_ALLOW);
    in.path = SV("/secret");
    policy_eval(policy, &in, &v);
    assert_int_equal(v.outcome, POLICY_DENY);
    in.path = SV("/");
    in.client_ca = true;
    policy_eval(policy, &in, &v);
    assert_int_equal(v.status, 495);
    in.cert_presented = true;
    in.cert_trusted = true;
    policy_eval(policy, &in, &v);
    assert_int_equal(v.outcome, POLICY_ALLOW);
}

/* "/;/secret" is "/secret" to a server that cuts parameters off: where that makes a difference, it is
 * the one against the visitor. */
static void a_path_that_servers_read_in_two_ways_counts_against_its_visitor(void **state)
{
    static const struct {
        const char *policy;
        const char *path;
        enum policy_outcome outcome;
    } rows[] = {
        { "[{allow: {or: [{accept: 1}]}}, {deny: {or: [{http_path: {starts_with: /secret}}]}}]",
          "/;/secret", POLICY_DENY },
        { "[{allow: {or: [{accept: 1}]}}, {deny: {or: [{http_path: {starts_with: /secret/}}]}}]",
          "/secret;x/y", POLICY_DENY },
        { "[{allow: {or: [{accept: 1}]}}, {deny: {or: [{http_path: {starts_with: /secret}}]}}]",
          "/page;jsessionid=1", POLICY_ALLOW },
        { "[{allow: {or: [{http_path: {starts_with: /;/}}]}}]", "/;/secret", POLICY_DENY },
        { "[{allow: {or: [{http_path: {starts_with: /open/}}]}}]", "/open/a;b", POLICY_ALLOW },
        { "[{allow: {not: [{http_path: {starts_with: /secret}}]}}]", "/;x/secret", POLICY_DENY },
        { "[{allow: {or: [{http_path: {not: /secret}}]}}]", "/secret;x", POLICY_DENY },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        CLEANUP(policy_unref) struct policy *policy = NULL;
        struct policy_input in = person("ana@acme.test");
        struct policy_verdict v = { 0 };

        in.path = sv_from(rows[i].path);
        assert_int_equal(
            policy_compile_text(sv_from(rows[i].policy), "p.yaml", NULL, &policy, NULL, NULL),
            ERR_OK);
        policy_eval(policy, &in, &v);
        if (v.outcome != rows[i].outcome) {
            fail_msg("%s is wrong about %s", rows[i].policy, rows[i].path);
        }
    }
}

/* Nobody reads which tool is called: a deny rule about it would silently keep nobody out. */
static void a_rule_that_no_request_can_be_asked_closes_the_route(void **state)
{
    static const struct {
        const char *route;
        int line;
    } rows[] = {
        { "from: x\npolicy:\n  - deny: {or: [{mcp_tool: drop}]}\n", 3 },
        { "from: x\npolicy:\n  - allow: {or: [{accept: 1}, {mcp_tool: {not: drop}}]}\n", 3 },
        { "from: x\nallow_any_authenticated_user: true\npolicies: tools\n", 3 },
    };
    CLEANUP(yaml_doc_free) struct yaml_doc *tools = NULL;
    CLEANUP(policy_central_unref) struct policy_central *central = NULL;
    struct policy_source base = { 0 };

    (void)state;
    assert_int_equal(yaml_parse(SV("tools: {policy: [{deny: {or: [{mcp_tool: drop}]}}]}"), "c.yaml",
                                &tools, NULL),
                     ERR_OK);
    central = policy_central_new(yaml_root(tools), tools);
    base.central = central;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
        struct policy *policy = NULL;
        enum policy_fault fault = POLICY_FAULT_NONE;
        struct diag d = { 0 };

        assert_int_equal(yaml_parse(sv_from(rows[i].route), "c.yaml", &doc, NULL), ERR_OK);
        assert_int_equal(policy_compile_route(yaml_root(doc), doc, &base, &policy, &fault, &d),
                         ERR_INVALID);
        assert_null(policy);
        assert_int_equal(fault, POLICY_FAULT_ROUTE);
        assert_non_null(strstr(d.text, "mcp_tool"));
        assert_int_equal(d.line, rows[i].line);
    }
}

static void a_route_key_of_the_wrong_type_is_refused(void **state)
{
    static const char *const routes[] = {
        "allow_public_unauthenticated_access: \"true\"",
        "allow_any_authenticated_user: 1",
        "cors_allow_preflight: [true]",
        "allowed_users: ana",
        "allowed_domains: {a: b}",
        "allowed_groups: [x]",
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(routes); i++) {
        CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
        struct policy_source source = { 0 };
        struct diag d = { 0 };

        assert_int_equal(yaml_parse(sv_from(routes[i]), "c.yaml", &doc, NULL), ERR_OK);
        assert_int_equal(policy_source_of_route(yaml_root(doc), doc, &source, &d), ERR_INVALID);
        assert_int_equal(d.line, 1);
    }
}

static void our_own_paths_need_a_session_or_nothing(void **state)
{
    struct policy_input in = { 0 };
    struct policy_verdict v = { 0 };

    (void)state;
    assert_true(policy_path_needs_session(SV("/.pomerium/user")));
    assert_false(policy_path_needs_session(SV("/.pomerium")));
    assert_false(policy_path_needs_session(SV("/.pomerium/users")));
    policy_eval_internal(&in, true, &v);
    assert_int_equal(v.outcome, POLICY_LOGIN);
    assert_int_equal(policy_status(&v, true), 302);
    assert_int_equal(policy_status(&v, false), 401);
    policy_eval_internal(&in, false, &v);
    assert_int_equal(v.outcome, POLICY_ALLOW);
    in.session = true;
    policy_eval_internal(&in, true, &v);
    assert_int_equal(v.outcome, POLICY_ALLOW);
    v = policy_verdict_not_found();
    assert_int_equal(policy_status(&v, true), 404);
}

static void references_keep_a_policy_alive(void **state)
{
    struct policy *policy = compile("allow: {or: [accept: 1]}");
    struct policy *other = policy_ref(policy);
    const struct policy_input in = { 0 };
    struct policy_verdict v = { 0 };

    (void)state;
    policy_unref(&policy);
    assert_null(policy);
    policy_unref(&policy);
    policy_eval(other, &in, &v);
    assert_int_equal(v.outcome, POLICY_ALLOW);
    policy_unref(&other);
}

static void values_out_of_reach_are_never_equal(void **state)
{
    const struct policy_scalar nested[] = { { .kind = POLICY_KIND_OTHER } };
    const struct policy_claim claims[] = {
        { .name = policy_text_of(SV("a")), .values = nested, .count = 1 },
    };
    struct policy_input in = person("a@b.c");

    (void)state;
    in.session_claims = (struct policy_claims){ .items = claims, .count = 1 };
    assert_int_equal(ask("allow: {or: [claim/a: x]}", &in), POLICY_DENY);
    assert_int_equal(ask("allow: {or: [claim/a: null]}", &in), POLICY_DENY);
    assert_int_equal(ask("allow: {or: [claim/a: {exclude: x}]}", &in), POLICY_ALLOW);
}

static void a_certificate_that_is_none_has_no_facts(void **state)
{
    struct policy_cert_facts *facts = NULL;
    static const char big[POLICY_CERT_DER_MAX + 1];

    (void)state;
    assert_int_equal(policy_cert_of_der(SV(""), &facts), ERR_INVALID);
    assert_int_equal(policy_cert_of_der(SV("\x30\x03\x02\x01\x01"), &facts), ERR_INVALID);
    assert_int_equal(policy_cert_of_der(sv_of(big, sizeof(big)), &facts), ERR_LIMIT);
    assert_int_equal(policy_cert_of_pem(SV("-----BEGIN CERTIFICATE-----\n"), &facts), ERR_INVALID);
    assert_null(facts);
    policy_cert_free(&facts);
}

static void names_near_a_mistake_are_found(void **state)
{
    static const char *const names[] = { "email", "domain", "source_ip" };

    (void)state;
    assert_string_equal(policy_scan_nearest(SV("emal"), names, 3), "email");
    assert_string_equal(policy_scan_nearest(SV("sourceip"), names, 3), "source_ip");
    assert_null(policy_scan_nearest(SV("weather"), names, 3));
    assert_null(policy_scan_nearest(SV(""), names, 3));
    assert_null(policy_scan_nearest(SV("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"),
                                    names, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_zero_of_everything_denies),
        cmocka_unit_test(no_policy_is_unavailable),
        cmocka_unit_test(groups_that_could_not_be_had_count_against_the_visitor),
        cmocka_unit_test(reasons_have_stable_numbers_and_unique_names),
        cmocka_unit_test(identity_criteria_never_admit_an_anonymous_visitor),
        cmocka_unit_test(big_lists_answer_exactly),
        cmocka_unit_test(aliases_cannot_blow_a_policy_up),
        cmocka_unit_test(mistakes_have_class_place_and_hint),
        cmocka_unit_test(a_route_is_read_as_in_the_configuration),
        cmocka_unit_test(a_rule_that_no_request_can_be_asked_closes_the_route),
        cmocka_unit_test(a_path_that_servers_read_in_two_ways_counts_against_its_visitor),
        cmocka_unit_test(a_route_key_of_the_wrong_type_is_refused),
        cmocka_unit_test(our_own_paths_need_a_session_or_nothing),
        cmocka_unit_test(references_keep_a_policy_alive),
        cmocka_unit_test(values_out_of_reach_are_never_equal),
        cmocka_unit_test(a_certificate_that_is_none_has_no_facts),
        cmocka_unit_test(names_near_a_mistake_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
