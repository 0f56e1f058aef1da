#include "common/listen_passed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/listen.h"
#include "common/sv.h"

enum { FIRST_FD = 3 };

static struct {
    const char *name; /* NULL: somebody took it */
    int fd;
} all[LISTEN_MAX];

static size_t n_all;

static struct sv env(const char *name)
{
    return sv_from(getenv(name)); /* NOLINT(concurrency-mt-unsafe): there is one thread yet */
}

static void env_forget(void)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe): likewise */
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    /* NOLINTEND(concurrency-mt-unsafe) */
}

/* A socket that its unit gave no name has the unit's: it is for the first listener. */
static const char *find(const char *const *names, struct sv name)
{
    size_t i = 0;

    for (i = 0; names[i] != NULL; i++) {
        if (sv_eq(name, sv_from(names[i]))) {
            return names[i];
        }
    }
    return name.n == 0 || sv_eq(name, SV("unknown")) || sv_ends(name, SV(".socket")) ? names[0]
                                                                                     : NULL;
}

static bool is_option(int fd, int option, int value)
{
    int has = -1;
    socklen_t n = sizeof(has);

    return getsockopt(fd, SOL_SOCKET, option, &has, &n) == 0 && has == value;
}

static enum err take(int fd, struct sv name, const char *const *names, struct diag *d)
{
    const char *known = find(names, name);

    if (known == NULL) {
        diag_set(d,
                 "the passed socket \"%.*s\" is for no listener of this program: the first one is "
                 "called \"%s\" (FileDescriptorName=)",
                 SV_ARG(sv_head(name, MIN(name.n, (size_t)64))), names[0]);
        return ERR_INVALID;
    }
    if (!is_option(fd, SO_ACCEPTCONN, 1) || !is_option(fd, SO_TYPE, SOCK_STREAM) ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        diag_set(d,
                 "the passed descriptor %d (%s) is no listening stream socket: use ListenStream= "
                 "with Accept=no",
                 fd, known);
        return ERR_INVALID;
    }
    all[n_all].name = known;
    all[n_all].fd = fd;
    n_all++;
    return ERR_OK;
}

enum err listen_passed_init(const char *const *names, struct diag *d)
{
    struct sv rest = env("LISTEN_FDNAMES");
    enum err err = ERR_OK;
    uint64_t pid = 0;
    uint64_t n = 0;
    int i = 0;

    n_all = 0;
    if (sv_u64(env("LISTEN_PID"), INT32_MAX, &pid) != ERR_OK || pid != (uint64_t)getpid() ||
        sv_u64(env("LISTEN_FDS"), INT32_MAX, &n) != ERR_OK) {
        return ERR_OK; /* none, or for another process */
    }
    if (n > LISTEN_MAX) {
        diag_set(d, "%llu sockets were passed; %d are taken", (unsigned long long)n, LISTEN_MAX);
        return ERR_INVALID;
    }
    for (i = 0; i < (int)n && err == ERR_OK; i++) {
        struct sv name = rest.p == NULL ? rest : sv_cut(&rest, ':');

        err = take(FIRST_FD + i, name, names, d);
    }
    env_forget();
    return err;
}

size_t listen_passed(const char *name, int *fds)
{
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < n_all; i++) {
        if (all[i].name != NULL && sv_eq(sv_from(all[i].name), sv_from(name))) {
            fds[n++] = all[i].fd;
            all[i].name = NULL;
        }
    }
    return n;
}
