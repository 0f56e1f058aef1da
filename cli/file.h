/* file: small files of the command line, whole. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

/* The whole file as a NUL-terminated text for mem_free. ERR_IO, ERR_LIMIT (over max bytes). */
MUST_CHECK enum err cli_file_read(const char *path, size_t max, char **text_out, struct diag *d);
/* Writes by way of a file beside it and a rename: never half. mode as for open. */
MUST_CHECK enum err cli_file_write(const char *path, struct sv text, unsigned mode, struct diag *d);
bool cli_file_exists(const char *path);
