/* authn_local: idp_provider: local: the login form and what is sent with it. */
#pragma once

#include "authenticate/request.h"

void authn_local_ask(struct authn_request *req); /* shows the form for req->flow */
/* The first time, blocking; ERR_*: d says why. */
MUST_CHECK enum err authn_local_load(struct authn *app, struct diag *d);
