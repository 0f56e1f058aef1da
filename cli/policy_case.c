#include "cli/policy_case.h"

#include <string.h>

#include "cli/policy_input.h"
#include "common/policy/central.h"
#include "common/policy/policy.h"
#include "common/policy/scan.h"

/* What came out of a case. */
struct result {
    bool bad; /* the policy was refused */
    enum policy_fault fault;
    struct diag d; /* why */
    struct policy_verdict v;
    int status;
};

const char *cli_policy_case_name(const json_t *item)
{
    const char *name = json_string_value(json_object_get(item, "name"));

    return name == NULL ? "?" : name;
}

static const char *outcome_name(const struct result *r)
{
    if (r->bad) {
        return "bad_policy";
    }
    switch (r->v.outcome) {
    case POLICY_ALLOW:
        return "allow";
    case POLICY_LOGIN:
        return "login";
    case POLICY_DEVICE:
        return "device_unauthenticated";
    case POLICY_UNAVAILABLE:
        return "unavailable";
    case POLICY_DENY:
    default:
        break;
    }
    if ((r->v.flags & POLICY_FLAG_MCP_ERROR) != 0) {
        return "mcp_error";
    }
    return r->v.status == 450   ? "device_unauthorized"
           : r->v.status == 495 ? "invalid_cert"
           : r->v.status == 404 ? "not_found"
                                : "deny";
}

/* --- running ------------------------------------------------------------------------------------- */

static enum err compile_case(const struct cli_policy_suite *suite, const json_t *policy,
                             const struct policy_source *source, struct policy **policy_out,
                             struct result *r)
{
    struct policy_source whole = *source;
    struct sv text = sv_of(json_string_value(policy), json_string_length(policy));

    if (json_is_string(policy)) {
        return policy_compile_text(text, "policy", source, policy_out, &r->fault, &r->d);
    }
    whole.doc = suite->doc;
    whole.ppl = policy;
    return policy_compile(&whole, policy_out, &r->fault, &r->d);
}

/* Beside a route an empty policy is none. */
static bool is_absent(const json_t *policy)
{
    return policy == NULL || (json_is_string(policy) && json_string_length(policy) == 0);
}

static enum err run(const struct cli_policy_suite *suite, const json_t *item,
                    struct cli_policy_facts *facts, struct result *r)
{
    const json_t *named = json_object_get(item, "policies");
    CLEANUP(policy_central_unref)
    struct policy_central *central =
        policy_central_new(named == NULL ? suite->policies : named, suite->doc);
    CLEANUP(policy_unref) struct policy *policy = NULL;
    struct policy_source source = { .central = central,
                                    .mtls_default_deny = facts->mtls_default_deny };
    const json_t *ppl = json_object_get(item, "policy");
    const json_t *route = json_object_get(json_object_get(item, "input"), "route");
    enum err err = ERR_OK;

    ppl = ppl == NULL ? suite->policy : ppl;
    route = route == NULL ? suite->route : route;
    if (route != NULL) {
        err = policy_source_of_route(route, NULL, &source, &r->d);
        r->fault = POLICY_FAULT_ROUTE;
        source.mcp_server = json_is_true(json_object_get(route, "mcp_server"));
    }
    if (err == ERR_OK && route != NULL && is_absent(ppl)) {
        err = policy_compile(&source, &policy, &r->fault, &r->d);
    } else if (err == ERR_OK) {
        err = compile_case(suite, ppl, &source, &policy, r);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (!facts->route_found) {
        r->v = policy_verdict_not_found();
    } else if (facts->internal) {
        policy_eval_internal(&facts->in, policy_path_needs_session(facts->in.path), &r->v);
    } else {
        cli_policy_facts_ask(facts, policy);
        policy_eval(policy, &facts->in, &r->v);
    }
    r->v.device_type = arena_sv(&facts->arena, r->v.device_type); /* the policy goes first */
    r->status = policy_status(&r->v, facts->navigates);
    return ERR_OK;
}

/* --- comparing ----------------------------------------------------------------------------------- */

static bool outcome_fits(const json_t *item, const struct result *r)
{
    const char *want = json_string_value(json_object_get(item, "expect"));
    const char *fault = json_string_value(json_object_get(item, "error_class"));
    const json_t *status = json_object_get(item, "status");
    const char *device = json_string_value(json_object_get(item, "device_type"));

    if (want == NULL) {
        return false;
    }
    if (r->bad) {
        return (strcmp(want, "bad_policy") == 0 ||
                (strcmp(want, "bad_policy_compile") == 0 && r->fault == POLICY_FAULT_COMPILE)) &&
               (fault == NULL || strcmp(fault, policy_fault_name(r->fault)) == 0);
    }
    return strcmp(want, outcome_name(r)) == 0 &&
           (status == NULL || json_integer_value(status) == r->status) &&
           (device == NULL || sv_eq(sv_from(device), r->v.device_type));
}

/* side: {value, reasons[]}; absent members are not compared. */
static bool side_fits(const json_t *side, bool value, policy_reason_set reasons)
{
    const json_t *names = json_object_get(side, "reasons");
    const json_t *want = json_object_get(side, "value");
    policy_reason_set set = 0;
    size_t i = 0;

    if (want != NULL && json_is_true(want) != value) {
        return false;
    }
    for (i = 0; i < json_array_size(names); i++) {
        const json_t *name = json_array_get(names, i);
        enum policy_reason reason =
            policy_reason_of(sv_of(json_string_value(name), json_string_length(name)));

        if (reason == POLICY_REASON_NONE) {
            return false;
        }
        set |= POLICY_REASON_BIT(reason);
    }
    return names == NULL || set == reasons;
}

static bool fits(const json_t *item, const struct result *r)
{
    const json_t *reasons = json_object_get(item, "reasons");

    if (!outcome_fits(item, r) || (r->bad && reasons != NULL)) {
        return false;
    }
    return side_fits(json_object_get(reasons, "allow"), r->v.allow, r->v.allow_reasons) &&
           side_fits(json_object_get(reasons, "deny"), r->v.deny, r->v.deny_reasons);
}

/* --- telling ------------------------------------------------------------------------------------- */

static void tell_reasons(struct buf *out, const char *side, bool value, policy_reason_set reasons)
{
    enum policy_reason reason = POLICY_REASON_NONE;
    const char *between = "";

    buf_printf(out, "; %s=%s [", side, value ? "true" : "false");
    for (reason = policy_reason_next(&reasons); reason != POLICY_REASON_NONE;
         reason = policy_reason_next(&reasons)) {
        buf_printf(out, "%s%s", between, policy_reason_name(reason));
        between = ", ";
    }
    buf_add_char(out, ']');
}

static void tell_got(struct buf *out, const struct result *r)
{
    char line[DIAG_LINE];

    buf_printf(out, "  got:      %s", outcome_name(r));
    if (r->bad) {
        buf_printf(out, " (%s): %s\n", policy_fault_name(r->fault), diag_format(&r->d, line));
        return;
    }
    buf_printf(out, " %d", r->status);
    tell_reasons(out, "allow", r->v.allow, r->v.allow_reasons);
    tell_reasons(out, "deny", r->v.deny, r->v.deny_reasons);
    if (r->v.device_type.n != 0) {
        buf_add_str(out, "; device_type=");
        buf_add_sv(out, r->v.device_type);
    }
    buf_add_char(out, '\n');
}

static void tell_expected_side(struct buf *out, const char *side, const json_t *want)
{
    const json_t *value = json_object_get(want, "value");
    const json_t *names = json_object_get(want, "reasons");
    size_t i = 0;

    if (want == NULL) {
        return;
    }
    buf_printf(out, "; %s=%s [", side,
               value == NULL ? "any" : (json_is_true(value) ? "true" : "false"));
    for (i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));

        buf_printf(out, "%s%.60s", i == 0 ? "" : ", ", name == NULL ? "?" : name);
    }
    buf_add_char(out, ']');
}

static void tell_expected(struct buf *out, const json_t *item)
{
    const char *want = json_string_value(json_object_get(item, "expect"));
    const char *fault = json_string_value(json_object_get(item, "error_class"));
    const char *device = json_string_value(json_object_get(item, "device_type"));
    const json_t *status = json_object_get(item, "status");
    const json_t *reasons = json_object_get(item, "reasons");

    buf_printf(out, "  expected: %s", want == NULL ? "nothing: `expect` is missing" : want);
    if (fault != NULL) {
        buf_printf(out, " (%s)", fault);
    }
    if (status != NULL) {
        buf_printf(out, " %d", (int)json_integer_value(status));
    }
    tell_expected_side(out, "allow", json_object_get(reasons, "allow"));
    tell_expected_side(out, "deny", json_object_get(reasons, "deny"));
    if (device != NULL) {
        buf_printf(out, "; device_type=%s", device);
    }
    buf_add_char(out, '\n');
}

static bool unusable(struct buf *out, const struct diag *d)
{
    buf_printf(out, "  the case cannot be run: %s\n", d->text);
    return false;
}

static bool known_keys(const json_t *item, struct diag *d)
{
    static const char *const known[] = { "name",   "policy",      "policies",   "input",
                                         "expect", "status",      "reasons",    "certainty",
                                         "note",   "error_class", "device_type" };
    const char *key = NULL;
    json_t *value = NULL;

    if (!json_is_object(item)) {
        diag_set(d, "it is no object");
        return false;
    }
    json_object_foreach(policy_scan_tree(item), key, value)
    {
        size_t i = 0;

        while (i < ARRAY_LEN(known) && strcmp(known[i], key) != 0) {
            i++;
        }
        if (i == ARRAY_LEN(known)) {
            diag_set(d, "unknown key \"%.40s\"", key);
            return false;
        }
    }
    return true;
}

bool cli_policy_case_run(const struct cli_policy_suite *suite, const json_t *item,
                         struct buf *difference)
{
    CLEANUP(cli_policy_facts_deinit) struct cli_policy_facts facts = { 0 };
    struct result r = { 0 };
    struct diag d = { 0 };

    if (!known_keys(item, &d) ||
        cli_policy_facts_init(&facts, json_object_get(item, "input"), &d) != ERR_OK) {
        return unusable(difference, &d);
    }
    r.bad = run(suite, item, &facts, &r) != ERR_OK;
    if (fits(item, &r)) {
        return true;
    }
    tell_expected(difference, item);
    tell_got(difference, &r);
    return false;
}
