/* policy_cert_facts: what a policy may ask about a client certificate, taken from its DER once a
 * connection. Whether it is trusted is the TLS side's answer, not found here. Immutable; any
 * thread. */
#pragma once

#include "common/base.h"
#include "common/policy/input.h"
#include "common/sv.h"

enum { POLICY_CERT_DER_MAX = 64 * 1024, POLICY_CERT_SANS_MAX = 1024, POLICY_CERT_NAME_MAX = 4096 };

struct policy_cert_facts;

/* ERR_INVALID: not one X.509 certificate, or a name in it holds NUL. ERR_LIMIT: too big, too many
 * names, an issuer or subject of more than POLICY_CERT_NAME_MAX. */
MUST_CHECK enum err policy_cert_of_der(struct sv der, struct policy_cert_facts **facts_out);
MUST_CHECK enum err policy_cert_of_pem(struct sv pem, struct policy_cert_facts **facts_out);
void policy_cert_free(struct policy_cert_facts **facts);
/* Borrowed: lives as long as the facts. */
const struct policy_cert *policy_cert_get(const struct policy_cert_facts *facts);
