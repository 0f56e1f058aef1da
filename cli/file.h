/* file: small files of the command line, whole. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

/* Appends the whole file, also one with NUL, to out; out's maximum counts. ERR_IO, ERR_LIMIT. */
MUST_CHECK enum err cli_file_take(const char *path, struct buf *out, struct diag *d);
/* The whole file as a NUL-terminated text for mem_free. ERR_IO, ERR_LIMIT (over max bytes). */
MUST_CHECK enum err cli_file_read(const char *path, size_t max, char **text_out, struct diag *d);
/* Writes by way of a file beside it and a rename: never half. mode as for open. */
MUST_CHECK enum err cli_file_write(const char *path, struct sv text, unsigned mode, struct diag *d);
bool cli_file_exists(const char *path);
