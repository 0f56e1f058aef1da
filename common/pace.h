/* pace: when a thread stops being batch work. Daemons run under SCHED_BATCH (common/service.c): who is
 * woken waits until what runs is done, so that work gathers. But where few requests are under way there
 * is nothing to gather, and if something else keeps the processors busy, each wait is a whole slice of
 * its time, milliseconds. A thread that is made to wait like that, and is in no crowd, runs under the
 * default policy, and tries from time to time whether it is still needed. Zero: it never waited; for one
 * thread alone, until pace_deinit. */
#pragma once

#include "common/base.h"

struct pace {
    unsigned calm;    /* pieces of work since the last crowd */
    unsigned crowded; /* since the last one without */
    unsigned respite; /* how many pieces the default policy is kept for */
    bool eager;       /* under the default policy, by our doing */
    uint64_t wait_ns; /* of the thread in queues for a processor, when last looked at */
    uint64_t slices;
    int waits_file; /* the descriptor that tells, and 1; 0: none yet */
};

enum {
    PACE_LOOK = 32, /* pieces of work between two looks */
    PACE_WAIT_NS = 300000,
    PACE_RESPITE_MIN = 1024,
    PACE_RESPITE_MAX = 65536
};

/* Any thread, when the pace's own has ended. */
void pace_deinit(struct pace *pace);
void pace_crowd(struct pace *pace);
void pace_look(struct pace *pace);
/* What pace_look decides by: how long the thread waited until now, in how many slices. */
void pace_judge(struct pace *pace, uint64_t wait_ns, uint64_t slices);

/* With each piece of work: whether it came in a crowd. */
static inline void pace_note(struct pace *pace, bool crowd)
{
    if (crowd) {
        pace->calm = 0;
        if (pace->eager && ++pace->crowded == PACE_LOOK) {
            pace_crowd(pace);
        }
        return;
    }
    pace->crowded = 0;
    if (++pace->calm % PACE_LOOK == 0) {
        pace_look(pace);
    }
}
