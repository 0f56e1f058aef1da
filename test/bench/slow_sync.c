/* slow_sync: preloaded into a program (LD_PRELOAD), it makes each fsync and fdatasync a millisecond longer:
 * an ordinary disk, where this machine's is faster than most. */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LONGER_US = 1000 };

static int slowly(long call, int fd)
{
    const struct timespec longer = { .tv_nsec = LONGER_US * 1000L };
    int result = (int)syscall(call, fd);

    (void)nanosleep(&longer, NULL);
    return result;
}

/* libc's headers have other names for it. NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
int fsync(int fd)
{
    return slowly(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return slowly(SYS_fdatasync, fd);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
