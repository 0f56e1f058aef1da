/* listen_passed: listening sockets that a service manager passed (socket activation): LISTEN_FDS of
 * them from descriptor 3 on, for the process LISTEN_PID, called LISTEN_FDNAMES. They outlive the
 * process, so that a restart refuses nobody. Used while a daemon starts, by its one thread.
 * Source: sd_listen_fds(3) */
#pragma once

#include "common/base.h"
#include "common/diag.h"

/* Takes them over. names: of this daemon's listeners, NULL at the end; the first is the one of
 * sockets without a name. ERR_INVALID: a name that is none of them, or what is no listening stream
 * socket; d says which. */
MUST_CHECK enum err listen_passed_init(const char *const *names, struct diag *d);
/* Writes those called name to fds (LISTEN_MAX of them) and returns how many; the caller's from now
 * on. */
size_t listen_passed(const char *name, int *fds);
