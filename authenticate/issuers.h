/* authn_issuers: who else may vouch for programs (identity_providers), each with its keys. Loop thread. */
#pragma once

#include "authenticate/app.h"
#include "authenticate/keyset.h"

/* Those of config; keeps the keys of those that stay the same. ERR_INVALID: one of them has no usable
 * jwks; d says which, nothing has changed. config outlives them. */
MUST_CHECK enum err authn_issuers_adopt(struct authn *app, const struct config *config,
                                        struct diag *d);
void authn_issuers_free(struct authn *app);
/* NULL: app has another configuration by now. */
struct authn_keyset *authn_issuers_keyset(const struct authn *app,
                                          const struct config_issuer *issuer);
/* Whose tokens have that iss, of those that the route takes; NULL: nobody's, or nobody's yet:
 * *unknown_out, if not NULL, is one whose iss is to be found out first. */
const struct config_issuer *authn_issuers_find(const struct authn *app, const struct config *config,
                                               const struct config_route *route, struct sv iss,
                                               struct authn_keyset **unknown_out);
