/* The trace of a verdict says what was decided, for every case of the language: what its criteria
 * say, joined here once more by the words of docs/policy.md, is the verdict of the evaluator. */
#include "common/policy/trace.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "cli/policy_input.h"
#include "common/mem.h"
#include "common/policy/pred.h"
#include "test/support/cmocka.h"

static const char cases_file[] = "../shared/cases/policy/cases.jsonl";

static json_t *trace_of(const struct policy *policy, const struct policy_input *in,
                        struct policy_verdict *v_out)
{
    CLEANUP(buf_deinit) struct buf text;
    json_error_t error;
    json_t *trace = NULL;

    buf_init(&text, 1 << 20);
    policy_trace(policy, in, 0, &text, v_out);
    assert_int_equal(text.err, ERR_OK);
    trace = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &error);
    if (trace == NULL) {
        fail_msg("%s: %.*s", error.text, SV_ARG(buf_sv(&text)));
    }
    return trace;
}

static bool held(const json_t *object)
{
    return json_is_true(json_object_get(object, "held"));
}

/* docs/policy.md: and, or, not, nor. */
static bool rule_by_words(const json_t *rule)
{
    const char *op = json_string_value(json_object_get(rule, "operator"));
    const json_t *criteria = json_object_get(rule, "criteria");
    size_t n = json_array_size(criteria);
    size_t trues = 0;

    for (size_t i = 0; i < n; i++) {
        const json_t *criterion = json_array_get(criteria, i);

        trues += held(criterion) ? 1 : 0;
        assert_non_null(json_object_get(criterion, "name"));
        assert_true((json_object_get(criterion, "fact") != NULL) !=
                    (json_object_get(criterion, "missing") != NULL));
    }
    return strcmp(op, "and") == 0   ? trues == n
           : strcmp(op, "or") == 0  ? trues > 0
           : strcmp(op, "not") == 0 ? trues == 0
                                    : trues < n;
}

static void check_side(const char *name, const json_t *side, bool value)
{
    const json_t *rules = json_object_get(side, "rules");
    bool any = false;

    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *rule = json_array_get(rules, i);

        if (held(rule) != rule_by_words(rule)) {
            fail_msg("%s: a rule does not follow from its criteria", name);
        }
        any = any || held(rule);
    }
    if (any != value || held(side) != value) {
        fail_msg("%s: a side does not follow from its rules", name);
    }
}

static bool same_verdict(const struct policy_verdict *a, const struct policy_verdict *b)
{
    return a->outcome == b->outcome && a->status == b->status && a->allow == b->allow &&
           a->deny == b->deny && a->allow_reasons == b->allow_reasons &&
           a->deny_reasons == b->deny_reasons && a->reasons == b->reasons && a->flags == b->flags;
}

static struct policy *compile_case(const json_t *item, bool mtls_default_deny)
{
    const json_t *route = json_object_get(json_object_get(item, "input"), "route");
    const char *text = json_string_value(json_object_get(item, "policy"));
    struct policy_source source = { .mtls_default_deny = mtls_default_deny };
    struct policy *policy = NULL;
    struct diag d = { 0 };
    enum err err = ERR_OK;

    if (route != NULL) {
        err = policy_source_of_route(route, NULL, &source, &d);
    }
    if (err == ERR_OK && route != NULL && (text == NULL || text[0] == '\0')) {
        err = policy_compile(&source, &policy, NULL, &d);
    } else if (err == ERR_OK) {
        err = policy_compile_text(sv_from(text), "p", &source, &policy, NULL, &d);
    }
    return err == ERR_OK ? policy : NULL; /* some cases are about policies that are refused */
}

/* True: the case has a policy that could be traced. */
static bool check_case(const json_t *item)
{
    CLEANUP(cli_policy_facts_deinit) struct cli_policy_facts facts = { 0 };
    CLEANUP(policy_unref) struct policy *policy = NULL;
    const char *name = json_string_value(json_object_get(item, "name"));
    struct policy_verdict plain = { 0 };
    struct policy_verdict traced = { 0 };
    struct diag d = { 0 };
    json_t *trace = NULL;

    assert_int_equal(cli_policy_facts_init(&facts, json_object_get(item, "input"), &d), ERR_OK);
    policy = compile_case(item, facts.mtls_default_deny);
    if (policy == NULL) {
        return false;
    }
    policy_eval(policy, &facts.in, &plain);
    trace = trace_of(policy, &facts.in, &traced);
    if (!same_verdict(&plain, &traced)) {
        fail_msg("%s: the trace is of another verdict", name);
    }
    assert_string_equal(json_string_value(json_object_get(trace, "verdict")),
                        policy_outcome_name(plain.outcome));
    check_side(name, json_object_get(trace, "allow"), plain.allow);
    check_side(name, json_object_get(trace, "deny"), plain.deny);
    json_decref(trace);
    return true;
}

static void every_case_is_traced_as_it_is_decided(void **state)
{
    FILE *f = fopen(cases_file, "re");
    char *line = NULL;
    size_t cap = 0;
    size_t traced = 0;

    (void)state;
    if (f == NULL) {
        skip(); /* the cases are no part of the project */
    }
    while (getline(&line, &cap, f) > 0) {
        json_error_t error;
        json_t *item = json_loads(line, 0, &error);

        assert_non_null(item);
        traced += check_case(item) ? 1 : 0;
        json_decref(item);
    }
    mem_release(line);
    (void)fclose(f);
    assert_true(traced > 100);
}

static struct policy *compile(const char *text)
{
    struct policy *policy = NULL;
    struct diag d = { 0 };

    if (policy_compile_text(sv_from(text), "p", NULL, &policy, NULL, &d) != ERR_OK) {
        fail_msg("%s: %s", text, d.text);
    }
    return policy;
}

static const json_t *criterion(const json_t *trace, const char *side, size_t rule, size_t index)
{
    const json_t *rules = json_object_get(json_object_get(trace, side), "rules");
    const json_t *one = json_array_get(rules, rule);

    return json_array_get(json_object_get(one, "criteria"), index);
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));

    return value == NULL ? "" : value;
}

static void a_trace_says_what_the_policy_says_and_what_the_facts_are(void **state)
{
    const struct policy_text groups[] = { policy_text_of(SV("staff")) };
    const struct policy_input in = { .session = true,
                                     .directory = true,
                                     .user_id = policy_text_of(SV("u-1")),
                                     .email = policy_text_of(SV("bob\x1b\xff@b.example")),
                                     .groups = groups,
                                     .group_count = 1,
                                     .method = SV("GET"),
                                     .path = SV("/") };
    CLEANUP(policy_unref)
    struct policy *policy = compile("- allow:\n"
                                    "    or:\n"
                                    "      - email: ana@b.example\n"
                                    "      - email: {in: [eva@b.example]}\n"
                                    "      - groups: {has: admins}\n"
                                    "- deny:\n"
                                    "    and:\n"
                                    "      - source_ip: 10.0.0.0/8\n");
    struct policy_verdict v = { 0 };
    json_t *trace = trace_of(policy, &in, &v);
    const json_t *email = criterion(trace, "allow", 0, 0);
    const json_t *group = criterion(trace, "allow", 0, 1);
    const json_t *ip = criterion(trace, "deny", 0, 0);

    (void)state;
    assert_string_equal(text(email, "name"), "email");
    assert_string_equal(text(email, "policy"), "ana@b.example, {\"in\":[\"eva@b.example\"]}");
    assert_string_equal(text(email, "fact"), "bob\x1b\xef\xbf\xbd@b.example");
    assert_string_equal(text(email, "reason"), "email-unauthorized");
    assert_int_equal(json_integer_value(json_object_get(email, "line")), 3);
    assert_string_equal(text(group, "policy"), "{\"has\":\"admins\"}");
    assert_string_equal(json_string_value(json_array_get(json_object_get(group, "fact"), 0)),
                        "staff");
    assert_true(held(ip)); /* nobody knows the address: inside of what keeps out */
    assert_string_not_equal(text(ip, "missing"), "");
    json_decref(trace);
}

/* Ten thousand names make no trace of megabytes, nor a policy of twice its size. */
static void a_trace_of_a_long_list_stays_short(void **state)
{
    CLEANUP(buf_deinit) struct buf policy_text;
    CLEANUP(buf_deinit) struct buf out;
    CLEANUP(policy_unref) struct policy *policy = NULL;
    const struct policy_input in = { .session = true,
                                     .email = policy_text_of(SV("u9999@b.example")) };
    struct policy_verdict v = { 0 };

    (void)state;
    buf_init(&policy_text, 1 << 20);
    buf_init(&out, 4096);
    buf_add_str(&policy_text, "allow: {or: [email: {in: [\"u-a\"]}");
    for (int i = 0; i < 10000; i++) {
        buf_printf(&policy_text, ", email: u%d@b.example", i);
    }
    buf_add_str(&policy_text, "]}");
    policy = compile(buf_cstr(&policy_text));
    policy_trace(policy, &in, 0, &out, &v);
    assert_int_equal(out.err, ERR_OK);
    assert_int_equal(v.outcome, POLICY_ALLOW);
    assert_true(sv_search(buf_sv(&out), SV("\"others\":99")) != SIZE_MAX);
}

/* What hangs on a fact that is not there comes out differently at best and at worst, the rest not. */
static void open_facts_show_by_the_best_and_the_worst(void **state)
{
    const uint64_t path = UINT64_C(1) << (unsigned)POLICY_CRITERION_HTTP_PATH;
    const struct policy_input in = { .session = true, .email = policy_text_of(SV("a@b.example")) };

    static const struct {
        const char *policy;
        enum policy_outcome best;
        enum policy_outcome worst;
    } cases[] = {
        { "allow: {and: [email: a@b.example, http_path: /x]}", POLICY_ALLOW, POLICY_DENY },
        { "allow: {or: [email: a@b.example, http_path: /x]}", POLICY_ALLOW, POLICY_ALLOW },
        { "allow: {and: [email: c@b.example, http_path: /x]}", POLICY_DENY, POLICY_DENY },
        { "allow: {not: [http_path: /x]}", POLICY_ALLOW, POLICY_DENY },
        { "allow: {nor: [http_path: /x]}", POLICY_ALLOW, POLICY_DENY },
        { "[{allow: {or: [accept: 1]}}, {deny: {or: [http_path: /x]}}]", POLICY_ALLOW,
          POLICY_DENY },
        { "[{allow: {or: [accept: 1]}}, {deny: {not: [http_path: /x]}}]", POLICY_ALLOW,
          POLICY_DENY },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(policy_unref) struct policy *policy = compile(cases[i].policy);
        CLEANUP(policy_unref) struct policy *hopeful = policy_suppose(policy, path, true);
        CLEANUP(policy_unref) struct policy *fearful = policy_suppose(policy, path, false);
        struct policy_verdict best = { 0 };
        struct policy_verdict worst = { 0 };

        policy_eval(hopeful, &in, &best);
        policy_eval(fearful, &in, &worst);
        assert_int_equal(best.outcome, cases[i].best);
        assert_int_equal(worst.outcome, cases[i].worst);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_traced_as_it_is_decided),
        cmocka_unit_test(a_trace_says_what_the_policy_says_and_what_the_facts_are),
        cmocka_unit_test(a_trace_of_a_long_list_stays_short),
        cmocka_unit_test(open_facts_show_by_the_best_and_the_worst),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
