/* authn_endpoints: the table of paths, and which host each belongs to. */
#pragma once

#include "authenticate/request.h"

/* Answers req, now or later. */
void authn_endpoints_handle(struct authn_request *req);
