/* proxy_handles: the session handles that come in cookies, opened. The latest are remembered, so that
 * a visitor's next request costs a keyed hash and no decryption. Only what opened is remembered, and
 * it is found again only by the same text on the same host; whether its session still lives is
 * authorize's word each time. Owned by one worker. */
#pragma once

#include "common/crypto/handle.h"

struct proxy_handles;

struct proxy_handles *proxy_handles_new(const struct keys *keys); /* keys outlive it */
void proxy_handles_free(struct proxy_handles **handles);
/* As handle_open and handle_make. */
MUST_CHECK enum err proxy_handles_open(struct proxy_handles *handles, struct sv text,
                                       struct sv host, struct handle *handle_out);
MUST_CHECK enum err proxy_handles_make(struct proxy_handles *handles, const struct handle *handle,
                                       struct sv host, struct buf *out);
