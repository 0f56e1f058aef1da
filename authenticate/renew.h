/* authn_renew: the provider's tokens, and with them a person's claims, are refreshed ahead of their end.
 * Requests never wait for it and never do it.
 *
 *   due --> lease of this session --> record read: still due? --no--> another authenticate was quicker
 *             | somebody's                | yes
 *             '--> later                  v
 *                                  token endpoint --not now--> back-off; the session lives on
 *                                     |       '--invalid_grant--> record read again: another token? --> fine
 *                                     v                                       '-- the same: session ended
 *                            refresh token written  (again and again: the old one is used up)
 *                                     v
 *                            ID token verified, userinfo --> groups, user, session written --> lease given back
 *
 * One lease a session, not one for the whole job: any number of authenticates share the work, and where
 * one dies only its own sessions wait, LEASE_S at most. The lease outlives the longest redeeming, so no
 * single-use token is redeemed twice. Between the provider's answer and the first write nothing can help:
 * who is killed there costs that person one login.
 * How a refresh went wrong decides what happens: the provider's silence, errors and answers that do not
 * verify keep the session as it is until its own end; a refused token and another subject end it.
 * Loop thread. */
#pragma once

#include "authenticate/app.h"

struct authn_renewer;

/* Begins at once. */
struct authn_renewer *authn_renewer_new(struct authn *app);
/* Looks at every session again: after another provider was configured, or after the databroker was away. */
void authn_renewer_look_again(struct authn_renewer *renewer);
/* Begins nothing more; idle is called once, when what is under way has been written. */
void authn_renewer_stop(struct authn_renewer *renewer, void (*idle)(void *arg), void *arg);
void authn_renewer_free(struct authn_renewer **renewer);
