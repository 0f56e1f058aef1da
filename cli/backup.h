/* backup: a copy of the databroker's file while it runs, and back. Files are made beside their target and
 * renamed when they are whole and on disk: there is never half of one. */
#pragma once

#include "common/base.h"
#include "common/diag.h"

/* The state of store at one moment to file, mode 0600; what was there is replaced. *records_out: how many.
 * ERR_NOT_FOUND: there is no store. ERR_INVALID: it is none of ours, or damaged. ERR_IO. */
MUST_CHECK enum err cli_backup(const char *store, const char *file, int64_t *records_out,
                               struct diag *d);

/* Checks file and puts it in the place of store, which moves to STORE.before-restore. Followers read a
 * snapshot: the server version is another one. ended: without the sessions; some of them may have been
 * revoked since. ERR_EXISTS: a databroker has it open. ERR_INVALID, ERR_IO. */
MUST_CHECK enum err cli_restore(const char *store, const char *file, bool ended,
                                int64_t *records_out, struct diag *d);
