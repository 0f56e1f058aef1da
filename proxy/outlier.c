#include "proxy/outlier.h"

enum proxy_outcome proxy_outcome_of(unsigned status)
{
    if (status >= 502 && status <= 504) {
        return PROXY_OUTCOME_GATEWAY;
    }
    return status >= 500 && status <= 599 ? PROXY_OUTCOME_5XX : PROXY_OUTCOME_GOOD;
}

/* A run that is written to only when it changes: good answers leave the line shared by all workers. */
/* NOLINTNEXTLINE(readability-non-const-parameter): an atomic write */
static void end_run(uint32_t *run)
{
    if (__atomic_load_n(run, __ATOMIC_RELAXED) != 0) {
        __atomic_store_n(run, 0, __ATOMIC_RELAXED);
    }
}

/* NOLINTNEXTLINE(readability-non-const-parameter): an atomic write */
static bool longer(uint32_t *run, uint32_t limit)
{
    return __atomic_add_fetch(run, 1, __ATOMIC_RELAXED) == limit; /* a limit of 0: never */
}

enum proxy_outlier_rule proxy_outlier_note(const struct config_outlier *conf,
                                           struct proxy_endpoint *endpoint,
                                           enum proxy_outcome outcome)
{
    bool gateway = false;

    if (!conf->on) {
        return PROXY_OUTLIER_NONE;
    }
    if (outcome == PROXY_OUTCOME_GATEWAY) {
        gateway = longer(&endpoint->run_gateway, conf->consecutive_gateway_failure);
    } else {
        end_run(&endpoint->run_gateway);
    }
    if (outcome == PROXY_OUTCOME_GOOD) {
        end_run(&endpoint->run_5xx);
        return PROXY_OUTLIER_NONE;
    }
    if (longer(&endpoint->run_5xx, conf->consecutive_5xx)) {
        end_run(&endpoint->run_5xx); /* the next run counts from its own start */
        return PROXY_OUTLIER_5XX;
    }
    if (gateway) {
        end_run(&endpoint->run_gateway);
        return PROXY_OUTLIER_GATEWAY;
    }
    return PROXY_OUTLIER_NONE;
}

static bool enforced(const struct config_outlier *conf, const struct proxy_outlier_case *c)
{
    uint32_t percent = 0;

    switch (c->rule) {
    case PROXY_OUTLIER_5XX:
        percent = conf->enforcing_consecutive_5xx;
        break;
    case PROXY_OUTLIER_GATEWAY:
        percent = conf->enforcing_consecutive_gateway_failure;
        break;
    case PROXY_OUTLIER_NONE:
        break;
    }
    return c->enforce % 100 < percent;
}

bool proxy_outlier_eject(struct proxy_ejection *ejection, const struct config_outlier *conf,
                         const struct proxy_outlier_case *c)
{
    int64_t longest = MAX(conf->max_ejection_ms, conf->base_ejection_ms);
    int64_t lasts = 0;

    if (ejection->out || c->n_out * 100 >= c->n_all * conf->max_ejection_percent ||
        !enforced(conf, c)) {
        return false;
    }
    if (conf->base_ejection_ms * ejection->times < longest) {
        ejection->times++; /* beyond, it would only take longer to fall again */
    }
    lasts = MIN(conf->base_ejection_ms * ejection->times, longest);
    lasts += conf->max_ejection_jitter_ms * (int64_t)(c->jitter >> 1U) / INT32_MAX;
    ejection->out = true;
    ejection->until_ms = c->now_ms + lasts;
    return true;
}

bool proxy_outlier_sweep(struct proxy_ejection *ejection, int64_t now_ms)
{
    if (!ejection->out) {
        ejection->times -= ejection->times == 0 ? 0 : 1;
        return false;
    }
    if (now_ms < ejection->until_ms) {
        return false;
    }
    ejection->out = false;
    return true;
}
