/* authn_sign_out: ends the session of the browser's login: the record is deleted, every application
 * learns it at once; then the provider's own logout where it has one, signout_redirect_url, or a page.
 * A signed link of our proxy ends it at once; anything else shows a form first, so that no foreign page
 * can sign a person out. */
#pragma once

#include "authenticate/request.h"

void authn_sign_out(struct authn_request *req);
void authn_sign_out_form(struct authn_request *req);
void authn_signed_out(struct authn_request *req);
