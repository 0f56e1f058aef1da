#include <stddef.h>
#include <stdint.h>

#include "common/policy/advise.h"
#include "common/policy/central.h"
#include "common/policy/cert.h"
#include "common/policy/policy.h"
#include "common/policy/trace.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const policy_reason_set login = POLICY_REASON_BIT(POLICY_REASON_USER_UNAUTHENTICATED);

/* What must hold of any verdict whatever the policy says. */
static void check(const struct policy_verdict *v)
{
    policy_reason_set both = v->allow_reasons | v->deny_reasons;

    CHECK((v->outcome == POLICY_ALLOW) == (v->status == 200 && v->flags == 0));
    if (v->outcome == POLICY_ALLOW) {
        CHECK(v->allow && !v->deny && (both & login) == 0);
    }
    CHECK((both & POLICY_REASON_BIT(POLICY_REASON_NONE)) == 0);
    CHECK(both < POLICY_REASON_BIT(POLICY_REASON_COUNT));
}

/* Evaluates, and looks whether the trace is JSON and of the same verdict. */
static void eval(const struct policy *policy, const struct policy_input *in,
                 struct policy_verdict *v_out)
{
    CLEANUP(buf_deinit) struct buf trace;
    struct policy_verdict v = { 0 };
    json_t *tree = NULL;

    buf_init(&trace, 1 << 24);
    policy_eval(policy, in, v_out);
    policy_trace(policy, in, 1, &trace, &v);
    CHECK(v.outcome == v_out->outcome && v.status == v_out->status && v.reasons == v_out->reasons);
    CHECK(trace.err == ERR_OK);
    tree = json_loadb(trace.p, trace.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    CHECK(tree != NULL);
    json_decref(tree);
}

static void on_advice(void *arg, struct yaml_pos at, const char *sentence)
{
    (void)arg;
    (void)at;
    CHECK(sentence[0] != '\0');
}

static void on_group(void *arg, struct yaml_pos at, struct sv group)
{
    (void)at;
    *(size_t *)arg += group.n;
}

/* The verdict lies between that of the best and that of the worst answers to what is left open. */
static void between(struct policy *policy, const struct policy_input *in)
{
    struct policy *best = policy_suppose(policy, policy_asks_of_request(policy), true);
    struct policy *worst = policy_suppose(policy, policy_asks_of_request(policy), false);
    struct policy_verdict v = { 0 };
    struct policy_verdict upper = { 0 };
    struct policy_verdict lower = { 0 };
    CLEANUP(buf_deinit) struct buf text;
    size_t n = 0;

    buf_init(&text, 1 << 20);
    policy_eval(policy, in, &v);
    policy_eval(best, in, &upper);
    policy_eval(worst, in, &lower);
    CHECK(!v.allow || upper.allow);
    CHECK(!lower.allow || v.allow);
    CHECK(!upper.deny || v.deny);
    CHECK(!v.deny || lower.deny);
    policy_asks_text(policy, &text);
    CHECK((text.n != 0) == (policy_asks_of_request(policy) != 0));
    policy_advise(policy, on_advice, NULL);
    policy_each_group(policy, on_group, &n);
    policy_unref(&best);
    policy_unref(&worst);
}

static void on_record(void *arg, struct sv type, struct sv field, struct policy_field *field_out)
{
    (void)arg;
    field_out->record = type.n % 2 == 0;
    field_out->present = field.n % 2 == 0;
}

static void ask(const struct policy *policy, const uint8_t *data, size_t size)
{
    const struct policy_scalar values[] = {
        { .kind = POLICY_KIND_STRING, .text = POLICY_TEXT(SV("staff")) },
        { .kind = POLICY_KIND_NUMBER, .number = 4 },
    };
    const struct policy_claim claims[] = {
        { .name = POLICY_TEXT(SV("groups")), .values = values, .count = 2 },
    };
    const struct policy_text groups[] = { POLICY_TEXT(SV("eng")), POLICY_TEXT(SV("ops")) };
    struct sv text = sv_of(data, size);
    const struct policy_header headers[] = {
        { .name = SV("x-team"), .state = POLICY_HEADER_TOLD, .value = text },
        { .name = SV("x-twice"), .state = POLICY_HEADER_REPEATED },
    };
    const struct policy_ssh ssh = { .username = SV("ana"), .publickey = text };
    const struct policy_mcp mcp = { .method = SV("tools/call"), .tool = SV("query") };
    struct policy_verdict v = { 0 };
    struct policy_input in = { .method = SV("GET"), .host = SV("a"), .path = text };

    eval(policy, &in, &v);
    check(&v);
    in.session = true;
    in.directory = true;
    in.client_ip_known = true;
    in.wall_ms = INT64_C(1777636800000) + (int64_t)size * 3600000;
    in.user_id = POLICY_TEXT(SV("ana-id"));
    in.email = POLICY_TEXT(SV("ana@acme.test"));
    in.session_claims = (struct policy_claims){ .items = claims, .count = 1 };
    in.groups = groups;
    in.group_count = 2;
    in.idp = POLICY_TEXT(SV("local"));
    in.authenticated_ms = in.wall_ms - (int64_t)size * 60000;
    in.headers = headers;
    in.header_count = ARRAY_LEN(headers);
    in.record = on_record;
    eval(policy, &in, &v);
    check(&v);
    between(base_unconst(policy), &in);
    in.mcp = &mcp;
    in.client_ca = true;
    eval(policy, &in, &v);
    CHECK(v.status != 200 || v.outcome == POLICY_ALLOW || v.flags == POLICY_FLAG_MCP_ERROR);
    in.ssh = &ssh;
    eval(policy, &in, &v);
    CHECK(v.outcome != POLICY_ALLOW || (v.allow && !v.deny));
}

/* The same bytes as the section `policies` beside a public route: what is enforced only takes away,
 * and what has a mistake closes. */
static void ask_central(const uint8_t *data, size_t size)
{
    const struct policy_input in = { .method = SV("GET"), .host = SV("a"), .path = SV("/") };
    struct yaml_doc *doc = NULL;
    struct policy_central *central = NULL;
    struct policy *policy = NULL;
    struct policy_source source = { 0 };
    struct policy_verdict v = { 0 };

    if (yaml_parse(sv_of(data, size), "fuzz", &doc, NULL) != ERR_OK) {
        return;
    }
    central = policy_central_new(yaml_root(doc), doc);
    source.central = central;
    if (policy_compile(&source, &policy, NULL, NULL) == ERR_OK) {
        ask(policy, data, size);
    }
    policy_unref(&policy);
    source.allow_public_unauthenticated_access = true;
    if (policy_compile(&source, &policy, NULL, NULL) == ERR_OK) {
        policy_eval(policy, &in, &v);
        check(&v);
        CHECK(v.allow);
    } else {
        CHECK(policy_central_broken(central) != 0);
    }
    policy_unref(&policy);
    policy_central_unref(&central);
    yaml_doc_free(&doc);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy *policy = NULL;
    struct policy_cert_facts *cert = NULL;
    enum policy_fault fault = POLICY_FAULT_NONE;
    struct diag d = { 0 };
    enum err err = policy_compile_text(sv_of(data, size), "fuzz", NULL, &policy, &fault, &d);

    CHECK((err == ERR_OK) == (policy != NULL));
    CHECK((err == ERR_OK) == (fault == POLICY_FAULT_NONE));
    CHECK((err == ERR_OK) == (d.text[0] == '\0'));
    if (policy != NULL) {
        ask(policy, data, size);
    }
    ask_central(data, size);
    policy_unref(&policy);
    if (policy_cert_of_der(sv_of(data, size), &cert) == ERR_OK) {
        CHECK(policy_cert_get(cert) != NULL);
    }
    policy_cert_free(&cert);
    return 0;
}
