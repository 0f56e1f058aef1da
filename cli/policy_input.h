/* cli_policy_input: the `input` of a policy case as a policy_input. Everything it points to lives in
 * the facts. One thread. The format: docs/policy.md. */
#pragma once

#include <jansson.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/policy/cert.h"
#include "common/policy/policy.h"

struct cli_policy_facts {
    struct policy_input in;
    struct arena arena;
    struct policy_cert_facts *cert;
    struct policy_ssh ssh;
    struct policy_mcp mcp;
    const json_t *records; /* of the case, borrowed */
    const json_t *headers; /* likewise */
    bool internal;         /* one of our own paths */
    bool route_found;
    bool mtls_default_deny;
    bool navigates; /* a browser that follows a redirect, as the proxy sees it */
};

/* ERR_INVALID: a key that is unknown or of the wrong type; facts must be deinited in any case. */
MUST_CHECK enum err cli_policy_facts_init(struct cli_policy_facts *facts, const json_t *input,
                                          struct diag *d);
/* Fills in what the policy asks for; before policy_eval. */
void cli_policy_facts_ask(struct cli_policy_facts *facts, const struct policy *policy);
void cli_policy_facts_deinit(struct cli_policy_facts *facts);
