/* wander: a test that lets its thread be bound to a processor runs on a thread of its own, which may stay where
 * the test leaves it. Skipped where there is one processor. */
#pragma once

#include <pthread.h>
#include <sched.h>

#include "test/support/cmocka.h"

/* place: 1 + the lowest processor that is allowed; before: all of them. */
typedef void (*wander_fn)(unsigned place, const cpu_set_t *before);

struct wander {
    wander_fn test;
    bool skipped;
};

static inline void *wander_on(void *arg)
{
    struct wander *w = arg;
    cpu_set_t before;
    unsigned cpu = 0;

    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    w->skipped = CPU_COUNT(&before) < 2;
    while (!CPU_ISSET(cpu, &before)) {
        cpu++;
    }
    if (!w->skipped) {
        w->test(cpu + 1, &before);
    }
    return NULL;
}

static inline void wander(wander_fn test)
{
    struct wander w = { .test = test };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, wander_on, &w), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (w.skipped) {
        skip();
    }
}
