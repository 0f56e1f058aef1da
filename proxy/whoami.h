/* proxy_whoami: the page /.pomerium/whoami: who somebody is to us, and how the address was found that
 * policies and logs get to see, step by step. For whoever is logged in; it tells what came with the
 * request and what we made of it, and no setting. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/http/head.h"
#include "common/sv.h"
#include "proxy/peer.h"

enum { PROXY_WHOAMI_MAX = 65536, PROXY_WHOAMI_STEPS_MAX = PROXY_HOPS_MAX + 2 };

struct proxy_whoami {
    const struct proxy_peer *peer;
    const struct config *config;
    const struct http_head *head;
    const struct proxy_visitor *visitor; /* not unclear */
    struct sv user;
    struct sv email; /* "" unknown */
    struct sv request_id;
};

bool proxy_whoami_path(struct sv path);
/* Append the whole page, or the same as JSON. */
void proxy_whoami_page(const struct proxy_whoami *who, struct buf *out);
void proxy_whoami_json(const struct proxy_whoami *who, struct buf *out);
