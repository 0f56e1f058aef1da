/* proxy_advice: what somebody should see to (config_advise), said in the log at the start, at each
 * reload and once a day: certificates end while nothing is reloaded. Main thread. */
#pragma once

#include "common/config/config.h"
#include "common/loop.h"

struct proxy_advice;

struct proxy_advice *proxy_advice_new(struct loop *loop);
void proxy_advice_free(struct proxy_advice **advice);
/* Keeps a reference of config. */
void proxy_advice_set(struct proxy_advice *advice, const struct config *config);
