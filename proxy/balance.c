#include "proxy/balance.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* SEQUENCE_MAX bounds what odd weights cost in memory: 10007 and 9973 share no divisor.
 * AGAIN_MAX: how often a pick is repeated to avoid the one that failed. */
enum { SEQUENCE_MAX = 65536, AGAIN_MAX = 32, RING_INDEX_BITS_MAX = 20 };

/* ---- a sequence by weight -------------------------------------------------------------------- */

static uint32_t divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* How often each endpoint stands in the sequence: its weight, without the common divisor, scaled down
 * to SEQUENCE_MAX where it would be longer; at least once. Returns the length. */
static size_t shares_of(const uint32_t *weights, size_t n, uint32_t *shares)
{
    uint32_t common = 0;
    uint64_t sum = 0;
    size_t length = 0;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        common = divisor(common, weights[i]);
        sum += weights[i];
    }
    common = MAX(common, 1U);
    sum /= common;
    for (i = 0; i < n; i++) {
        uint64_t share = weights[i] / common;

        if (sum > SEQUENCE_MAX) {
            share = (share * SEQUENCE_MAX + sum / 2) / sum;
        }
        shares[i] = share == 0 ? 1 : (uint32_t)share;
        length += shares[i];
    }
    return length;
}

struct turn {
    uint64_t due; /* virtual time: (k + 1/2) / share, in 32.32 */
    uint32_t endpoint;
    uint32_t k;
};

static bool before(const struct turn *a, const struct turn *b)
{
    return a->due < b->due || (a->due == b->due && a->endpoint < b->endpoint);
}

static void sift_down(struct turn *heap, size_t n, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        struct turn swap = heap[at];

        if (child + 1 < n && before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (child >= n || !before(&heap[child], &heap[at])) {
            return;
        }
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

static uint64_t due_of(uint32_t k, uint32_t share)
{
    return (((uint64_t)k << 32U) + (UINT64_C(1) << 31U)) / share;
}

/* Earliest due first: the turns of each endpoint lie evenly between those of the others, so that no
 * endpoint gets its share in one burst. */
static void interleave(const uint32_t *shares, size_t n, uint32_t *slots, size_t n_slots)
{
    struct turn *heap = mem_array(n, sizeof(*heap));
    size_t i = 0;

    for (i = 0; i < n; i++) {
        heap[i] = (struct turn){ due_of(0, shares[i]), (uint32_t)i, 0 };
    }
    for (i = n; i-- > 0;) {
        sift_down(heap, n, i);
    }
    for (i = 0; i < n_slots; i++) {
        slots[i] = heap[0].endpoint;
        heap[0].k++;
        heap[0].due = heap[0].k == shares[heap[0].endpoint]
                          ? UINT64_MAX
                          : due_of(heap[0].k, shares[heap[0].endpoint]);
        sift_down(heap, n, 0);
    }
    mem_free(&heap);
}

static void build_sequence(struct proxy_table *t, const uint32_t *weights)
{
    uint32_t *shares = mem_array(t->n, sizeof(*shares));

    t->n_slots = shares_of(weights, t->n, shares);
    t->slots = mem_array(t->n_slots, sizeof(*t->slots));
    interleave(shares, t->n, t->slots, t->n_slots);
    mem_free(&shares);
}

/* ---- Maglev ---------------------------------------------------------------------------------- */

struct permutation {
    uint64_t offset;
    uint64_t skip;
    uint64_t next;
    double count; /* turns taken, counted by weight */
};

/* Eisenbud et al., "Maglev", NSDI 2016, §3.4; by weight as Envoy does it: an endpoint of less than the
 * greatest weight sits out rounds in proportion. size is a prime. */
static void build_maglev(struct proxy_table *t, const uint32_t *weights, uint32_t size)
{
    struct permutation *p = mem_array(t->n, sizeof(*p));
    uint32_t heaviest = 0;
    size_t filled = 0;
    size_t i = 0;
    unsigned round = 0;

    t->n_slots = size;
    t->slots = mem_array(size, sizeof(*t->slots));
    memset(t->slots, 0xff, size * sizeof(*t->slots));
    for (i = 0; i < t->n; i++) {
        uint64_t hash = t->endpoints[i]->hash;
        uint64_t other = proxy_endpoint_hash(sv_of(&hash, sizeof(hash)), 1);

        p[i] = (struct permutation){ .offset = hash % size, .skip = other % (size - 1) + 1 };
        heaviest = MAX(heaviest, weights[i]);
    }
    for (round = 1; filled < size; round++) {
        for (i = 0; i < t->n && filled < size; i++) {
            uint64_t at = 0;

            if ((double)round * weights[i] < p[i].count) {
                continue;
            }
            p[i].count += heaviest;
            do {
                at = (p[i].offset + p[i].skip * p[i].next++) % size;
            } while (t->slots[at] != UINT32_MAX);
            t->slots[at] = (uint32_t)i;
            filled++;
        }
    }
    mem_free(&p);
}

/* ---- the ring -------------------------------------------------------------------------------- */

static int by_hash(const void *a, const void *b)
{
    const struct proxy_ring_point *x = a;
    const struct proxy_ring_point *y = b;

    if (x->hash != y->hash) {
        return x->hash < y->hash ? -1 : 1;
    }
    return x->endpoint < y->endpoint ? -1 : 1;
}

/* Points for each unit of weight: so many that the ring has its least size, a power of two for the
 * lightest endpoint. All candidates count, fit or not, so that an endpoint which leaves or comes back
 * changes the points of no other, and moves no other's keys. */
static double points_per_weight(const struct proxy_candidate *all, size_t n,
                                const struct config_cluster *conf)
{
    double sum = 0;
    double lightest = 0;
    double points = 1;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        sum += all[i].weight;
        lightest = i == 0 || all[i].weight < lightest ? all[i].weight : lightest;
    }
    while (points < lightest / sum * conf->minimum_ring_size) {
        points *= 2;
    }
    return MIN(points / lightest, conf->maximum_ring_size / sum);
}

/* The ring is cut into as many equal parts as it has points, about: a lookup begins at its part and
 * reads on for one or two points, however many endpoints there are. */
static void index_ring(struct proxy_table *t)
{
    unsigned bits = 1;
    size_t parts = 0;
    size_t part = 0;
    size_t at = 0;

    while (bits < RING_INDEX_BITS_MAX && ((size_t)1 << bits) < t->n_ring) {
        bits++;
    }
    parts = (size_t)1 << bits;
    t->ring_shift = 64 - bits;
    t->ring_index = mem_array(parts, sizeof(*t->ring_index));
    for (part = 0; part < parts; part++) {
        while (at < t->n_ring && t->ring[at].hash >> t->ring_shift < part) {
            at++;
        }
        t->ring_index[part] = (uint32_t)at;
    }
}

static void build_ring(struct proxy_table *t, const uint32_t *weights, double per_weight)
{
    size_t cap = 0;
    size_t i = 0;

    for (i = 0; i < t->n; i++) {
        cap += (size_t)(per_weight * weights[i]) + 1;
    }
    t->ring = mem_array(cap, sizeof(*t->ring));
    for (i = 0; i < t->n; i++) {
        uint64_t points = MAX((uint64_t)(per_weight * weights[i]), UINT64_C(1));
        struct sv hash = sv_of(&t->endpoints[i]->hash, sizeof(uint64_t));
        uint64_t k = 0;

        for (k = 0; k < points; k++) {
            t->ring[t->n_ring++] =
                (struct proxy_ring_point){ proxy_endpoint_hash(hash, k + 1), (uint32_t)i };
        }
    }
    qsort(t->ring, t->n_ring, sizeof(*t->ring), by_hash);
    index_ring(t);
}

static size_t ring_find(const struct proxy_table *t, uint64_t hash)
{
    size_t at = t->ring_index[hash >> t->ring_shift];

    while (at < t->n_ring && t->ring[at].hash < hash) {
        at++;
    }
    return at == t->n_ring ? 0 : at;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void build(struct proxy_table *t, const uint32_t *weights, double per_weight,
                  uint32_t table_size)
{
    if (t->n < 2) {
        return; /* nothing to choose */
    }
    switch (t->policy) {
    case CONFIG_BALANCE_ROUND_ROBIN:
    case CONFIG_BALANCE_LEAST_REQUEST:
    case CONFIG_BALANCE_RANDOM:
        build_sequence(t, weights);
        break;
    case CONFIG_BALANCE_RING_HASH:
        build_ring(t, weights, per_weight);
        break;
    case CONFIG_BALANCE_MAGLEV:
        build_maglev(t, weights, table_size);
        break;
    }
}

struct proxy_table *proxy_table_new(const struct config_cluster *conf,
                                    const struct proxy_candidate *candidates, size_t n,
                                    bool settled)
{
    struct proxy_table *t = MEM_NEW(struct proxy_table);
    uint32_t *weights = mem_array(n, sizeof(*weights));
    size_t fit = 0;
    size_t i = 0;

    CHECK(n <= PROXY_ENDPOINTS_MAX);
    for (i = 0; i < n; i++) {
        fit += candidates[i].fit ? 1 : 0;
    }
    t->refs = 1;
    t->policy = conf->policy;
    t->choice_count = conf->choice_count;
    t->settled = settled;
    t->panic = fit < n && fit * 100 < n * conf->healthy_panic_threshold;
    t->n_all = n;
    t->endpoints = mem_array(n, sizeof(struct proxy_endpoint *));
    for (i = 0; i < n; i++) {
        if (candidates[i].fit || t->panic) {
            weights[t->n] = candidates[i].weight;
            t->endpoints[t->n++] = proxy_endpoint_ref(candidates[i].endpoint);
        }
    }
    build(t, weights, n == 0 ? 0 : points_per_weight(candidates, n, conf), conf->table_size);
    mem_free(&weights);
    return t;
}

struct proxy_table *proxy_table_ref(struct proxy_table *table)
{
    (void)__atomic_add_fetch(&table->refs, 1, __ATOMIC_RELAXED);
    return table;
}

void proxy_table_unref(struct proxy_table **table)
{
    struct proxy_table *t = TAKE(*table);
    size_t i = 0;

    if (t == NULL || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    for (i = 0; i < t->n; i++) {
        proxy_endpoint_unref(&t->endpoints[i]);
    }
    mem_free(&t->endpoints);
    mem_free(&t->slots);
    mem_free(&t->ring);
    mem_free(&t->ring_index);
    mem_free(&t);
}

/* ---- picking --------------------------------------------------------------------------------- */

/* Vigna, "An experimental exploration of Marsaglia's xorshift generators": fast, and nothing that
 * anybody gains by guessing. Below n, which is below 2^32. */
static size_t draw(struct proxy_cursor *cursor, size_t n)
{
    uint64_t x = cursor->random;

    x ^= x >> 12U;
    x ^= x << 25U;
    x ^= x >> 27U;
    cursor->random = x;
    return (size_t)(((x * UINT64_C(0x2545f4914f6cdd1d)) >> 32U) * n >> 32U);
}

static uint32_t fewest_requests(const struct proxy_table *t, struct proxy_cursor *cursor)
{
    uint32_t best = t->slots[draw(cursor, t->n_slots)];
    uint32_t best_active = __atomic_load_n(&t->endpoints[best]->active, __ATOMIC_RELAXED);
    uint32_t i = 0;

    for (i = 1; i < t->choice_count; i++) {
        uint32_t other = t->slots[draw(cursor, t->n_slots)];
        uint32_t active = __atomic_load_n(&t->endpoints[other]->active, __ATOMIC_RELAXED);

        if (active < best_active) {
            best = other;
            best_active = active;
        }
    }
    return best;
}

/* again: how often the same pick has been refused. */
static uint32_t pick(const struct proxy_table *t, struct proxy_cursor *cursor, uint64_t key,
                     uint32_t again)
{
    switch (t->policy) {
    case CONFIG_BALANCE_LEAST_REQUEST:
        return fewest_requests(t, cursor);
    case CONFIG_BALANCE_RANDOM:
        return t->slots[draw(cursor, t->n_slots)];
    case CONFIG_BALANCE_RING_HASH:
        return t->ring[(ring_find(t, key) + again) % t->n_ring].endpoint;
    case CONFIG_BALANCE_MAGLEV:
        return t->slots[(key + again) % t->n_slots];
    case CONFIG_BALANCE_ROUND_ROBIN:
        break;
    }
    return t->slots[cursor->turn++ % t->n_slots];
}

struct proxy_endpoint *proxy_table_pick(const struct proxy_table *table,
                                        struct proxy_cursor *cursor, uint64_t key,
                                        const struct proxy_endpoint *avoid)
{
    struct proxy_endpoint *found = NULL;
    uint32_t again = 0;

    if (table->n < 2) {
        return table->n == 0 ? NULL : table->endpoints[0];
    }
    do {
        found = table->endpoints[pick(table, cursor, key, again)];
        again++;
    } while (found == avoid && again < AGAIN_MAX);
    return found;
}
