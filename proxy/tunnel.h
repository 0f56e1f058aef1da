/* proxy_tunnel: an exchange becomes bytes both ways: after a 101, or by CONNECT. proxy/forward.h moves
 * them, ends each direction by itself and the whole when its session or its route does. */
#pragma once

#include "common/base.h"
#include "proxy/exchange.h"

/* Whether the answer's head may go to the client: 101 only where it was asked for, by that name, and by
 * somebody who has said all of his request before (RFC 9110 §7.8); and on a stream, where any 2xx says
 * that the WebSocket is open (RFC 8441 §5), none of an upstream that did not switch. */
MUST_CHECK bool proxy_tunnel_is_clear(const struct proxy_exchange *x);
/* Both bodies go on until their senders end. */
void proxy_tunnel_enter(struct proxy_exchange *x);
/* CONNECT, whose upstream is connected: writes the 200 and enters. False: it cannot be sent. */
MUST_CHECK bool proxy_tunnel_open(struct proxy_exchange *x);
