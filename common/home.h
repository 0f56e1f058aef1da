/* home: the processor that a thread and its partner stay on while they work for one request at a time.
 * The kernel wakes who sleeps on a processor that is idle, so each of two threads that wait for each
 * other wakes the other one up on another processor, which costs more than the work. On one processor
 * nobody has to be woken from afar. Which one: where the work comes in, whose sender is the third of
 * the round. Taken and left at a change, never with a piece of work; what cpusets or somebody else
 * allow stays so, and where it is forbidden nothing happens. Zero: no home; for one thread alone.
 * Threads that are made meanwhile would stay there: make none. */
#pragma once

#include <sched.h>

#include "common/base.h"

/* A place is the number of a processor and 1, so that 0 is none: wherever the kernel likes. */
struct home {
    unsigned place;
    unsigned pieces;  /* since the last look */
    unsigned fit;     /* of them, such that came one at a time */
    unsigned rest;    /* pieces until it may move again */
    unsigned respite; /* what the next rest is made of */
    bool used;        /* since the last home_idle */
    bool led;         /* to where somebody is who rests himself: goes at once */
    /* While there is a place: what the thread was allowed, and what the process's first thread was. */
    cpu_set_t before;
    cpu_set_t first;
};

enum {
    HOME_LOOK = 32, /* pieces between two looks */
    HOME_FIT = 24,  /* of them alone: it is worth while */
    HOME_RESPITE_MIN = 1024,
    HOME_RESPITE_MAX = 65536
};

/* Goes, after a look's worth of pieces, to where the work came from. */
void home_look(struct home *home, unsigned where);
/* Where home_look finds that it should be: pure. */
unsigned home_judge(struct home *home, unsigned where);
void home_leave(struct home *home);
/* From time to time: who had no work since the last call keeps no place. */
void home_idle(struct home *home);

/* With each piece of work: whether it came alone. True: a look is due. */
static inline bool home_note(struct home *home, bool fit)
{
    home->used = true;
    home->fit += fit ? 1 : 0;
    return ++home->pieces == HOME_LOOK;
}
