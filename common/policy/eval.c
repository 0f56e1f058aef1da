#include <string.h>

#include "common/policy/ask.h"
#include "common/policy/compiled.h"
#include "common/policy/policy.h"
#include "common/policy/sshkey.h"

/* --- facts --------------------------------------------------------------------------------------- */

const struct policy_text *policy_fact_email(const struct policy_input *in)
{
    return in->directory_email.s.n != 0 ? &in->directory_email : &in->email;
}

bool policy_fact_domain(const struct policy_input *in, struct policy_text *domain_out)
{
    struct sv rest = policy_fact_email(in)->s;

    (void)sv_cut(&rest, '@');
    if (rest.p == NULL) {
        return false;
    }
    *domain_out = POLICY_TEXT(sv_cut(&rest, '@'));
    return true;
}

static const struct policy_claim *find_claim(const struct policy_claims *claims,
                                             const struct policy_text *name)
{
    size_t i = 0;

    if (claims->find != NULL) {
        return claims->find(claims->arg, name->s);
    }
    for (i = 0; i < claims->count; i++) {
        if (policy_text_eq(&claims->items[i].name, name)) {
            return &claims->items[i];
        }
    }
    return NULL;
}

const struct policy_claim *policy_fact_claim(const struct policy_input *in,
                                             const struct policy_text *name)
{
    static const struct policy_claim none;
    const struct policy_claim *claim = find_claim(&in->user_claims, name);

    if (claim == NULL) {
        claim = find_claim(&in->session_claims, name);
    }
    return claim == NULL ? &none : claim;
}

const struct policy_text *policy_fact_groups(const struct policy_input *in, size_t *n_out)
{
    if (in->find_groups != NULL) {
        return in->find_groups(in->groups_arg, n_out);
    }
    *n_out = in->group_count;
    return in->groups;
}

struct policy_header policy_fact_header(const struct policy_input *in, struct sv name)
{
    size_t i = 0;

    for (i = 0; i < in->header_count; i++) {
        if (sv_eq(in->headers[i].name, name)) {
            return in->headers[i];
        }
    }
    return (struct policy_header){ .name = name };
}

/* --- criteria with more than a matcher ----------------------------------------------------------- */

static bool ask_source_ip(const struct policy_pred *p, const struct policy_input *in)
{
    size_t i = 0;

    for (i = 0; in->client_ip_known && i < p->cidr_count; i++) {
        if (cidr_holds(&p->cidrs[i], in->client_ip)) {
            return true;
        }
    }
    return false;
}

static bool digest_matches(const struct policy_digests *digests, const uint8_t value[32])
{
    size_t i = 0;

    for (i = 0; i < digests->count; i++) {
        if (memcmp(digests->items[i], value, 32) == 0) {
            return true;
        }
    }
    return !digests->asked;
}

/* Every operator for itself holds for some name of the list. */
static bool names_match(const struct policy_match *match, const struct sv *names, size_t count)
{
    bool hit = false;
    size_t i = 0;
    size_t j = 0;

    for (j = 0; match->any && j < count && !hit; j++) {
        hit = policy_set_has(&match->set, &POLICY_TEXT(names[j]));
    }
    if (match->any) {
        return hit;
    }
    for (i = 0; i < match->test_count; i++) {
        hit = false;
        for (j = 0; j < count && !hit; j++) {
            hit = policy_match_test_text(&match->tests[i], &POLICY_TEXT(names[j]));
        }
        if (!hit) {
            return false;
        }
    }
    return true;
}

static bool ask_certificate(const struct policy_cert_match *m, const struct policy_input *in,
                            bool against)
{
    const struct policy_cert *cert = in->cert;

    if (cert == NULL || !in->cert_presented) {
        return in->cert_presented && against; /* shown, and nobody can say what it is */
    }
    return digest_matches(&m->fingerprint, cert->fingerprint) &&
           digest_matches(&m->spki, cert->spki) &&
           (!m->san_asked[0] || names_match(&m->san[0], cert->san_email, cert->san_email_count)) &&
           (!m->san_asked[1] || names_match(&m->san[1], cert->san_dns, cert->san_dns_count)) &&
           (!m->san_asked[2] || names_match(&m->san[2], cert->san_uri, cert->san_uri_count)) &&
           (!m->name_asked[0] || policy_match_text(&m->name[0], &POLICY_TEXT(cert->issuer))) &&
           (!m->name_asked[1] || policy_match_text(&m->name[1], &POLICY_TEXT(cert->subject)));
}

static bool ask_ssh_claim(const struct policy_pred *p, const struct policy_input *in)
{
    const struct policy_claim *claim = policy_fact_claim(in, &p->claim);
    struct policy_text login = { 0 };
    size_t i = 0;

    if (in->ssh == NULL || in->ssh->username.n == 0) {
        return false;
    }
    login = POLICY_TEXT(in->ssh->username);
    for (i = 0; i < claim->count; i++) {
        if (claim->values[i].kind == POLICY_KIND_STRING &&
            policy_text_eq(&claim->values[i].text, &login)) {
            return true;
        }
    }
    return false;
}

static bool ask_ssh_email(const struct policy_input *in)
{
    struct sv rest = policy_fact_email(in)->s;
    struct sv local = sv_cut(&rest, '@');

    return in->ssh != NULL && local.n != 0 && rest.p != NULL && sv_eq(in->ssh->username, local);
}

static bool ask_ssh_key(const struct policy_pred *p, const struct policy_input *in)
{
    return in->ssh != NULL && policy_set_has(&p->match.set, &POLICY_TEXT(in->ssh->publickey));
}

static bool compare(const struct policy_number_test *test, double v)
{
    switch (test->compare) {
    case POLICY_LT:
        return v < test->number;
    case POLICY_LE:
        return v <= test->number;
    case POLICY_EQ:
        return v == test->number;
    case POLICY_GE:
        return v >= test->number;
    case POLICY_GT:
        return v > test->number;
    default:
        return false;
    }
}

static bool record_test(const struct policy_test *test, const struct policy_field *field)
{
    const struct policy_scalar *v = field->values;

    if (test->op == POLICY_OP_HAS || test->op == POLICY_OP_EXCLUDE || test->op == POLICY_OP_IS) {
        return policy_match_test_list(test, v, field->count);
    }
    if (field->count != 1) {
        return false;
    }
    if (v->kind != POLICY_KIND_STRING) { /* nothing but `not` can be said of it */
        return test->op == POLICY_OP_NOT && !policy_match_scalar_eq(&test->value, v);
    }
    return policy_match_test_text(test, &v->text);
}

static bool ask_record(const struct policy_record_match *m, const struct policy_input *in)
{
    struct policy_field field = { 0 };
    bool there = false;
    size_t i = 0;

    if (in->record != NULL) {
        in->record(in->record_arg, m->type, m->field, &field);
    }
    there = field.record && (m->field.n == 0 || field.present);
    if (m->exists_asked && m->exists != there) {
        return false;
    }
    if (m->number_count + m->test_count != 0 && !there) {
        return false;
    }
    for (i = 0; i < m->number_count; i++) {
        if (field.count != 1 || field.values->kind != POLICY_KIND_NUMBER ||
            !compare(&m->numbers[i], field.values->number)) {
            return false;
        }
    }
    for (i = 0; i < m->test_count; i++) {
        if (!record_test(&m->tests[i], &field)) {
            return false;
        }
    }
    return true;
}

/* --- one criterion ------------------------------------------------------------------------------- */

struct answer {
    bool value;
    enum policy_reason reason;
};

static struct answer answer(const struct policy_pred *p, bool value)
{
    return (struct answer){ .value = value, .reason = value ? p->yes : p->no };
}

static struct answer ask_device(const struct policy_pred *p, const struct policy_input *in)
{
    const struct policy_device_match *m = p->device;
    const struct policy_device *device = NULL;
    size_t i = 0;

    for (i = 0; i < in->device_count && device == NULL; i++) {
        device = sv_eq(in->devices[i].type, m->type) ? &in->devices[i] : NULL;
    }
    /* Also for `approved: false` and `{}`: nobody without a device passes a device rule. */
    if (device == NULL || !device->credential || !device->enrolled) {
        return (struct answer){ .reason = POLICY_REASON_DEVICE_UNAUTHENTICATED };
    }
    return answer(p, (!m->id_asked || sv_eq(device->id, m->id)) &&
                         (!m->approved_asked || device->approved == m->approved));
}

static struct answer ask_header(const struct policy_pred *p, const struct policy_input *in,
                                bool against)
{
    static const enum policy_reason whys[] = {
        [POLICY_HEADER_UNKNOWN] = POLICY_REASON_HEADER_UNKNOWN,
        [POLICY_HEADER_REPEATED] = POLICY_REASON_HEADER_REPEATED,
        [POLICY_HEADER_TOO_LARGE] = POLICY_REASON_HEADER_TOO_LARGE,
        [POLICY_HEADER_WITHHELD] = POLICY_REASON_HEADER_UNKNOWN,
    };
    struct policy_header header = policy_fact_header(in, p->claim.s);

    if (header.state == POLICY_HEADER_TOLD) {
        return answer(p, policy_match_text(&p->match, &POLICY_TEXT(header.value)));
    }
    return (struct answer){ .value = against, .reason = whys[header.state] };
}

static struct answer ask_mcp(const struct policy_pred *p, const struct policy_input *in)
{
    if (in->mcp == NULL || !sv_eq(in->mcp->method, SV("tools/call"))) {
        return (struct answer){ .reason = POLICY_REASON_MCP_NOT_A_TOOL_CALL };
    }
    return answer(p, policy_match_text(&p->match, &POLICY_TEXT(in->mcp->tool)));
}

/* True when a certificate is missing or bad; the reason says which. */
static struct answer ask_invalid_certificate(const struct policy_pred *p,
                                             const struct policy_input *in)
{
    if (!in->client_ca) {
        return answer(p, false);
    }
    if (!in->cert_presented) {
        return (struct answer){ .value = true,
                                .reason = POLICY_REASON_CLIENT_CERTIFICATE_REQUIRED };
    }
    return answer(p, !in->cert_trusted);
}

/* A login in the future is one by a clock that is a little ahead, or nobody knows what. */
static bool ask_age(const struct policy_pred *p, const struct policy_input *in, bool against)
{
    enum { AHEAD_MS = 5 * 60 * 1000 };

    int64_t age_ms = in->wall_ms - in->authenticated_ms;

    if (in->authenticated_ms <= 0 || age_ms < -AHEAD_MS) {
        return against;
    }
    return age_ms < p->age_ms;
}

/* Who has no such fact has nothing that any operator could let in by; where the answer counts against
 * them, the fact is empty, so that "everybody but" keeps them out as well. */
static bool ask_text(const struct policy_pred *p, const struct policy_text *text, bool there,
                     bool against)
{
    return (there || against) && policy_match_text(&p->match, text);
}

static bool ask_groups(const struct policy_pred *p, const struct policy_input *in, bool against)
{
    size_t n = 0;
    const struct policy_text *groups = in->directory ? policy_fact_groups(in, &n) : NULL;

    return (in->directory || against) && policy_match_texts(&p->match, groups, n);
}

static bool ask_identity(const struct policy_pred *p, const struct policy_input *in, bool against)
{
    struct policy_text domain = { 0 };
    const struct policy_claim *claim = NULL;
    bool there = false;

    switch ((int)p->kind) {
    case POLICY_CRITERION_AUTHENTICATED_USER:
        return in->user_id.s.n != 0;
    case POLICY_CRITERION_USER:
        return ask_text(p, &in->user_id, in->user_id.s.n != 0, against);
    case POLICY_CRITERION_EMAIL:
        return policy_match_text(&p->match, policy_fact_email(in));
    case POLICY_CRITERION_DOMAIN:
        there = policy_fact_domain(in, &domain);
        return ask_text(p, &domain, there, against);
    case POLICY_CRITERION_GROUPS:
        return ask_groups(p, in, against);
    case POLICY_CRITERION_AUTH_AGE:
        return ask_age(p, in, against);
    case POLICY_CRITERION_IDP:
        return ask_text(p, &in->idp, in->idp.s.n != 0, against);
    case POLICY_CRITERION_CLAIM:
        claim = policy_fact_claim(in, &p->claim);
        return policy_match_list(&p->match, claim->values, claim->count);
    case POLICY_CRITERION_SSH_USERNAME_MATCHES_EMAIL:
        return ask_ssh_email(in);
    case POLICY_CRITERION_SSH_USERNAME_MATCHES_CLAIM:
        return ask_ssh_claim(p, in);
    default:
        return false;
    }
}

static bool ask_request(const struct policy_pred *p, const struct policy_input *in, bool against)
{
    switch ((int)p->kind) {
    case POLICY_CRITERION_ACCEPT:
        return true;
    case POLICY_CRITERION_HTTP_METHOD:
        return policy_match_text(&p->match, &POLICY_TEXT(in->method));
    case POLICY_CRITERION_HOST:
        return policy_match_text(&p->match, &POLICY_TEXT(in->host));
    case POLICY_CRITERION_HTTP_PATH:
        return policy_match_path(&p->match, in->path, against);
    case POLICY_CRITERION_CORS_PREFLIGHT:
        return in->cors_preflight;
    case POLICY_CRITERION_SOURCE_IP:
        return ask_source_ip(p, in);
    case POLICY_CRITERION_CLIENT_CERTIFICATE:
        return ask_certificate(p->cert, in, against);
    case POLICY_CRITERION_SSH_PUBLICKEY:
        return ask_ssh_key(p, in);
    case POLICY_CRITERION_SSH_CA:
        return in->ssh != NULL && policy_sshkey_signed(in->ssh, &p->match.set, in->wall_ms / 1000);
    case POLICY_CRITERION_SSH_USERNAME:
        return in->ssh != NULL && policy_match_text(&p->match, &POLICY_TEXT(in->ssh->username));
    case POLICY_CRITERION_DATE:
        return policy_when_date(p->when, in->wall_ms);
    case POLICY_CRITERION_DAY_OF_WEEK:
        return policy_when_days(p->when, in->wall_ms);
    case POLICY_CRITERION_TIME_OF_DAY:
        return policy_when_time(p->when, in->wall_ms);
    case POLICY_CRITERION_RECORD:
        return ask_record(p->record, in);
    case POLICY_CRITERION_REJECT:
    default:
        return false;
    }
}

/* Records belong to persons and sessions: nobody has none, and is not told from somebody without one
 * by `exists: false`. */
static bool is_nobodys(const struct policy_pred *p, const struct policy_input *in)
{
    return p->kind == POLICY_CRITERION_RECORD && in->record == NULL;
}

/* against: the value that counts against the visitor, for facts that nobody knows: who comes from an
 * unknown address is outside of what would let in and inside of what would keep out. */
static struct answer ask(const struct policy_pred *p, const struct policy_input *in, bool against)
{
    /* Whatever the operator: nobody who is not logged in has an identity to match. */
    if (!in->session && (p->identity || is_nobodys(p, in))) {
        return (struct answer){ .reason = POLICY_REASON_USER_UNAUTHENTICATED };
    }
    if (p->kind == POLICY_CRITERION_SOURCE_IP && !in->client_ip_known) {
        return answer(p, against);
    }
    if (p->kind == POLICY_CRITERION_GROUPS && in->groups_missed) {
        return answer(p, against);
    }
    if (p->kind == POLICY_CRITERION_HEADER) {
        return ask_header(p, in, against);
    }
    if (p->kind == POLICY_CRITERION_DEVICE) {
        return ask_device(p, in);
    }
    if (p->kind == POLICY_CRITERION_MCP_TOOL) {
        return ask_mcp(p, in);
    }
    if (p->kind == POLICY_CRITERION_INVALID_CLIENT_CERTIFICATE) {
        return ask_invalid_certificate(p, in);
    }
    return answer(p, p->identity ? ask_identity(p, in, against) : ask_request(p, in, against));
}

/* --- blocks and sides ---------------------------------------------------------------------------- */

struct sum {
    bool value;
    policy_reason_set reasons;
};

static void note_device(const struct policy_pred *p, enum policy_reason reason,
                        struct sv *device_type)
{
    if (reason == POLICY_REASON_DEVICE_UNAUTHENTICATED && p->device != NULL &&
        sv_cmp(p->device->type, *device_type) > 0) {
        *device_type = p->device->type; /* of several the greatest wins */
    }
}

/* and, not: all must hold; a true one carries every reason, a false one those of its false members.
 * or, nor: one must hold; a true one carries those of its true members, a false one every reason.
 * not and nor turn the value of a member, never its reason. */
static struct sum ask_block(const struct policy_block *block, bool denies,
                            const struct policy_input *in, struct sv *device_type)
{
    bool inverted = block->combine == POLICY_NOT || block->combine == POLICY_NOR;
    bool all_wanted = block->combine == POLICY_AND || block->combine == POLICY_NOT;
    policy_reason_set of_true = 0;
    policy_reason_set of_false = 0;
    size_t trues = 0;
    size_t i = 0;
    bool value = false;

    for (i = 0; i < block->count; i++) {
        const struct policy_pred *p = &block->preds[i];
        struct answer a = ask(p, in, denies != inverted);

        if (a.value != inverted) {
            trues++;
            of_true |= POLICY_REASON_BIT(a.reason);
        } else {
            of_false |= POLICY_REASON_BIT(a.reason);
        }
        note_device(&block->preds[i], a.reason, device_type);
    }
    value = all_wanted ? trues == block->count && block->count != 0 : trues != 0;
    return (struct sum){ .value = value, .reasons = value ? of_true : of_false };
}

/* What the blocks of a side gave, in one policy or several. */
struct tally {
    bool value;
    policy_reason_set of_true;
    policy_reason_set of_all;
};

static void ask_side(const struct policy_side *side, bool denies, const struct policy_input *in,
                     struct sv *device_type, struct tally *tally)
{
    size_t i = 0;

    for (i = 0; i < side->count; i++) {
        struct sum sum = ask_block(&side->blocks[i], denies, in, device_type);

        tally->value = tally->value || sum.value;
        tally->of_true |= sum.value ? sum.reasons : 0;
        tally->of_all |= sum.reasons;
    }
}

static policy_reason_set reasons_of(const struct tally *tally)
{
    return tally->value ? tally->of_true : tally->of_all;
}

/* A side of one block says what the block says, a block of one member what the member says. */
struct policy_asked policy_ask_block(const struct policy_block *block, bool denies,
                                     const struct policy_input *in)
{
    const struct policy_side one = { .blocks = block, .count = 1 };
    struct sv device_type = { 0 };
    struct tally tally = { 0 };

    ask_side(&one, denies, in, &device_type, &tally);
    return (struct policy_asked){ .value = tally.value, .reasons = reasons_of(&tally) };
}

struct policy_asked policy_ask_member(const struct policy_block *block, size_t index, bool denies,
                                      const struct policy_input *in)
{
    const struct policy_block one = { .combine = POLICY_AND,
                                      .preds = &block->preds[index],
                                      .count = 1 };
    bool inverted = block->combine == POLICY_NOT || block->combine == POLICY_NOR;

    return policy_ask_block(&one, denies != inverted, in);
}

/* --- the verdict --------------------------------------------------------------------------------- */

static const policy_reason_set cert_reasons =
    POLICY_REASON_BIT(POLICY_REASON_CLIENT_CERTIFICATE_REQUIRED) |
    POLICY_REASON_BIT(POLICY_REASON_INVALID_CLIENT_CERTIFICATE);
static const policy_reason_set login_reasons =
    POLICY_REASON_BIT(POLICY_REASON_USER_UNAUTHENTICATED);
static const policy_reason_set age_reasons = POLICY_REASON_BIT(POLICY_REASON_AUTH_AGE_EXCEEDED);
static const policy_reason_set device_reasons =
    POLICY_REASON_BIT(POLICY_REASON_DEVICE_UNAUTHENTICATED);
static const policy_reason_set ssh_key_reasons =
    POLICY_REASON_BIT(POLICY_REASON_SSH_PUBLICKEY_UNAUTHORIZED);

/* The only place that makes an ALLOW. */
static void allow(struct policy_verdict *v, policy_reason_set reasons)
{
    v->outcome = POLICY_ALLOW;
    v->status = 200;
    v->reasons = reasons;
}

static void deny(struct policy_verdict *v, policy_reason_set reasons, bool mcp_server,
                 const struct policy_input *in)
{
    v->outcome = POLICY_DENY;
    v->reasons = reasons;
    v->status = 403;
    if ((reasons & POLICY_REASON_BIT(POLICY_REASON_DEVICE_UNAUTHORIZED)) != 0) {
        v->status = 450;
    } else if ((reasons & cert_reasons) != 0) {
        v->status = 495;
    } else if (in->mcp != NULL && in->mcp->method.n != 0) {
        v->status = 200;
        v->flags |= POLICY_FLAG_MCP_ERROR;
    } else if (mcp_server) {
        v->status = 401;
    }
}

static void ask_first(struct policy_verdict *v, enum policy_outcome outcome,
                      policy_reason_set wanted, bool mcp_server)
{
    v->outcome = outcome;
    v->status = mcp_server ? 401 : 302;
    v->flags |= mcp_server ? POLICY_FLAG_NO_REDIRECT : 0;
    v->reasons = (v->allow_reasons & wanted) != 0 ? v->allow_reasons : v->deny_reasons;
}

/* The ladder: certificate, login, device, deny, allow; each step stands before what follows, whatever the
 * values of the sides. */
static void decide_http(const struct policy *policy, const struct policy_input *in,
                        struct policy_verdict *v)
{
    policy_reason_set both = v->allow_reasons | v->deny_reasons;

    if ((v->deny_reasons & cert_reasons) == 0) {
        if ((both & login_reasons) != 0) {
            ask_first(v, POLICY_LOGIN, login_reasons, policy->mcp_server);
            return;
        }
        if ((both & device_reasons) != 0 && !in->device_page) {
            ask_first(v, POLICY_DEVICE, device_reasons, policy->mcp_server);
            return;
        }
        if ((both & device_reasons) != 0) {
            allow(v, device_reasons); /* the page where the device is registered */
            return;
        }
        if (v->allow && !v->deny) {
            allow(v, v->allow_reasons);
            return;
        }
    }
    /* A certificate's reason refuses even on a deny side that is false. */
    deny(v, v->deny || (v->deny_reasons & cert_reasons) != 0 ? v->deny_reasons : v->allow_reasons,
         policy->mcp_server, in);
}

/* Section 2.2: a refused key comes before login, since another key may be offered. */
static void decide_ssh(const struct policy_input *in, struct policy_verdict *v)
{
    policy_reason_set both = v->allow_reasons | v->deny_reasons;

    if ((both & ssh_key_reasons) != 0) {
        deny(v, both & ssh_key_reasons, false, in);
        v->flags |= POLICY_FLAG_SSH_NEXT_KEY;
    } else if ((both & login_reasons) != 0) {
        ask_first(v, POLICY_LOGIN, login_reasons, false);
    } else if (v->allow && !v->deny) {
        allow(v, v->allow_reasons);
    } else {
        deny(v, v->deny ? v->deny_reasons : v->allow_reasons, false, in);
    }
}

/* What may be asked of a visitor before the verdict. */
static const policy_reason_set asking_reasons =
    POLICY_REASON_BIT(POLICY_REASON_USER_UNAUTHENTICATED) |
    POLICY_REASON_BIT(POLICY_REASON_DEVICE_UNAUTHENTICATED);

/* An enforced deny that does not hold asks for nothing: else one about groups would make everybody
 * log in who visits a public route. The one that holds for the anonymous does ask. */
static void add_enforced(const struct policy *policy, const struct policy_input *in,
                         struct sv *device_type, struct tally *deny)
{
    struct tally tally = { 0 };
    struct sv type = { 0 };
    size_t i = 0;

    for (i = 0; i < policy->n_parts; i++) {
        if (policy->parts[i]->enforced) {
            ask_side(&policy->parts[i]->deny, true, in, &type, &tally);
        }
    }
    if (tally.value) {
        *device_type = sv_cmp(type, *device_type) > 0 ? type : *device_type;
    } else {
        tally.of_all &= ~asking_reasons;
    }
    deny->value = deny->value || tally.value;
    deny->of_true |= tally.of_true;
    deny->of_all |= tally.of_all;
}

static void ask_sides(const struct policy *policy, const struct policy_input *in,
                      struct policy_verdict *v)
{
    struct tally allow = { 0 };
    struct tally deny = { 0 };
    size_t i = 0;

    ask_side(&policy->allow, false, in, &v->device_type, &allow);
    ask_side(&policy->deny, true, in, &v->device_type, &deny);
    for (i = 0; i < policy->n_parts; i++) {
        if (!policy->parts[i]->enforced) {
            ask_side(&policy->parts[i]->allow, false, in, &v->device_type, &allow);
            ask_side(&policy->parts[i]->deny, true, in, &v->device_type, &deny);
        }
    }
    add_enforced(policy, in, &v->device_type, &deny);
    v->allow = allow.value;
    v->allow_reasons = reasons_of(&allow);
    v->deny = deny.value;
    v->deny_reasons = reasons_of(&deny);
}

static void judge(const struct policy *policy, const struct policy_input *in,
                  struct policy_verdict *v)
{
    *v = (struct policy_verdict){ 0 };
    ask_sides(policy, in, v);
    if (in->ssh != NULL) {
        decide_ssh(in, v);
    } else {
        decide_http(policy, in, v);
    }
}

/* Whether nothing but the age of the login keeps this person out: then a new one leads in. */
static bool is_only_stale(const struct policy *policy, const struct policy_input *in,
                          const struct policy_verdict *v)
{
    struct policy_input fresh = *in;
    struct policy_verdict then = { 0 };

    if (v->outcome != POLICY_DENY || ((v->allow_reasons | v->deny_reasons) & age_reasons) == 0) {
        return false;
    }
    fresh.authenticated_ms = fresh.wall_ms;
    judge(policy, &fresh, &then);
    return then.outcome == POLICY_ALLOW;
}

void policy_eval(const struct policy *policy, const struct policy_input *in,
                 struct policy_verdict *v_out)
{
    if (policy == NULL) {
        *v_out = policy_verdict_unavailable(POLICY_REASON_POLICY_INVALID);
        return;
    }
    judge(policy, in, v_out);
    if (is_only_stale(policy, in, v_out)) {
        v_out->flags = 0;
        ask_first(v_out, POLICY_LOGIN, age_reasons, policy->mcp_server);
    }
}

void policy_eval_internal(const struct policy_input *in, bool needs_session,
                          struct policy_verdict *v_out)
{
    struct policy_verdict v = { 0 };

    if (needs_session && !in->session) {
        v.allow_reasons = login_reasons;
        ask_first(&v, POLICY_LOGIN, login_reasons, false);
    } else {
        v.allow = true;
        v.allow_reasons = POLICY_REASON_BIT(POLICY_REASON_POMERIUM_ROUTE);
        allow(&v, v.allow_reasons);
    }
    *v_out = v;
}

struct policy_verdict policy_verdict_unavailable(enum policy_reason reason)
{
    return (struct policy_verdict){ .outcome = POLICY_UNAVAILABLE,
                                    .status = 503,
                                    .reasons = POLICY_REASON_BIT(reason) };
}

struct policy_verdict policy_verdict_not_found(void)
{
    policy_reason_set reasons = POLICY_REASON_BIT(POLICY_REASON_ROUTE_NOT_FOUND);

    return (struct policy_verdict){ .outcome = POLICY_DENY,
                                    .status = 404,
                                    .deny = true,
                                    .deny_reasons = reasons,
                                    .reasons = reasons };
}

policy_reason_set policy_reasons(const struct policy_verdict *v)
{
    return v->reasons;
}

int policy_status(const struct policy_verdict *v, bool navigates)
{
    if (v->status == 302 && !navigates) {
        return 401;
    }
    return v->status == 0 ? 403 : v->status;
}

bool policy_path_needs_session(struct sv path)
{
    static const char *const exact[] = { "/.pomerium/jwt",           "/.pomerium/user",
                                         "/.pomerium/webauthn",      "/.pomerium/routes",
                                         "/.pomerium/api/v1/routes", "/.pomerium/mcp/authorize",
                                         "/.pomerium/mcp/connect",   "/.pomerium/mcp/routes" };
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(exact); i++) {
        if (sv_eq(path, sv_from(exact[i]))) {
            return true;
        }
    }
    return false;
}
