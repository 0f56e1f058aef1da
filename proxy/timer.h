/* proxy_timer: coarse timers of one worker: a wheel of 512 slots, a tenth of a second each. Setting
 * and clearing cost a list operation. A timer fires at its time or up to two ticks later, never
 * before. One thread. */
#pragma once

#include "common/base.h"
#include "common/list.h"

enum { PROXY_TICK_MS = 100, PROXY_WHEEL_SLOTS = 512 };

struct proxy_timer;
typedef void (*proxy_timer_fn)(struct proxy_timer *timer);

struct proxy_timer {
    struct list node;
    int64_t due_ms; /* monotonic */
    proxy_timer_fn fire;
};

struct proxy_wheel {
    struct list slots[PROXY_WHEEL_SLOTS];
    int64_t tick; /* the last one that was run */
};

void proxy_wheel_init(struct proxy_wheel *wheel, int64_t now_ms);
/* Runs what is due; a timer may set or clear any timer. */
void proxy_wheel_run(struct proxy_wheel *wheel, int64_t now_ms);
void proxy_timer_init(struct proxy_timer *timer, proxy_timer_fn fire);
void proxy_timer_set(struct proxy_wheel *wheel, struct proxy_timer *timer, int64_t due_ms);
void proxy_timer_clear(struct proxy_timer *timer);
