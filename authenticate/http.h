/* authn_http: the HTTP server behind the proxy: evhttp on the loop, on a unix socket or TCP. */
#pragma once

#include "authenticate/app.h"
#include "common/diag.h"

/* ERR_IO: the address cannot be had; d says why. */
MUST_CHECK enum err authn_http_new(struct authn *app, struct authn_http **http_out, struct diag *d);
/* Takes no more requests; idle is called once when the open ones are answered. */
void authn_http_stop(struct authn_http *http, void (*idle)(void *arg), void *arg);
/* Drops what is still open. */
void authn_http_free(struct authn_http **http);
