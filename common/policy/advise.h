/* policy_advise: what of a policy can have no effect, whoever asks for what. It is no mistake, but it is
 * hardly meant. Pure; any thread. */
#pragma once

#include "common/base.h"
#include "common/policy/policy.h"
#include "common/sv.h"
#include "common/yaml.h"

/* at: of the criterion that it is about; line 0: unknown. Valid during the call. */
typedef void (*policy_advice_fn)(void *arg, struct yaml_pos at, const char *sentence);
/* Of the policy itself and, for the route as a whole, with the central ones that apply to it. */
void policy_advise(const struct policy *policy, policy_advice_fn fn, void *arg);

/* Calls fn for each group that it asks for by `groups` or the claim of that name, has or is. */
typedef void (*policy_group_fn)(void *arg, struct yaml_pos at, struct sv group);
void policy_each_group(const struct policy *policy, policy_group_fn fn, void *arg);
