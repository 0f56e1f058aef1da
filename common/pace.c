#include "common/pace.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "common/sv.h"

/* Another policy, which somebody set from outside, stays. */
static void set_eager(struct pace *pace, bool eager)
{
    const struct sched_param none = { 0 };
    int from = eager ? SCHED_BATCH : SCHED_OTHER;

    pace->calm = 0;
    if (sched_getscheduler(0) == from &&
        sched_setscheduler(0, eager ? SCHED_OTHER : SCHED_BATCH, &none) == 0) {
        pace->eager = eager;
    }
}

void pace_crowd(struct pace *pace)
{
    set_eager(pace, false);
}

void pace_judge(struct pace *pace, uint64_t wait_ns, uint64_t slices)
{
    uint64_t waited = wait_ns - pace->wait_ns;
    uint64_t times = slices - pace->slices;

    pace->wait_ns = wait_ns;
    pace->slices = slices;
    if (pace->calm <= PACE_LOOK || times == 0) {
        return; /* what stood there before was of a crowd, or of the other policy */
    }
    if (waited / times < PACE_WAIT_NS) {
        pace->respite = 0;
        return;
    }
    pace->respite =
        MIN(MAX(pace->respite * 2, (unsigned)PACE_RESPITE_MIN), (unsigned)PACE_RESPITE_MAX);
    set_eager(pace, true);
}

/* "run wait slices", in nanoseconds: Linux' Documentation/scheduler/sched-stats. Kept open: to find the
 * file costs more than to read it. */
static bool read_waits(struct pace *pace, uint64_t *wait_ns_out, uint64_t *slices_out)
{
    char text[96];
    ssize_t n = -1;

    if (pace->waits_file == 0) {
        pace->waits_file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC) + 1;
    }
    n = pread(pace->waits_file - 1, text, sizeof(text), 0);
    struct sv rest = sv_of(text, n < 0 ? 0 : (size_t)n);

    (void)sv_cut(&rest, ' ');
    return sv_u64(sv_cut(&rest, ' '), UINT64_MAX, wait_ns_out) == ERR_OK &&
           sv_u64(sv_cut(&rest, '\n'), UINT64_MAX, slices_out) == ERR_OK;
}

void pace_deinit(struct pace *pace)
{
    if (pace->waits_file != 0) {
        (void)close(pace->waits_file - 1);
        pace->waits_file = 0;
    }
}

void pace_look(struct pace *pace)
{
    uint64_t wait_ns = 0;
    uint64_t slices = 0;

    if (pace->eager) {
        if (pace->calm >= pace->respite) {
            set_eager(pace, false);
        }
    } else if (read_waits(pace, &wait_ns, &slices)) { /* a kernel without it: as ever */
        pace_judge(pace, wait_ns, slices);
    }
}
