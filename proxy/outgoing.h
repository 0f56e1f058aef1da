/* proxy_outgoing: what an allowed request says to its upstream that its route decides: path, host and
 * the fields it sets, for this request. Part of an exchange; one worker. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/sv.h"

struct proxy_exchange;

struct proxy_outgoing {
    struct sv path;                /* canonical, rewritten */
    struct sv host;                /* {NULL, 0}: the upstream's own */
    const struct config_pair *set; /* fields; a value that is {NULL, 0} is not sent */
    size_t n_set;
};

/* After the verdict, once. False: the exchange was answered with a refusal. */
MUST_CHECK bool proxy_outgoing_make(struct proxy_exchange *x);
