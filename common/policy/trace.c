#include "common/policy/trace.h"

#include "common/policy/ask.h"
#include "common/policy/fact.h"

const char *policy_outcome_name(enum policy_outcome outcome)
{
    static const char *const names[] = {
        [POLICY_DENY] = "deny",     [POLICY_ALLOW] = "allow",
        [POLICY_LOGIN] = "login",   [POLICY_UNAVAILABLE] = "unavailable",
        [POLICY_DEVICE] = "device",
    };

    return (unsigned)outcome < ARRAY_LEN(names) ? names[outcome] : "deny";
}

void policy_trace_reasons(struct buf *out, policy_reason_set reasons)
{
    const char *between = "";

    reasons &= ~POLICY_REASON_BIT(POLICY_REASON_NONE);
    buf_add_char(out, '[');
    for (enum policy_reason r = policy_reason_next(&reasons); r != POLICY_REASON_NONE;
         r = policy_reason_next(&reasons)) {
        buf_printf(out, "%s\"%s\"", between, policy_reason_name(r));
        between = ",";
    }
    buf_add_char(out, ']');
}

static void add_place(struct buf *out, struct yaml_pos at, int line_shift)
{
    if (at.line != 0) {
        buf_printf(out, ",\"line\":%d,\"column\":%d", at.line + line_shift, at.column);
    }
}

static void add_criterion(struct buf *out, const struct policy_block *block, size_t index,
                          struct policy_asked asked, int line_shift)
{
    const struct policy_saying *saying = &block->sayings[index];
    policy_reason_set reasons = asked.reasons & ~POLICY_REASON_BIT(POLICY_REASON_NONE);

    buf_add_str(out, "{\"name\":");
    buf_add_json(out, sv_from(saying->name));
    buf_printf(out, ",\"held\":%s", asked.value ? "true" : "false");
    if (reasons != 0) {
        buf_printf(out, ",\"reason\":\"%s\"", policy_reason_name(policy_reason_next(&reasons)));
    }
    buf_add_str(out, ",\"policy\":");
    buf_add_json(out, saying->text);
    if (saying->cut) {
        buf_add_str(out, ",\"cut\":true");
    }
    if (saying->others != 0) {
        buf_printf(out, ",\"others\":%zu", saying->others);
    }
    add_place(out, saying->at, line_shift);
    buf_add_char(out, ',');
}

/* Where a rule comes from: the route itself, or a central policy. */
struct origin {
    const struct policy *policy;
    int line_shift;
};

static void trace_block(struct buf *out, const struct policy_block *block, bool denies,
                        const struct policy_input *in, struct origin origin)
{
    static const char *const operators[] = { "and", "or", "not", "nor" };
    struct policy_asked asked = policy_ask_block(block, denies, in);

    buf_printf(out, "{\"operator\":\"%s\",\"held\":%s,\"reasons\":", operators[block->combine],
               asked.value ? "true" : "false");
    policy_trace_reasons(out, asked.reasons);
    if (origin.policy->name.n != 0) {
        buf_add_str(out, ",\"from\":");
        buf_add_json(out, origin.policy->name);
        buf_printf(out, ",\"enforced\":%s", origin.policy->enforced ? "true" : "false");
    }
    buf_add_str(out, ",\"criteria\":[");
    for (size_t i = 0; i < MIN(block->count, (size_t)POLICY_TRACE_CRITERIA_MAX); i++) {
        buf_add_str(out, i == 0 ? "" : ",");
        add_criterion(out, block, i, policy_ask_member(block, i, denies, in), origin.line_shift);
        policy_fact(&block->preds[i], in, out);
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
    if (block->count > POLICY_TRACE_CRITERIA_MAX) {
        buf_printf(out, ",\"more\":%zu", block->count - POLICY_TRACE_CRITERIA_MAX);
    }
    buf_add_char(out, '}');
}

/* The rules of one action, in one policy; *n counts those of all. */
static void trace_rules(struct buf *out, bool denies, const struct policy_input *in,
                        struct origin origin, size_t *n)
{
    const struct policy_side *side = denies ? &origin.policy->deny : &origin.policy->allow;

    for (size_t i = 0; i < side->count; i++, (*n)++) {
        if (*n < POLICY_TRACE_RULES_MAX) {
            buf_add_str(out, *n == 0 ? "" : ",");
            trace_block(out, &side->blocks[i], denies, in, origin);
        }
    }
}

static void trace_side(struct buf *out, const struct policy *policy, bool denies,
                       const struct policy_input *in, int line_shift)
{
    size_t n = 0;

    buf_add_str(out, ",\"rules\":[");
    if (policy != NULL) {
        trace_rules(out, denies, in, (struct origin){ policy, line_shift }, &n);
        for (size_t i = 0; i < policy->n_parts; i++) {
            trace_rules(out, denies, in, (struct origin){ policy->parts[i], 0 }, &n);
        }
    }
    buf_add_char(out, ']');
    if (n > POLICY_TRACE_RULES_MAX) {
        buf_printf(out, ",\"more\":%zu", n - POLICY_TRACE_RULES_MAX);
    }
    buf_add_char(out, '}');
}

void policy_trace(const struct policy *policy, const struct policy_input *in, int line_shift,
                  struct buf *out, struct policy_verdict *v_out)
{
    policy_eval(policy, in, v_out);
    buf_printf(out, "{\"verdict\":\"%s\",\"status\":%d,\"reasons\":",
               policy_outcome_name(v_out->outcome), v_out->status);
    policy_trace_reasons(out, v_out->reasons);
    buf_printf(out, ",\"allow\":{\"held\":%s,\"reasons\":", v_out->allow ? "true" : "false");
    policy_trace_reasons(out, v_out->allow_reasons);
    trace_side(out, policy, false, in, line_shift);
    buf_printf(out, ",\"deny\":{\"held\":%s,\"reasons\":", v_out->deny ? "true" : "false");
    policy_trace_reasons(out, v_out->deny_reasons);
    trace_side(out, policy, true, in, line_shift);
    buf_add_char(out, '}');
}
