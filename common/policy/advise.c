#include "common/policy/advise.h"

#include "common/buf.h"
#include "common/policy/compiled.h"

enum { SENTENCE_MAX = 512 };

struct advice {
    policy_advice_fn fn;
    void *arg;
};

static void say(const struct advice *a, struct yaml_pos at, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void say(const struct advice *a, struct yaml_pos at, const char *fmt, ...)
{
    CLEANUP(buf_deinit) struct buf b;
    va_list ap;

    buf_init(&b, SENTENCE_MAX);
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    a->fn(a->arg, at, buf_cstr(&b));
}

/* --- what is always so --------------------------------------------------------------------------- */

enum always { ALWAYS_OPEN = 0, ALWAYS_TRUE, ALWAYS_FALSE };

static bool is_empty_list(const struct policy_match *match)
{
    return match->any && match->set.count == 0;
}

static enum always pred_always(const struct policy_pred *p)
{
    const struct policy_when *w = p->when;

    switch ((int)p->kind) {
    case POLICY_CRITERION_ACCEPT:
        return ALWAYS_TRUE;
    case POLICY_CRITERION_REJECT:
        return ALWAYS_FALSE;
    case POLICY_CRITERION_DATE:
        return w->has_after && w->has_before && w->after >= w->before ? ALWAYS_FALSE : ALWAYS_OPEN;
    case POLICY_CRITERION_DAY_OF_WEEK:
        return w->days == 0 ? ALWAYS_FALSE : ALWAYS_OPEN;
    case POLICY_CRITERION_USER:
    case POLICY_CRITERION_EMAIL:
    case POLICY_CRITERION_DOMAIN:
    case POLICY_CRITERION_HTTP_METHOD:
    case POLICY_CRITERION_HTTP_PATH:
        return is_empty_list(&p->match) ? ALWAYS_FALSE : ALWAYS_OPEN;
    default:
        return ALWAYS_OPEN;
    }
}

/* Facts of which a request has one, so that two lists without a common name cannot both hold. */
static bool is_single(enum policy_criterion kind)
{
    return kind == POLICY_CRITERION_USER || kind == POLICY_CRITERION_EMAIL ||
           kind == POLICY_CRITERION_DOMAIN || kind == POLICY_CRITERION_HTTP_METHOD ||
           kind == POLICY_CRITERION_HTTP_PATH;
}

static bool exclude_each_other(const struct policy_pred *a, const struct policy_pred *b)
{
    if (a->kind != b->kind || !is_single(a->kind) || !a->match.any || !b->match.any ||
        a->match.set.count == 0) {
        return false;
    }
    for (size_t i = 0; i <= a->match.set.mask; i++) {
        const struct policy_text *name = &a->match.set.slots[i];

        if (name->hash != 0 && policy_set_has(&b->match.set, name)) {
            return false;
        }
    }
    return true;
}

/* The member that decides about an `and` once and for all; count: none does. */
static size_t contradiction(const struct policy_block *block)
{
    for (size_t i = 0; i < block->count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (exclude_each_other(&block->preds[k], &block->preds[i])) {
                return i;
            }
        }
    }
    return block->count;
}

/* *at_out: the member that makes it so. */
static enum always block_always(const struct policy_block *block, size_t *at_out)
{
    bool inverted = block->combine == POLICY_NOT || block->combine == POLICY_NOR;
    bool all_wanted = block->combine == POLICY_AND || block->combine == POLICY_NOT;
    size_t same = 0;

    for (size_t i = 0; i < block->count; i++) {
        enum always one = pred_always(&block->preds[i]);
        bool value = (one == ALWAYS_TRUE) != inverted;

        if (one == ALWAYS_OPEN) {
            continue;
        }
        *at_out = i;
        if (value != all_wanted) {
            return value ? ALWAYS_TRUE : ALWAYS_FALSE;
        }
        same++;
    }
    if (block->count != 0 && same == block->count) {
        return all_wanted ? ALWAYS_TRUE : ALWAYS_FALSE;
    }
    *at_out = block->combine == POLICY_AND ? contradiction(block) : block->count;
    return *at_out < block->count ? ALWAYS_FALSE : ALWAYS_OPEN;
}

/* --- rules --------------------------------------------------------------------------------------- */

static void look_at_side(const struct advice *a, const struct policy_side *side, bool denies)
{
    size_t at = 0;

    for (size_t i = 0; i < side->count; i++) {
        const struct policy_block *block = &side->blocks[i];
        enum always always = block_always(block, &at);

        if (always == ALWAYS_OPEN) {
            continue;
        }
        const struct policy_saying *saying = &block->sayings[at];

        if (always == ALWAYS_FALSE && saying->at.line != 0 &&
            block->preds[at].kind != POLICY_CRITERION_REJECT) {
            say(a, saying->at, "this rule can never hold, because of \"%s\": it %s nobody",
                saying->name, denies ? "keeps out" : "lets in");
        } else if (always == ALWAYS_TRUE && denies) {
            say(a, saying->at, "this deny rule always holds: nobody may enter");
        } else if (always == ALWAYS_TRUE && side->count > 1) {
            say(a, saying->at,
                "this rule lets everybody in: the other %zu allow rule%s of the route change nothing",
                side->count - 1, side->count == 2 ? "" : "s");
        } else if (always == ALWAYS_TRUE && block->count > 1) {
            say(a, saying->at, "this lets everybody in: what stands beside it changes nothing");
        }
    }
}

/* There is no page to register one at, and no record of one is read. */
static void look_for_devices(const struct advice *a, const struct policy_side *side)
{
    for (size_t i = 0; i < side->count; i++) {
        for (size_t k = 0; k < side->blocks[i].count; k++) {
            if (side->blocks[i].preds[k].kind == POLICY_CRITERION_DEVICE) {
                say(a, side->blocks[i].sayings[k].at,
                    "nobody has a device that \"device\" would take: none can be registered yet, and "
                    "whoever is asked for one is refused (450)");
            }
        }
    }
}

static bool allows_any(const struct policy *policy)
{
    size_t rules = policy->allow.count;

    for (size_t i = 0; i < policy->n_parts; i++) {
        rules += policy->parts[i]->allow.count;
    }
    return rules != 0;
}

void policy_advise(const struct policy *policy, policy_advice_fn fn, void *arg)
{
    const struct advice a = { .fn = fn, .arg = arg };

    look_at_side(&a, &policy->allow, false);
    look_at_side(&a, &policy->deny, true);
    look_for_devices(&a, &policy->allow);
    look_for_devices(&a, &policy->deny);
    if (!policy->enforced && policy->name.n == 0 && !allows_any(policy)) {
        say(&a, (struct yaml_pos){ 0 },
            "no rule allows anybody: nobody may enter; write a policy, or "
            "allow_any_authenticated_user");
    }
}

/* --- groups -------------------------------------------------------------------------------------- */

static void each_name(const struct policy_match *match, struct yaml_pos at, policy_group_fn fn,
                      void *arg)
{
    for (size_t i = 0; match->any && match->set.count != 0 && i <= match->set.mask; i++) {
        if (match->set.slots[i].hash != 0) {
            fn(arg, at, match->set.slots[i].s);
        }
    }
    for (size_t i = 0; i < match->test_count; i++) {
        const struct policy_test *test = &match->tests[i];

        if ((test->op == POLICY_OP_HAS || test->op == POLICY_OP_IS) &&
            test->value.kind == POLICY_KIND_STRING) {
            fn(arg, at, test->value.text.s);
        }
    }
}

static void each_of_side(const struct policy_side *side, policy_group_fn fn, void *arg)
{
    for (size_t i = 0; i < side->count; i++) {
        for (size_t k = 0; k < side->blocks[i].count; k++) {
            const struct policy_pred *p = &side->blocks[i].preds[k];

            if (p->kind == POLICY_CRITERION_GROUPS ||
                (p->kind == POLICY_CRITERION_CLAIM && sv_eq(p->claim.s, SV("groups")))) {
                each_name(&p->match, side->blocks[i].sayings[k].at, fn, arg);
            }
        }
    }
}

void policy_each_group(const struct policy *policy, policy_group_fn fn, void *arg)
{
    each_of_side(&policy->allow, fn, arg);
    each_of_side(&policy->deny, fn, arg);
}
