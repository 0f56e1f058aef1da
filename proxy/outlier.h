/* proxy_outlier: when an endpoint has answered wrongly too often in a row, and for how long it is then
 * left out. Workers note results (atomic counters of the endpoint); the main thread ejects, and takes
 * back. Pure but for those counters; time and chance come from the caller. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "proxy/endpoint.h"

/* What became of a request, as far as the endpoint is to blame. */
enum proxy_outcome {
    PROXY_OUTCOME_GATEWAY = 0, /* 502, 503, 504; no connection, no answer, none in time */
    PROXY_OUTCOME_5XX,         /* another 500 to 599 */
    PROXY_OUTCOME_GOOD
};

enum proxy_outcome proxy_outcome_of(unsigned status);

/* Which rule calls for an ejection now. */
enum proxy_outlier_rule { PROXY_OUTLIER_NONE = 0, PROXY_OUTLIER_5XX, PROXY_OUTLIER_GATEWAY };

/* Any thread. A rule is reported once for each run of failures that reaches its length. */
enum proxy_outlier_rule proxy_outlier_note(const struct config_outlier *conf,
                                           struct proxy_endpoint *endpoint,
                                           enum proxy_outcome outcome);

struct proxy_ejection {
    bool out;
    uint32_t times; /* ejections one after the other; falls by one with each interval inside */
    int64_t until_ms;
};

/* What an ejection depends on besides the settings. */
struct proxy_outlier_case {
    enum proxy_outlier_rule rule;
    size_t n_out; /* endpoints that are ejected already */
    size_t n_all;
    int64_t now_ms;
    uint32_t enforce; /* chance: evenly spread over the type */
    uint32_t jitter;  /* the same */
};

/* True: it is out now, until until_ms. */
bool proxy_outlier_eject(struct proxy_ejection *ejection, const struct config_outlier *conf,
                         const struct proxy_outlier_case *c);
/* Once an interval. True: it is back in. */
bool proxy_outlier_sweep(struct proxy_ejection *ejection, int64_t now_ms);
