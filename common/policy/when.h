/* policy_when: date, day_of_week and time_of_day. Compiled into the policy's arena; evaluation is
 * pure. Days and dates are UTC; times of day name their zone. Internal to common/policy. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/policy/scan.h"
#include "common/policy/zone.h"

/* A window with either end open; both ends are outside. */
struct policy_when {
    bool has_after;
    bool has_before;
    int64_t after;  /* date: ms since the epoch; time_of_day: us since midnight */
    int64_t before; /* likewise */
    const struct policy_zone *zone;
    uint8_t days; /* day_of_week: bit 0 = Sunday */
};

MUST_CHECK enum err policy_when_date_compile(struct policy_scan *scan, const json_t *data,
                                             struct policy_when *when_out);
MUST_CHECK enum err policy_when_days_compile(struct policy_scan *scan, const json_t *data,
                                             struct policy_when *when_out);
MUST_CHECK enum err policy_when_time_compile(struct policy_scan *scan, const json_t *data,
                                             struct policy_when *when_out);
bool policy_when_date(const struct policy_when *when, int64_t wall_ms);
bool policy_when_days(const struct policy_when *when, int64_t wall_ms);
/* after > before is a window over midnight. */
bool policy_when_time(const struct policy_when *when, int64_t wall_ms);
