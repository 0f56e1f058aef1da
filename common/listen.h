/* listen: a listening socket from the text of a setting. Errors name address and reason in words.
 * Any thread; blocks while a name is resolved. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

/* address: "host:port", ":port" or "unix:/path" (mode 0600; a socket that a dead process left is
 * replaced, a live one is "in use"). Non-blocking, close-on-exec; reuse_port: SO_REUSEPORT.
 * ERR_IO: d says "ADDRESS is in use …". */
MUST_CHECK enum err listen_open(struct sv address, bool reuse_port, int *fd_out, struct diag *d);
/* A connected stream socket to such an address; blocks at most as long as the kernel does. ERR_IO. */
MUST_CHECK enum err listen_connect(struct sv address, int *fd_out, struct diag *d);
