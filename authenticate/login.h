/* authn_login: the way of a login, whichever the provider:
 *
 *   start: signed link --> own session still lives? --yes--> code
 *                               | no                           ^
 *                               v                              |
 *                 ask: form or provider --> done: records written, new session id
 *
 * Whoever comes back with a state that is too old or of another browser begins again, at most
 * AUTHN_ATTEMPTS_MAX times; then a page says why. The databroker failing is 503, never a login. */
#pragma once

#include "authenticate/request.h"

/* GET /.pomerium/sign_in: needs a signed link. */
void authn_login_start(struct authn_request *req);
/* POST /.pomerium/sign_in: the form of idp_provider: local. */
void authn_login_form(struct authn_request *req);

/* Looks for the session of our own cookie; then next(req, err): ERR_OK: req->session lives;
 * ERR_NOT_FOUND: no login; ERR_UNAVAILABLE: the databroker does not answer. */
void authn_session_find(struct authn_request *req,
                        void (*next)(struct authn_request *req, enum err err));
/* Asks for a login with what req->flow says. */
void authn_login_ask(struct authn_request *req);
/* Begins again with the next attempt, or shows why not: cause is the stable code. */
void authn_login_again(struct authn_request *req, const char *cause);
/* identity has proved itself: writes the records, sets the cookie, sends the browser on. */
void authn_login_done(struct authn_request *req, const struct authn_identity *identity);
/* Sends the browser to the app's callback with a code for req->session; a program's after asking. */
void authn_login_code(struct authn_request *req);
/* Appends a code for req->session that host can redeem. */
MUST_CHECK enum err authn_login_seal_code(struct authn_request *req, struct sv host,
                                          struct buf *out);
/* 400: the login leads to an address that is not one of ours. */
void authn_login_redirect_refused(struct authn_request *req);
/* SHA-256 of the browser's cookie on our host, base64url, in the request's arena; a browser without
 * one gets it if make is set, else "" is returned. */
struct sv authn_browser(struct authn_request *req, bool make);
