#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

const char *err_name(enum err err)
{
    static const char *const names[] = {
        [ERR_OK] = "ok",
        [ERR_INVALID] = "invalid",
        [ERR_LIMIT] = "limit",
        [ERR_NOT_FOUND] = "not-found",
        [ERR_EXISTS] = "exists",
        [ERR_DENIED] = "denied",
        [ERR_EXPIRED] = "expired",
        [ERR_TIMEOUT] = "timeout",
        [ERR_UNAVAILABLE] = "unavailable",
        [ERR_IO] = "io",
        [ERR_CRYPTO] = "crypto",
        [ERR_UNSUPPORTED] = "unsupported",
        [ERR_CANCELLED] = "cancelled",
        [ERR_AGAIN] = "again",
        [ERR_ABORTED] = "aborted",
        [ERR_INTERNAL] = "internal",
    };

    if ((size_t)err >= ARRAY_LEN(names)) {
        return "unknown";
    }
    return names[err];
}

void check_failed(const char *cond, const char *file, int line)
{
    (void)fprintf(stderr,
                  "{\"level\":\"error\",\"event\":\"bug\",\"check\":\"%s\",\"at\":\"%s:%d\"}\n",
                  cond, file, line);
    abort();
}
