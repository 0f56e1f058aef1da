/* policy_central: the policies that config.yaml names in its section `policies`, compiled once and
 * shared by the routes that they apply to: those a route names, those for routes that say nothing
 * themselves (`default`), and those that hold on every route (`enforced`). A mistake in one closes
 * the routes that it applies to. Immutable and refcounted; any thread. The language: docs/policy.md. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/policy/policy.h"
#include "common/sv.h"
#include "common/yaml.h"

struct policy_central_rules {
    struct policy *policy;   /* NULL: there is a mistake in it, or there are none */
    enum policy_fault fault; /* then, with why; NONE: there are none */
    struct diag why;
};

struct policy_central_item {
    struct sv name;
    bool enforced;   /* on every route; it holds deny rules alone */
    bool fallback;   /* `default`: on routes that say nothing about who may enter */
    bool has_shadow; /* shadow is to come in place of rules */
    struct policy_central_rules rules;  /* that count; none only where there is a shadow */
    struct policy_central_rules shadow; /* `shadow_policy` */
};

/* One reference for the caller, of the section as written; NULL where there is none. What is wrong
 * with a policy is kept with it. */
struct policy_central *policy_central_new(const json_t *section, const struct yaml_doc *doc);
struct policy_central *policy_central_ref(struct policy_central *central);
void policy_central_unref(struct policy_central **central);

/* NULL has none of them. */
size_t policy_central_count(const struct policy_central *central);
const struct policy_central_item *policy_central_at(const struct policy_central *central, size_t i);
/* NULL: no policy of that name. */
const struct policy_central_item *policy_central_find(const struct policy_central *central,
                                                      struct sv name);
/* The name nearest to a misspelt one; NULL: none is near. */
const char *policy_central_nearest(const struct policy_central *central, struct sv name);
/* How many have a mistake, in what counts or in what is to come. */
size_t policy_central_broken(const struct policy_central *central);
