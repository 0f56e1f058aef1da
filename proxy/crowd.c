#include "proxy/crowd.h"

#include "common/map.h"
#include "common/mem.h"

enum { SLOTS = 65536, V6_NETWORK = 8 };

struct proxy_crowd {
    uint32_t n[2][SLOTS]; /* atomic */
};

struct proxy_crowd *proxy_crowd_new(void)
{
    return MEM_NEW(struct proxy_crowd);
}

void proxy_crowd_free(struct proxy_crowd **crowd)
{
    mem_free(crowd);
}

static void add(struct proxy_crowd *crowd, const struct proxy_place *place, uint32_t n)
{
    for (size_t i = 0; i < 2; i++) {
        (void)__atomic_add_fetch(&crowd->n[i][place->slot[i]], n, __ATOMIC_SEQ_CST);
    }
}

/* Read when both places are taken: of several that come at once, the sums of one's own additions may
 * show each a bound that is not reached yet. */
static uint32_t count(const struct proxy_crowd *crowd, const struct proxy_place *place)
{
    uint32_t a = __atomic_load_n(&crowd->n[0][place->slot[0]], __ATOMIC_SEQ_CST);
    uint32_t b = __atomic_load_n(&crowd->n[1][place->slot[1]], __ATOMIC_SEQ_CST);

    return MIN(a, b);
}

bool proxy_crowd_enter(struct proxy_crowd *crowd, const struct proxy_address *address, uint32_t max,
                       struct proxy_place *place_out)
{
    struct sv ip = proxy_address_bytes(address);
    uint64_t hash = map_hash(sv_head(ip, MIN(ip.n, (size_t)V6_NETWORK)));

    *place_out =
        (struct proxy_place){ .taken = true, .slot = { (uint16_t)hash, (uint16_t)(hash >> 32U) } };
    add(crowd, place_out, 1);
    if (count(crowd, place_out) > max) {
        proxy_crowd_leave(crowd, place_out);
        return false;
    }
    return true;
}

void proxy_crowd_leave(struct proxy_crowd *crowd, struct proxy_place *place)
{
    if (place->taken) {
        add(crowd, place, UINT32_MAX); /* minus one */
        place->taken = false;
    }
}
