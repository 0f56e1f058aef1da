#include "common/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/listen_passed.h"

enum { BACKLOG = 1024, TEXT_MAX = 300 };

enum { LOCK_TRIES = 100, LOCK_PAUSE_MS = 10 }; /* it is held for an instant */

static enum err say(struct diag *d, struct sv address, const char *verb)
{
    const char *hint = "";

    if (errno == EADDRINUSE) {
        diag_set(d, "%.*s is in use by another program", SV_ARG(address));
        return ERR_IO;
    }
    if (errno == EACCES) {
        hint =
            "; ports below 1024 need a right (CAP_NET_BIND_SERVICE), files a folder one may write to";
    }
    diag_set(d, "cannot %s %.*s: %s%s", verb, SV_ARG(address), strerrordesc_np(errno), hint);
    return ERR_IO;
}

static enum err close_with(int fd, enum err err)
{
    (void)close(fd);
    return err;
}

/* --- unix ----------------------------------------------------------------------------------------- */

static enum err unix_name(struct sv address, struct sockaddr_un *name, struct diag *d)
{
    struct sv path = sv_from_at(address, 5);

    if (path.n == 0 || path.n >= sizeof(name->sun_path)) {
        diag_set(d, "%.*s: the name of a unix socket may have %zu bytes", SV_ARG(address),
                 sizeof(name->sun_path) - 1);
        return ERR_IO;
    }
    name->sun_family = AF_UNIX;
    memcpy(name->sun_path, path.p, path.n);
    return ERR_OK;
}

/* Nobody listens there: it may be removed. */
static bool is_dead(const struct sockaddr_un *name)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool dead = false;

    if (fd < 0) {
        return false;
    }
    dead = connect(fd, (const struct sockaddr *)name, sizeof(*name)) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    errno = EADDRINUSE; /* as bind found it */
    return dead;
}

static enum err open_locked(struct sv address, const struct sockaddr_un *name, int *fd_out,
                            struct diag *d)
{
    const struct sockaddr *at = (const struct sockaddr *)name;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return say(d, address, "open a socket for");
    }
    (void)fchmod(fd, 0600); /* sets the mode that bind gives the name */
    if (bind(fd, at, sizeof(*name)) != 0) {
        if (errno != EADDRINUSE || !is_dead(name) || unlink(name->sun_path) != 0 ||
            bind(fd, at, sizeof(*name)) != 0) {
            return close_with(fd, say(d, address, "listen on"));
        }
    }
    if (chmod(name->sun_path, 0600) != 0 || listen(fd, BACKLOG) != 0) {
        return close_with(fd, say(d, address, "listen on"));
    }
    *fd_out = fd;
    return ERR_OK;
}

/* Who finds a dead socket and removes it must not remove the one by which another has just replaced
 * it: one at a time in a folder. The lock is on the folder itself, so no file is left behind. */
static enum err lock_folder(const struct sockaddr_un *name, int *lock_out, struct diag *d)
{
    static const struct timespec pause = { .tv_nsec = LOCK_PAUSE_MS * 1000000L };
    struct sv path = sv_from(name->sun_path);
    size_t slash = sv_rfind(path, '/');
    char folder[sizeof(name->sun_path) + 1] = ".";
    int lock = -1;
    int i = 0;

    if (slash != SIZE_MAX) {
        memcpy(folder, path.p, slash + 1);
        folder[slash + 1] = '\0';
    }
    lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0) {
        return say(d, path, "open the folder of");
    }
    for (i = 0; i < LOCK_TRIES; i++) {
        if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
            *lock_out = lock;
            return ERR_OK;
        }
        (void)nanosleep(&pause, NULL);
    }
    diag_set(d, "the folder of %s stays locked by another program", name->sun_path);
    return close_with(lock, ERR_IO);
}

static enum err open_unix(struct sv address, int *fd_out, struct diag *d)
{
    struct sockaddr_un name = { 0 };
    int lock = -1;
    enum err err = unix_name(address, &name, d);

    err = err != ERR_OK ? err : lock_folder(&name, &lock, d);
    if (err == ERR_OK) {
        err = open_locked(address, &name, fd_out, d);
        (void)close(lock);
    }
    return err;
}

/* --- internet ------------------------------------------------------------------------------------- */

static enum err resolve(struct sv address, bool passive, struct addrinfo **list_out, struct diag *d)
{
    char text[TEXT_MAX] = { 0 };
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) };
    size_t colon = sv_rfind(address, ':');
    char *host = text;
    int code = 0;

    if (colon == SIZE_MAX || address.n >= sizeof(text)) {
        diag_set(d, "%.*s: expected host:port", SV_ARG(sv_head(address, MIN(address.n, 100))));
        return ERR_IO;
    }
    memcpy(text, address.p, address.n);
    text[colon] = '\0';
    if (host[0] == '[' && colon > 1) {
        host++;
        text[colon - 1] = '\0';
    }
    code = getaddrinfo(host[0] == '\0' ? NULL : host, text + colon + 1, &hints, list_out);
    if (code != 0) {
        diag_set(d, "%.*s: %s", SV_ARG(address), gai_strerror(code));
        return ERR_IO;
    }
    return ERR_OK;
}

/* ":443" means both families: the IPv6 wildcard, which takes IPv4 too, comes first where it can. */
static const struct addrinfo *pick(const struct addrinfo *list, bool any)
{
    for (const struct addrinfo *a = list; any && a != NULL; a = a->ai_next) {
        if (a->ai_family == AF_INET6) {
            int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

            if (fd >= 0) {
                (void)close(fd);
                return a;
            }
        }
    }
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        if (a->ai_family == AF_INET) {
            return a;
        }
    }
    return list;
}

static enum err open_tcp(struct sv address, int *fd_out, struct diag *d)
{
    struct addrinfo *list = NULL;
    const struct addrinfo *a = NULL;
    enum err err = resolve(address, true, &list, d);
    const int on = 1;
    const int off = 0;
    int fd = -1;

    if (err != ERR_OK) {
        return err;
    }
    a = pick(list, sv_starts(address, SV(":")));
    fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        freeaddrinfo(list);
        return say(d, address, "open a socket for");
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        err = say(d, address, "listen on");
    }
    freeaddrinfo(list);
    if (err != ERR_OK) {
        return close_with(fd, err);
    }
    *fd_out = fd;
    return ERR_OK;
}

/* --- both ----------------------------------------------------------------------------------------- */

enum err listen_open(struct sv address, int *fd_out, struct diag *d)
{
    if (sv_starts(address, SV("unix:"))) {
        return open_unix(address, fd_out, d);
    }
    return open_tcp(address, fd_out, d);
}

enum err listen_join(int fd, int *fd_out, struct diag *d)
{
    struct sockaddr_storage name = { 0 };
    socklen_t n = sizeof(name);
    const int on = 1;
    const int off = 0;
    int more = -1;

    /* Only now: who binds without it is refused while we listen, so nobody else came in before. */
    if (getsockname(fd, (struct sockaddr *)&name, &n) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
        return say(d, SV("the same address"), "listen again on");
    }
    more = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (more < 0) {
        return say(d, SV("the same address"), "open a socket for");
    }
    if (name.ss_family == AF_INET6) {
        (void)setsockopt(more, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    (void)setsockopt(more, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (setsockopt(more, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        bind(more, (const struct sockaddr *)&name, n) != 0 || listen(more, BACKLOG) != 0) {
        return close_with(more, say(d, SV("the same address"), "listen again on"));
    }
    *fd_out = more;
    return ERR_OK;
}

enum err listen_named(const char *name, struct sv address, struct listen_set *set_out,
                      struct diag *d)
{
    enum err err = ERR_OK;

    *set_out = (struct listen_set){ .n = 0 };
    set_out->n = listen_passed(name, set_out->fd);
    set_out->passed = set_out->n != 0;
    if (!set_out->passed) {
        err = listen_open(address, &set_out->fd[0], d);
        set_out->n = err == ERR_OK ? 1 : 0;
    }
    return err;
}

void listen_set_close(struct listen_set *set)
{
    while (set->n > 0) {
        set->n--;
        (void)close(set->fd[set->n]);
    }
}

enum err listen_connect(struct sv address, int *fd_out, struct diag *d)
{
    struct sockaddr_un name = { 0 };
    struct addrinfo *list = NULL;
    enum err err = ERR_OK;
    int fd = -1;
    int rc = -1;

    if (sv_starts(address, SV("unix:"))) {
        err = unix_name(address, &name, d);
        fd = err != ERR_OK ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rc = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)&name, sizeof(name));
    } else {
        err = resolve(address, false, &list, d);
        fd = err != ERR_OK ? -1 : socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rc = fd < 0 ? -1 : connect(fd, list->ai_addr, list->ai_addrlen);
    }
    if (err == ERR_OK && rc != 0) {
        err = say(d, address, "connect to");
    }
    if (list != NULL) {
        freeaddrinfo(list);
    }
    if (err != ERR_OK) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return err;
    }
    *fd_out = fd;
    return ERR_OK;
}
