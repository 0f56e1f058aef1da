/* authn_grant: one request to the provider's token endpoint, with the client's credentials in the way that
 * the provider takes them (RFC 6749 §2.3.1), and one to its userinfo endpoint. Loop thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/fetch.h"

struct authn_provider;

struct authn_grant {
    const struct authn_provider *provider;
    const struct config *config;
    struct buf *form;   /* grant_type and what belongs to it; wiped */
    int64_t timeout_ms; /* 0: FETCH_TIMEOUT_MS */
};

struct fetch *authn_grant_start(struct fetcher *fetcher, const struct authn_grant *grant,
                                fetch_done_fn done, void *arg);
/* NULL: there is no such endpoint, or access_token is none that could be sent. */
struct fetch *authn_userinfo_start(struct fetcher *fetcher, const struct authn_provider *provider,
                                   struct sv access_token, fetch_done_fn done, void *arg);
