/* A policy with the answers of some criteria given. */
#include <string.h>

#include "common/mem.h"
#include "common/policy/compiled.h"

_Static_assert(POLICY_CRITERION_COUNT <= 64, "a set of criteria is one word");

static void suppose(struct policy_pred *pred, uint64_t criteria, bool value)
{
    if ((criteria >> (unsigned)pred->kind & 1U) != 0) {
        pred->kind = value ? POLICY_CRITERION_ACCEPT : POLICY_CRITERION_REJECT;
        pred->identity = false; /* the reasons stay: they are what it would have said */
    }
}

static struct policy_side suppose_side(struct arena *arena, const struct policy_side *side,
                                       uint64_t criteria, bool value)
{
    struct policy_block *blocks = arena_alloc(arena, (side->count + 1) * sizeof(*blocks));

    for (size_t i = 0; i < side->count; i++) {
        const struct policy_block *from = &side->blocks[i];
        bool inverted = from->combine == POLICY_NOT || from->combine == POLICY_NOR;
        struct policy_pred *preds = arena_alloc(arena, (from->count + 1) * sizeof(*preds));

        for (size_t k = 0; k < from->count; k++) {
            preds[k] = from->preds[k];
            suppose(&preds[k], criteria, value != inverted);
        }
        blocks[i] = *from;
        blocks[i].preds = preds;
    }
    return (struct policy_side){ .blocks = blocks, .count = side->count };
}

struct policy *policy_suppose(struct policy *policy, uint64_t criteria, bool hopeful)
{
    struct policy *p = MEM_NEW(struct policy);

    atomic_init(&p->refs, 1);
    arena_init(&p->arena);
    p->of = policy_ref(policy);
    p->mcp_server = policy->mcp_server;
    p->enforced = policy->enforced;
    p->headers = policy->headers; /* of p->of */
    p->n_headers = policy->n_headers;
    p->age_ms = policy->age_ms;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    p->parts = arena_zalloc(&p->arena, (policy->n_parts + 1) * sizeof(*p->parts));
    for (p->n_parts = 0; p->n_parts < policy->n_parts;
         p->n_parts++) { /* one level: they have none */
        p->parts[p->n_parts] = policy_suppose(policy->parts[p->n_parts], criteria, hopeful);
    }
    p->allow = suppose_side(&p->arena, &policy->allow, criteria, hopeful);
    p->deny = suppose_side(&p->arena, &policy->deny, criteria, !hopeful);
    return p;
}

/* --- what is asked ------------------------------------------------------------------------------- */

static bool is_about_the_visitor(enum policy_criterion kind)
{
    switch ((int)kind) {
    case POLICY_CRITERION_REJECT:
    case POLICY_CRITERION_ACCEPT:
    case POLICY_CRITERION_AUTHENTICATED_USER:
    case POLICY_CRITERION_USER:
    case POLICY_CRITERION_EMAIL:
    case POLICY_CRITERION_DOMAIN:
    case POLICY_CRITERION_GROUPS:
    case POLICY_CRITERION_CLAIM:
        return true;
    default:
        return false;
    }
}

static uint64_t asked_by_block(const struct policy_block *block)
{
    uint64_t asked = 0;

    for (size_t i = 0; i < block->count; i++) {
        enum policy_criterion kind = block->preds[i].kind;

        asked |= is_about_the_visitor(kind) ? 0 : UINT64_C(1) << (unsigned)kind;
    }
    return asked;
}

static uint64_t asked_by(const struct policy_side *side)
{
    uint64_t asked = 0;

    for (size_t i = 0; i < side->count; i++) {
        asked |= asked_by_block(&side->blocks[i]);
    }
    return asked;
}

uint64_t policy_asks_of_request(const struct policy *policy)
{
    uint64_t asked = asked_by(&policy->allow) | asked_by(&policy->deny);

    for (size_t i = 0; i < policy->n_parts; i++) {
        asked |= policy_asks_of_request(policy->parts[i]);
    }
    return asked;
}

static void add_rules(const struct policy_side *side, const char *action, struct buf *out)
{
    for (size_t i = 0; i < side->count; i++) {
        const struct policy_block *block = &side->blocks[i];

        if (asked_by_block(block) == 0) {
            continue;
        }
        buf_printf(out, "%s %d\n", action, (int)block->combine);
        for (size_t k = 0; k < block->count; k++) {
            const struct policy_saying *saying = &block->sayings[k];

            buf_printf(out, "%s: ", saying->name);
            buf_add_sv(out, saying->text);
            if (saying->cut ||
                saying->others != 0) { /* nobody knows whether the rest is the same */
                buf_printf(out, "%p", (const void *)saying);
            }
            buf_add_char(out, '\n');
        }
    }
}

void policy_asks_text(const struct policy *policy, struct buf *out)
{
    add_rules(&policy->allow, "allow", out);
    add_rules(&policy->deny, "deny", out);
    for (size_t i = 0; i < policy->n_parts; i++) {
        policy_asks_text(policy->parts[i], out);
    }
}
