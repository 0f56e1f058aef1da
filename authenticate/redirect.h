/* authn_redirect: where a login may lead back to: a URL on exactly the host of a configured route,
 * never our own host. https, and http only where the proxy itself serves plaintext. A program's
 * leads back to where it listens on its own machine. */
#pragma once

#include "authenticate/flow.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/http/url.h"
#include "common/sv.h"

/* ERR_INVALID: not one clear URL; ERR_DENIED: not a host of ours. url points into text. */
MUST_CHECK enum err authn_redirect_check(const struct config *config, struct sv text,
                                         struct http_url *url);
/* The same for a flow, of a browser or of a program. */
MUST_CHECK enum err authn_redirect_flow_check(const struct config *config,
                                              const struct authn_flow *flow, struct http_url *url);
/* Appends host[:port] as the URL shows it: what handles and codes are bound to. */
void authn_redirect_host(struct buf *b, const struct http_url *url);
/* Appends scheme://host[:port]/.pomerium/callback/ of the URL's host. */
void authn_redirect_callback(struct buf *b, const struct http_url *url);
