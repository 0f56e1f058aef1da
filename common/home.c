#include "common/home.h"

#include <unistd.h>

unsigned home_judge(struct home *home, unsigned where)
{
    unsigned fit = home->fit;

    home->rest -= MIN(home->rest, home->pieces);
    home->pieces = 0;
    home->fit = 0;
    if (where == 0 || fit < HOME_FIT) {
        return 0;
    }
    if (where == home->place) {
        home->respite = home->rest == 0 ? 0 : home->respite; /* it was worth while */
        return where;
    }
    if (home->led) {
        return where;
    }
    if (home->rest > 0) {
        return home->place;
    }
    home->respite =
        MIN(MAX(home->respite * 2, (unsigned)HOME_RESPITE_MIN), (unsigned)HOME_RESPITE_MAX);
    home->rest = home->respite;
    return where;
}

/* Still as we left it; else it is somebody's who wants it so. */
static bool is_ours(const struct home *home)
{
    cpu_set_t now;

    return sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_COUNT(&now) == 1 &&
           CPU_ISSET(home->place - 1, &now);
}

/* As it was; but who binds the whole process meanwhile, and may do so to this very place, is seen at its
 * first thread, which has no home. */
static void give_back(const struct home *home)
{
    cpu_set_t set = home->before;
    cpu_set_t first;

    if (sched_getaffinity(getpid(), sizeof(first), &first) == 0 &&
        !CPU_EQUAL(&first, &home->first)) {
        CPU_AND(&set, &set, &first);
    }
    if (CPU_COUNT(&set) != 0) {
        (void)sched_setaffinity(0, sizeof(set), &set);
    }
}

void home_leave(struct home *home)
{
    if (home->place != 0 && is_ours(home)) {
        give_back(home);
    }
    home->place = 0;
}

static bool take(struct home *home, unsigned place)
{
    cpu_set_t one;

    if (sched_getaffinity(0, sizeof(home->before), &home->before) != 0 ||
        sched_getaffinity(getpid(), sizeof(home->first), &home->first) != 0 ||
        CPU_COUNT(&home->before) < 2 || place > CPU_SETSIZE ||
        !CPU_ISSET(place - 1, &home->before)) {
        return false;
    }
    CPU_ZERO(&one);
    CPU_SET(place - 1, &one);
    return sched_setaffinity(0, sizeof(one), &one) == 0;
}

void home_look(struct home *home, unsigned where)
{
    unsigned place = home_judge(home, where);

    if (place == home->place) {
        return;
    }
    home_leave(home);
    if (place != 0) {
        home->place = take(home, place) ? place : 0;
    }
}

void home_idle(struct home *home)
{
    if (!home->used) {
        home_leave(home);
    }
    home->used = false;
}
