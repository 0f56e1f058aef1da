/* cidr: IP addresses and ranges of them. IPv4 and its IPv6-mapped form are one family; an IPv6 range
 * never holds an IPv4 address. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct cidr {
    uint8_t net[16]; /* host bits cleared; IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;    /* of 128 */
    bool v4;
};

/* An address or address/length; host bits may be set. ERR_INVALID. */
MUST_CHECK enum err cidr_parse(struct sv text, struct cidr *cidr_out);
bool cidr_holds(const struct cidr *cidr, const uint8_t ip[16]);
/* Whether all of inner belongs to outer. */
bool cidr_within(const struct cidr *inner, const struct cidr *outer);
/* IPv4 is stored mapped. ERR_INVALID. */
MUST_CHECK enum err cidr_ip_parse(struct sv text, uint8_t ip_out[16]);
