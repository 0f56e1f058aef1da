/* authn_keyset: the keys of an issuer of tokens: given in the configuration, or fetched from its jwks_url,
 * or, with what the issuer is called, from the API server of the Kubernetes cluster (kubernetes:///); once for all who wait, and anew when they are older than an hour or a token names a key that is not
 * there (kids.h). The last good ones stay while the server is down, for a day. Loop thread. */
#pragma once

#include "authenticate/kids.h"
#include "common/config/config.h"
#include "common/loop.h"

enum { AUTHN_ISSUER_MAX = 2048 };

struct authn_keyset;

/* issuer outlives it. ERR_INVALID: its jwks are none; d says why. */
MUST_CHECK enum err authn_keyset_new(struct loop *loop, const struct config_issuer *issuer,
                                     struct authn_keyset **keyset_out, struct diag *d);
/* Who waits is told ERR_UNAVAILABLE. */
void authn_keyset_free(struct authn_keyset **keyset);
/* The same issuer, of another configuration. */
void authn_keyset_move(struct authn_keyset *keyset, const struct config_issuer *issuer);
const struct config_issuer *authn_keyset_issuer(const struct authn_keyset *keyset);
/* The iss of its tokens; "": not known yet, a refresh finds it out. */
struct sv authn_keyset_iss(const struct authn_keyset *keyset);
/* NULL: none are known (yet), or too old. */
const struct jose_keys *authn_keyset_keys(struct authn_keyset *keyset);
/* Goes on with waiter->next after a fetch, or at once: ERR_UNAVAILABLE: it failed, or it is too early for
 * another. kid: what is looked for, "" nothing. */
void authn_keyset_refresh(struct authn_keyset *keyset, struct authn_waiter *waiter, struct sv kid);
