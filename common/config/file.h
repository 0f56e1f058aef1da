/* config_file: a small file as a whole. Private to common/config/. Any thread; blocks. */
#pragma once

#include "common/base.h"
#include "common/buf.h"

/* out is initialised here, with max, and the caller's to deinit whatever the result. ERR_NOT_FOUND,
 * ERR_IO (also: not a regular file), ERR_LIMIT; *why_out says it in words then. */
MUST_CHECK enum err config_file_read(const char *path, size_t max, struct buf *out,
                                     const char **why_out);
