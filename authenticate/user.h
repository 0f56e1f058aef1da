/* authn_user_*: who am I: a page and JSON, on the authenticate host (by our own session) and on route
 * hosts (by the assertion that the proxy adds, verified here for that host). Only these fields leave:
 * name, e-mail, user id, groups, expiry and, as JSON, the assertion's claims. */
#pragma once

#include "authenticate/request.h"

void authn_user_page(struct authn_request *req);
void authn_user_json(struct authn_request *req);
