/* proxy_access: one JSON line for each request, with the request id that authorize's audit line has,
 * too. Lines gather in the worker while it has other requests open, for 100 ms or 64 KiB at most.
 * `access_log: false` turns them off. No query, no header but the user agent: nothing in it is a secret. */
#pragma once

#include "proxy/exchange.h"

void proxy_access_line(struct proxy_exchange *x);
void proxy_access_flush(struct proxy_worker *worker);
