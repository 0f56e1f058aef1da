/* clock: monotonic time for waits and lifetimes, wall time for what is written down or compared
 * with foreign clocks. 64-bit everywhere. Tests shift the wall clock. Any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

int64_t clock_mono_us(void);
int64_t clock_mono_ms(void);
/* clock_mono_ms as of the kernel's last tick, up to 10 ms ago, for a fraction of its price: for
 * deadlines far longer than that. */
int64_t clock_coarse_ms(void);
int64_t clock_wall_us(void); /* since 1970-01-01T00:00:00Z */
int64_t clock_wall_ms(void);
int64_t clock_wall_s(void);
/* Shifts what the wall clock tells by delta_ms from now on; for tests. */
void clock_test_shift(int64_t delta_ms);
/* How far it is shifted: for what tells the time by another machine's clock. */
int64_t clock_test_shifted_us(void);

enum { CLOCK_TEXT_SIZE = 28 };

/* 2026-11-23T10:00:00.123Z with its NUL; returns the text. */
const char *clock_format(int64_t wall_ms, char text[CLOCK_TEXT_SIZE]);
