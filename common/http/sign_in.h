/* http/sign_in: the address at which a login for an application's host begins, on that host itself:
 * https://host/.pomerium/sign_in?pomerium_redirect_uri=<where the person comes back to>. The proxy goes on
 * from there (docs/login.md). Pure; any thread. */
#pragma once

#include "common/buf.h"
#include "common/http/canon.h"

#define HTTP_SIGN_IN_PATH "/.pomerium/sign_in"
#define HTTP_SIGN_IN_BACK "pomerium_redirect_uri"
/* Beside it, with any value: the session that there is, is too old; the person logs in again. */
#define HTTP_SIGN_IN_FRESH "pomerium_fresh"

/* Appends where req was going: https://host/path?query. Browsers never see us without TLS, whatever
 * stands before us. */
void http_sign_in_add_back(struct buf *out, const struct http_request *req);
/* Appends where to log in for req. */
void http_sign_in_add(struct buf *out, const struct http_request *req);
/* Whether url is https://authority or an address below: a way back that leads nowhere else. */
bool http_sign_in_is_back(struct sv url, struct sv authority);
