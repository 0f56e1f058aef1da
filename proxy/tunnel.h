/* proxy_tunnel: an exchange becomes bytes both ways: after a 101, or by CONNECT. proxy/forward.h moves
 * them, ends each direction by itself and the whole when its session or its route does. */
#pragma once

#include "common/base.h"
#include "proxy/exchange.h"

/* Both bodies go on until their senders end. */
void proxy_tunnel_enter(struct proxy_exchange *x);
/* CONNECT, whose upstream is connected: writes the 200 and enters. False: it cannot be sent. */
MUST_CHECK bool proxy_tunnel_open(struct proxy_exchange *x);
