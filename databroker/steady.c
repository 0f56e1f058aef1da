#include "databroker/steady.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"

static void hold(struct broker_steady *steady, int64_t jump_us)
{
    steady->held_until_ms = clock_mono_ms() + steady->hold_ms;
    log_warn("databroker.clock-jumped", KV_I64("by_ms", jump_us / 1000),
             KV_I64("nothing_expires_for_ms", steady->hold_ms));
}

void broker_steady_init(struct broker_steady *steady, int64_t now_us, int64_t last_us,
                        int64_t hold_ms)
{
    *steady = (struct broker_steady){ .hold_ms = hold_ms, .offset_us = now_us - clock_mono_us() };
    if (last_us != 0 && (now_us < last_us - BROKER_JUMP_MS * INT64_C(1000) ||
                         now_us > last_us + BROKER_AWAY_MS * INT64_C(1000))) {
        hold(steady, now_us - last_us);
    }
}

static void look(struct broker_steady *steady, int64_t now_us)
{
    int64_t offset = now_us - clock_mono_us();
    int64_t jump = offset - steady->offset_us;

    steady->offset_us = offset; /* a slow drift is no jump */
    if (llabs(jump) > BROKER_JUMP_MS * INT64_C(1000)) {
        steady->jumped_us += jump;
        hold(steady, jump);
    }
}

bool broker_steady_now(struct broker_steady *steady, int64_t now_us)
{
    look(steady, now_us);
    return clock_mono_ms() >= steady->held_until_ms;
}

int64_t broker_steady_us(struct broker_steady *steady, int64_t now_us)
{
    look(steady, now_us);
    return now_us - steady->jumped_us;
}
