/* listen: listening sockets from the text of a setting, or from a service manager. Errors name address
 * and reason in words. Any thread; blocks while a name is resolved. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

enum { LISTEN_MAX = 64 };

struct listen_set {
    int fd[LISTEN_MAX];
    size_t n;
    bool passed; /* by a service manager, which keeps them open when we end */
};

/* address: "host:port", ":port" or "unix:/path" (mode 0600; a socket that a dead process left is
 * replaced, a live one is "in use"). Non-blocking, close-on-exec. Of several that try at once, also
 * of one user, one succeeds. ERR_IO: d says "ADDRESS is in use …". */
MUST_CHECK enum err listen_open(struct sv address, int *fd_out, struct diag *d);
/* One more socket at the address of fd, a TCP socket of listen_open: the kernel spreads connections
 * over all of them (SO_REUSEPORT). ERR_IO. */
MUST_CHECK enum err listen_join(int fd, int *fd_out, struct diag *d);
/* The sockets of the listener called name: those that were passed for it, else one of listen_open. */
MUST_CHECK enum err listen_named(const char *name, struct sv address, struct listen_set *set_out,
                                 struct diag *d);
void listen_set_close(struct listen_set *set);
/* A connected stream socket to such an address; blocks at most as long as the kernel does. ERR_IO. */
MUST_CHECK enum err listen_connect(struct sv address, int *fd_out, struct diag *d);
