/* authz_rules: what the configuration says about verdicts: each route's policy, compiled, and how
 * identities are written. Immutable; made on the loop's thread, handed to the check thread whole. */
#pragma once

#include "authorize/front.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/assertion.h"
#include "common/crypto/seal.h"
#include "common/diag.h"
#include "common/policy/policy.h"

struct authz_rules;

/* How an identity is written; many routes share one. */
struct authz_profile {
    enum config_jwt_issuer issuer;
    struct config_strings groups_filter; /* none: all groups */
    unsigned tell;                       /* CONFIG_TELL_* */
};

/* A policy that does not compile is logged and closes its own route. before: the rules of the
 * configuration that config was read after, whose policies stay where nothing about their route has
 * changed; NULL: none. ERR_INVALID: the signing key is none; d has the reason. Keeps a reference of
 * config. */
MUST_CHECK enum err authz_rules_new(const struct config *config, const struct authz_rules *before,
                                    struct authz_rules **rules_out, struct diag *d);
void authz_rules_free(struct authz_rules **rules);

const struct config *authz_rules_config(const struct authz_rules *rules);
const struct assertion_keys *authz_rules_keys(const struct authz_rules *rules);
/* Opens the provider's tokens in session records; the check thread's. */
struct sealer *authz_rules_at_rest(const struct authz_rules *rules);
/* How a visitor's request is read; the check thread's. */
const struct authz_front *authz_rules_front(const struct authz_rules *rules);
/* Whether any route passes on a token of the provider. */
bool authz_rules_want_tokens(const struct authz_rules *rules);
/* NULL: it did not compile. */
const struct policy *authz_rules_policy(const struct authz_rules *rules,
                                        const struct config_route *route);
/* The one that is asked beside it; NULL: none, or it did not compile. */
const struct policy *authz_rules_shadow(const struct authz_rules *rules,
                                        const struct config_route *route);
/* How many routes have one. */
size_t authz_rules_shadows(const struct authz_rules *rules);
/* Why it did not compile, with its place; NULL: it did. */
const char *authz_rules_mistake(const struct authz_rules *rules, const struct config_route *route,
                                char line[DIAG_LINE]);
/* By how many lines the route stands below where it stood when its policy was compiled. */
int authz_rules_line_shift(const struct authz_rules *rules, const struct config_route *route);
/* Index of the route's profile; of NULL, that is one of our own paths: the global one, 0. */
size_t authz_rules_profile(const struct authz_rules *rules, const struct config_route *route);
const struct authz_profile *authz_rules_profile_at(const struct authz_rules *rules, size_t index);
/* Routes whose policy did not compile. */
size_t authz_rules_invalid(const struct authz_rules *rules);
