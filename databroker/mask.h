/* broker_mask: merges the fields that a mask names from one message into another, both as protobuf
 * bytes. A field is taken as it stands in the second, also when it is absent, a list or a map there; a
 * path into a message (oauth_token.access_token) takes that part and leaves its siblings. Fields that
 * this version does not know stay as they are. Pure functions; any thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

enum { BROKER_MASK_PATHS = 64, BROKER_MASK_DEPTH = 8, BROKER_MASK_NODES = 256 };

struct broker_mask_node {
    const ProtobufCFieldDescriptor *field;
    unsigned short child; /* the first of the parts that are taken; 0: all of the field is */
    unsigned short next;  /* 0: none */
};

/* A tree of fields; nodes[0] is the message itself. */
struct broker_mask {
    const ProtobufCMessageDescriptor *type;
    struct broker_mask_node nodes[BROKER_MASK_NODES];
    size_t count;
};

/* paths: names of fields of the message behind type_url. ERR_UNSUPPORTED: a type whose fields are not
 * known here. ERR_INVALID: no such field, a part of what has none (a list, a map), no path at all.
 * ERR_LIMIT: too many or too deep. */
MUST_CHECK enum err broker_mask_init(struct broker_mask *mask, struct sv type_url,
                                     char *const *paths, size_t n, struct diag *d);
/* Appends the merged message. ERR_INVALID: either is no such message. */
MUST_CHECK enum err broker_mask_apply(const struct broker_mask *mask, struct sv stored,
                                      struct sv given, struct buf *out);
