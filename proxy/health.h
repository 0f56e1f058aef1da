/* proxy_health: what one active health check knows about one endpoint, and when it asks again. Pure:
 * results, time and chance come from the caller. Main thread.
 *
 *   UNKNOWN ──first passed──▶ FIT ──threshold failures, or one bad answer──▶ UNFIT
 *      └──first failed──▶ UNFIT ──threshold passed──▶ FIT
 */
#pragma once

#include "common/base.h"
#include "common/config/config.h"

enum proxy_health_state { PROXY_HEALTH_UNKNOWN = 0, PROXY_HEALTH_UNFIT, PROXY_HEALTH_FIT };

enum proxy_health_result {
    PROXY_HEALTH_FAILED = 0, /* no connection, no answer, none in time */
    PROXY_HEALTH_REFUSED,    /* an answer that says no: an unexpected status */
    PROXY_HEALTH_PASSED
};

struct proxy_health {
    enum proxy_health_state state;
    unsigned run; /* results in a row that speak against state */
};

/* True: state changed. */
bool proxy_health_step(struct proxy_health *health, const struct config_health_check *conf,
                       enum proxy_health_result result);
/* Until the next check; first: until the very first. chance: evenly spread over the type. */
int64_t proxy_health_wait_ms(const struct config_health_check *conf, bool first, uint32_t chance);
bool proxy_health_expects(const struct config_health_check *conf, long status);
