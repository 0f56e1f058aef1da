/* proxy_crowd: how many connections an address has, over all workers, so that one visitor cannot take
 * the places of all. IPv6 counts by /64, which is what one household gets. A counting sketch of fixed
 * size: an address has a place in two tables and counts as the smaller one says. It may so be counted
 * too high, never too low; for that both of its places must be shared with somebody who is at the
 * bound, and where places lie depends on a key of the process. No lock, no allocation; any thread. */
#pragma once

#include "common/base.h"
#include "proxy/peer.h"

struct proxy_crowd;

/* A connection's place; all zero: none is taken. */
struct proxy_place {
    bool taken;
    uint16_t slot[2];
};

struct proxy_crowd *proxy_crowd_new(void);
void proxy_crowd_free(struct proxy_crowd **crowd);
/* address is known. False: max are there already, and nothing is taken. */
MUST_CHECK bool proxy_crowd_enter(struct proxy_crowd *crowd, const struct proxy_address *address,
                                  uint32_t max, struct proxy_place *place_out);
void proxy_crowd_leave(struct proxy_crowd *crowd, struct proxy_place *place); /* none taken: fine */
