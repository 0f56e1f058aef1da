#include "proxy/health.h"

static enum proxy_health_state wanted(const struct proxy_health *health,
                                      const struct config_health_check *conf,
                                      enum proxy_health_result result)
{
    bool passed = result == PROXY_HEALTH_PASSED;

    if (health->state == PROXY_HEALTH_UNKNOWN || result == PROXY_HEALTH_REFUSED) {
        return passed ? PROXY_HEALTH_FIT : PROXY_HEALTH_UNFIT;
    }
    if (passed) {
        return health->run >= conf->healthy_threshold ? PROXY_HEALTH_FIT : health->state;
    }
    return health->run >= conf->unhealthy_threshold ? PROXY_HEALTH_UNFIT : health->state;
}

bool proxy_health_step(struct proxy_health *health, const struct config_health_check *conf,
                       enum proxy_health_result result)
{
    enum proxy_health_state before = health->state;
    bool agrees = (result == PROXY_HEALTH_PASSED) == (before == PROXY_HEALTH_FIT);

    health->run = agrees ? 0 : health->run + 1;
    health->state = wanted(health, conf, result);
    if (health->state != before) {
        health->run = 0;
    }
    return health->state != before;
}

static int64_t part(int64_t ms, uint32_t chance)
{
    return ms * (int64_t)(chance >> 1U) / INT32_MAX;
}

int64_t proxy_health_wait_ms(const struct config_health_check *conf, bool first, uint32_t chance)
{
    int64_t jitter =
        conf->interval_jitter_ms + conf->interval_ms * conf->interval_jitter_percent / 100;

    return first ? part(conf->initial_jitter_ms, chance) : conf->interval_ms + part(jitter, chance);
}

bool proxy_health_expects(const struct config_health_check *conf, long status)
{
    size_t i = 0;

    for (i = 0; i < conf->n_statuses; i++) {
        if (status >= conf->statuses[i].first && status <= conf->statuses[i].last) {
            return true;
        }
    }
    return conf->n_statuses == 0 && status == 200;
}
