/* proxy_ration: what one connection of HTTP/2 may cost in a turn of the loop, so that a burst of it does
 * not keep others waiting, and how much it may talk without a purpose. Cost is counted, not timed: a
 * unit is about a third of a microsecond. What was eaten can only be known afterwards, so the next bite
 * is as large as the last one was cheap. Pure; owned by its connection. Bounds a flood of whatever
 * makes: CVE-2019-9512 (PING), -9513 (PRIORITY), -9515 (SETTINGS), -9518 (empty frames), CVE-2023-44487. */
#pragma once

#include "common/base.h"

enum {
    PROXY_RATION_TURN = 768, /* a few dozen requests, or some hundred small frames */
    PROXY_RATION_LATE = 256, /* after a turn in which that was not enough */
    PROXY_BITE_COST = 128,   /* a bite is meant to cost no more */
    PROXY_BITE_FIRST = 2048,
    PROXY_BITE_MIN = 1024,
    PROXY_BITE_MAX = 16384
};

/* What it costs us. */
enum {
    PROXY_COST_FRAME = 1,
    PROXY_COST_FIELD = 1,
    PROXY_COST_REQUEST = 8,
    PROXY_BODY_BYTES = 512, /* of a body for one unit */
    PROXY_HEAD_BYTES = 64   /* the same of what HPACK has to decode, and of anything else */
};

/* Frames that ask for nothing and bring nothing: so many at once, then so many in a second. */
enum { PROXY_CHATTER_MAX = 1000, PROXY_CHATTER_PER_S = 100 };

struct proxy_ration {
    uint32_t left; /* of this turn; 0: it has cost enough */
    uint32_t bite;
    uint32_t chatter;
    int64_t chatter_at_ms; /* up to when it has been forgiven */
};

static inline void proxy_ration_init(struct proxy_ration *r)
{
    *r = (struct proxy_ration){ .left = PROXY_RATION_TURN, .bite = PROXY_BITE_FIRST };
}

/* A turn begins; a small one where the last was not enough. */
static inline void proxy_ration_serve(struct proxy_ration *r)
{
    r->left = r->left == 0 ? PROXY_RATION_LATE : PROXY_RATION_TURN;
}

static inline void proxy_ration_spend(struct proxy_ration *r, size_t cost)
{
    r->left -= (uint32_t)MIN(cost, (size_t)r->left);
}

/* A bite of n bytes has cost so much. */
static inline void proxy_ration_taste(struct proxy_ration *r, size_t n, uint32_t cost)
{
    uint64_t fits = n * (uint64_t)PROXY_BITE_COST / MAX(cost, 1U);

    fits = MIN(fits, (uint64_t)r->bite * 2);
    r->bite = (uint32_t)MAX(MIN(fits, (uint64_t)PROXY_BITE_MAX), (uint64_t)PROXY_BITE_MIN);
}

/* A frame that brings nothing. False: that is too many of them. */
MUST_CHECK static inline bool proxy_ration_chatter(struct proxy_ration *r, int64_t now_ms)
{
    uint64_t forgiven = 0;

    if (now_ms > r->chatter_at_ms) {
        forgiven = (uint64_t)(now_ms - r->chatter_at_ms) * PROXY_CHATTER_PER_S / 1000;
    }
    if (forgiven != 0) {
        r->chatter -= (uint32_t)MIN(forgiven, (uint64_t)r->chatter);
        r->chatter_at_ms = now_ms;
    }
    return ++r->chatter <= PROXY_CHATTER_MAX;
}

/* A frame of a request or an answer went by: who measures a path while it is used (gRPC does) may. */
static inline void proxy_ration_purpose(struct proxy_ration *r)
{
    r->chatter -= r->chatter != 0 ? 1 : 0;
}
