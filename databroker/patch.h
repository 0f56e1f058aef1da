/* broker_patch: merges named fields of one message into another, both as protobuf bytes. A field is
 * taken from the patch as it stands there (also when it is absent, a list or a map), fields that
 * this version does not know stay as they are. Pure functions; any thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

enum { BROKER_PATCH_PATHS = 64 };

struct broker_patch {
    uint32_t numbers[BROKER_PATCH_PATHS];
    size_t count;
};

/* paths: names of fields of the message behind type_url. ERR_UNSUPPORTED: a type we do not know, or
 * a path into a field. ERR_INVALID: no such field, no path at all. ERR_LIMIT. */
MUST_CHECK enum err broker_patch_init(struct broker_patch *patch, struct sv type_url,
                                      char *const *paths, size_t n, struct diag *d);
/* Appends the merged message. ERR_INVALID: either is no message. */
MUST_CHECK enum err broker_patch_apply(const struct broker_patch *patch, struct sv stored,
                                       struct sv given, struct buf *out);
