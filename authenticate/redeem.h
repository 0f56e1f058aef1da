/* authn_redeem: postern.Login/Redeem for the proxy: a one-time code against the session it stands for.
 * Bound to the host and to the browser's login cookie; single use by a lease in the databroker, so it
 * holds over any number of authenticates. */
#pragma once

#include "authenticate/app.h"
#include "common/rpc/server.h"

/* Rows of the method table; arg of the server is the struct authn. */
extern const struct rpc_method authn_redeem_methods[];
extern const size_t authn_redeem_n_methods;
/* Fails what still waits for the databroker; before the server goes. */
void authn_redeem_cancel(struct authn *app);
