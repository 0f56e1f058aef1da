/* proxy_identity: the headers that tell an upstream who its visitor is, as authorize made them: one
 * block for many answers. Refcounted, owned by one worker. */
#pragma once

#include "authorize.pb-c.h"

#include "common/base.h"
#include "common/sv.h"

/* A header of an identity block. */
struct proxy_identity_header {
    struct sv name;
    struct sv value;
};

/* Refcounted; one worker. */
struct proxy_identity {
    unsigned refs;
    size_t n;
    struct proxy_identity_header *headers;
};

/* A copy with one reference, or NULL: more headers or text than a block may have. */
struct proxy_identity *proxy_identity_of(const Postern__IdentityBlock *block);
/* No value could end its line in an HTTP/1 head. */
bool proxy_identity_is_clean(const struct proxy_identity *id);
void proxy_identity_unref(struct proxy_identity **identity);
