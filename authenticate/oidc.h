/* authn_oidc: idp_provider: oidc. Discovery and keys are fetched when needed, once for all who wait,
 * with back-off; the last good copy is kept here and in the databroker, so a restart with the provider
 * down still knows it. The daemon runs without the provider; only new logins need it.
 *
 *   ask: metadata known? --no--> refresh --> 302 to the provider (state sealed, nonce, PKCE S256)
 *   callback: state --> session lives? code : tokens --> key known? --no--> refresh (throttled)
 *             --> ID token verified --> userinfo --> authn_login_done
 * Loop thread. */
#pragma once

#include "authenticate/request.h"

struct authn_oidc;
struct authn_exchange;

struct authn_oidc *authn_oidc_new(struct authn *app);
void authn_oidc_free(struct authn_oidc **oidc);
/* The databroker has come: looks for the kept copy, unless the provider itself was quicker. */
void authn_oidc_store_ready(struct authn_oidc *oidc);

void authn_oidc_ask(struct authn_request *req);
/* GET /oauth2/callback */
void authn_oidc_callback(struct authn_request *req);
/* Appends the provider's logout URL (OpenID Connect RP-Initiated Logout 1.0); false: it has none. */
bool authn_oidc_logout_url(const struct authn_oidc *oidc, const struct config *config,
                           struct sv id_token, struct buf *url);
void authn_exchange_free(struct authn_exchange **exchange);

/* --- for callback.c and proof.c ------------------------------------------------------------------ */

struct authn_inspector;
struct authn_provider;
struct jose_keys;

/* NULL: not known (yet). */
const struct authn_provider *authn_oidc_provider(const struct authn_oidc *oidc);
const struct jose_keys *authn_oidc_keys(const struct authn_oidc *oidc);
/* Goes on with waiter->next after a refresh; ERR_UNAVAILABLE: it failed, or it is too early for another.
 * kid: what is looked for, "" nothing. */
void authn_oidc_refresh(struct authn_oidc *oidc, struct authn_waiter *waiter, struct sv kid);
/* Adds what shows the provider that it is us who ask (RFC 6749 §2.3.1): to a form, or as the value of
 * Authorization. Both are to be wiped. */
void authn_oidc_prove(const struct config *config, bool in_body, struct buf *form,
                      struct buf *authorization);
struct authn_inspector *authn_oidc_inspector(struct authn_oidc *oidc);
/* 503 page that names the provider. */
void authn_oidc_down(struct authn_request *req);
