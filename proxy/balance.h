/* proxy_balance: which endpoint is next. A table holds the endpoints of a cluster that may be used and,
 * built once for it, what its policy looks up: a sequence, a ring, a Maglev table. It is made anew when
 * addresses, health or ejections change, never by a request; a pick reads it in constant time,
 * allocates nothing and takes no lock. Immutable, refcounted; any thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "proxy/endpoint.h"

enum { PROXY_ENDPOINTS_MAX = 4096 };

/* An endpoint that is offered to a table. */
struct proxy_candidate {
    struct proxy_endpoint *endpoint;
    uint32_t weight;
    bool fit; /* healthy and not ejected */
};

struct proxy_ring_point {
    uint64_t hash;
    uint32_t endpoint;
};

struct proxy_table {
    enum config_balance policy;
    uint32_t choice_count;
    bool settled; /* false: names are still being looked up for the first time */
    bool panic;   /* too few are fit: all are used */
    size_t n_all; /* fit or not */
    size_t n;     /* that may be used */
    struct proxy_endpoint **endpoints;
    uint32_t *slots; /* indices: a sequence by weight; MAGLEV: the table */
    size_t n_slots;
    struct proxy_ring_point *ring; /* RING_HASH, by hash */
    size_t n_ring;
    uint32_t *ring_index; /* of the upper bits of a hash: where its part of the ring begins */
    unsigned ring_shift;
    int refs; /* atomic */
};

/* n up to PROXY_ENDPOINTS_MAX; settled as above. Fewer than conf's panic threshold fit: all are used. */
struct proxy_table *proxy_table_new(const struct config_cluster *conf,
                                    const struct proxy_candidate *candidates, size_t n,
                                    bool settled);
struct proxy_table *proxy_table_ref(struct proxy_table *table);
void proxy_table_unref(struct proxy_table **table);

/* What a worker remembers between two picks from one cluster. */
struct proxy_cursor {
    uint64_t random; /* state of xorshift64*; not 0 */
    uint32_t turn;
};

/* key: what RING_HASH and MAGLEV keep together. avoid: one that just failed, or NULL; it comes back only
 * when no other is found. NULL: there is none. Borrowed from the table. */
struct proxy_endpoint *proxy_table_pick(const struct proxy_table *table,
                                        struct proxy_cursor *cursor, uint64_t key,
                                        const struct proxy_endpoint *avoid);
