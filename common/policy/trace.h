/* policy_trace: a verdict laid open for people: every rule, every criterion, what the policy says,
 * what the facts are, whether it held. Another walk over the same policy: whether something holds is
 * asked of the functions that policy_eval asks. Pure; any thread. The form: docs/explain.md. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/policy/policy.h"

/* Rules of a side and criteria of a rule that are told; the rest is counted. */
enum { POLICY_TRACE_RULES_MAX = 32, POLICY_TRACE_CRITERIA_MAX = 32 };

/* Appends one JSON object to out, and the verdict it explains to *v_out. policy NULL: UNAVAILABLE,
 * as policy_eval has it. line_shift: how far the route has moved in its file since the policy was
 * compiled. */
void policy_trace(const struct policy *policy, const struct policy_input *in, int line_shift,
                  struct buf *out, struct policy_verdict *v_out);
/* Appends a list of the names of a set of reasons. */
void policy_trace_reasons(struct buf *out, policy_reason_set reasons);
/* "allow", "deny", "login", "device", "unavailable". */
const char *policy_outcome_name(enum policy_outcome outcome);
