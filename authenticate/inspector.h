/* authn_inspector: what the identity provider says of access tokens that it alone can read: introspection
 * (RFC 7662) where it has that endpoint, else userinfo. One question for all who show the same token at
 * once; what holds is remembered for AUTHN_INSPECT_KEEP_MS, what does not for less, and the two in
 * different places. Made-up tokens neither drive out those that hold nor flood the provider: of tokens
 * that are not remembered, AUTHN_INSPECT_NEW_MAX a second are asked about, and not in all places.
 * Owned by authn_oidc: another provider, another inspector. Loop thread. */
#pragma once

#include <jansson.h>

#include "authenticate/app.h"

enum {
    AUTHN_OPAQUE_MAX = 4096,
    AUTHN_INSPECT_KEEP_MS =
        240000, /* a proxy adds a minute: five, until a token ends here that ended there */
    AUTHN_INSPECT_NEW_MAX = 20
};

struct authn_inspector;

/* Somebody who asks; part of what it is for. In no list, or in the one of a question. */
struct authn_asker {
    struct list node;
    /* ERR_OK: claims (authn_introspection_read), borrowed and nobody's to change. ERR_DENIED: the token does
     * not hold; ERR_LIMIT: too many are asked about; ERR_UNAVAILABLE: there is no answer. why: for the log. */
    void (*told)(struct authn_asker *asker, enum err err, const json_t *claims, const char *why);
};

struct authn_inspector *authn_inspector_new(struct authn *app);
/* Who waits is told ERR_UNAVAILABLE. */
void authn_inspector_free(struct authn_inspector **inspector);
/* Tells at once or later. The provider is known (authn_oidc_provider). */
void authn_inspector_ask(struct authn_inspector *inspector, struct sv token,
                         struct authn_asker *asker);
