/* policy_ask: single answers of the evaluator, for those who look into a verdict (trace.c): the same
 * functions decide there and in policy_eval. Internal to common/policy; pure. */
#pragma once

#include "common/base.h"
#include "common/policy/compiled.h"

struct policy_asked {
    bool value;
    policy_reason_set reasons; /* of a member: the bit of its one reason, NONE among them */
};

struct policy_asked policy_ask_block(const struct policy_block *block, bool denies,
                                     const struct policy_input *in);
/* What the criterion says for itself: before `not` and `nor` turn it. */
struct policy_asked policy_ask_member(const struct policy_block *block, size_t index, bool denies,
                                      const struct policy_input *in);

/* The facts that criteria are compared with. The directory's e-mail address before the user's. */
const struct policy_text *policy_fact_email(const struct policy_input *in);
/* The part between the first and the second @; false: there is no @. */
bool policy_fact_domain(const struct policy_input *in, struct policy_text *domain_out);
/* Directory group ids. */
const struct policy_text *policy_fact_groups(const struct policy_input *in, size_t *n_out);
/* Its state is UNKNOWN where nobody told it. */
struct policy_header policy_fact_header(const struct policy_input *in, struct sv name);
/* The user's claim hides the session's of the same name. Never NULL. */
const struct policy_claim *policy_fact_claim(const struct policy_input *in,
                                             const struct policy_text *name);
