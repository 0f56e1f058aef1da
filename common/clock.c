#include "common/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t test_shift_ms;

static int64_t now_us(clockid_t id)
{
    struct timespec ts = { 0 };

    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
    return now_us(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_coarse_ms(void)
{
    struct timespec ts = { 0 };

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_test_shifted_us(void)
{
    return __atomic_load_n(&test_shift_ms, __ATOMIC_RELAXED) * 1000;
}

int64_t clock_wall_us(void)
{
    return now_us(CLOCK_REALTIME) + clock_test_shifted_us();
}

int64_t clock_wall_ms(void)
{
    return clock_wall_us() / 1000;
}

int64_t clock_wall_s(void)
{
    return clock_wall_us() / 1000000;
}

void clock_test_shift(int64_t delta_ms)
{
    (void)__atomic_add_fetch(&test_shift_ms, delta_ms, __ATOMIC_RELAXED);
}

const char *clock_format(int64_t wall_ms, char text[CLOCK_TEXT_SIZE])
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm = { 0 };

    if (gmtime_r(&s, &tm) == NULL) {
        tm = (struct tm){ .tm_year = 70, .tm_mday = 1 };
    }
    (void)snprintf(text, CLOCK_TEXT_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
                   (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
                   (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
                   (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100,
                   (unsigned)(wall_ms % 1000) % 1000);
    return text;
}
