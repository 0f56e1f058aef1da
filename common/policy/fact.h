/* policy_fact: what a criterion is compared with, for people. Internal to common/policy; pure. */
#pragma once

#include "common/buf.h"
#include "common/policy/pred.h"

/* Appends a member of a JSON object: "fact": the value, or "missing": why there is none. Long texts
 * and lists are cut; "more" counts what was left out of a list. */
void policy_fact(const struct policy_pred *p, const struct policy_input *in, struct buf *out);
