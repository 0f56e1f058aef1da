#include "proxy/endpoint.h"

#include <string.h>

#include "common/mem.h"

uint64_t proxy_endpoint_hash(struct sv bytes, uint64_t seed)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ seed * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = 0;

    for (i = 0; i < bytes.n; i++) {
        h = (h ^ (unsigned char)bytes.p[i]) * UINT64_C(0x100000001b3);
    }
    h = (h ^ h >> 33U) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33U) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33U;
}

struct proxy_endpoint *proxy_endpoint_new(struct proxy_target *target,
                                          const struct proxy_sockaddr *address, unsigned n_workers)
{
    struct proxy_endpoint *e = mem_aligned_array(1, sizeof(*e), PROXY_CACHE_LINE);
    unsigned i = 0;

    e->refs = 1;
    e->target = proxy_target_ref(target);
    e->address = *address;
    (void)proxy_sockaddr_text(address, e->text);
    e->hash =
        proxy_endpoint_hash(sv_from(e->text), proxy_endpoint_hash(sv_from(target->host_header), 0));
    e->n_slots = n_workers;
    e->slots = mem_aligned_array(n_workers, sizeof(*e->slots), PROXY_CACHE_LINE);
    for (i = 0; i < n_workers; i++) {
        list_init(&e->slots[i].idle);
        list_init(&e->slots[i].shared);
    }
    return e;
}

struct proxy_endpoint *proxy_endpoint_ref(struct proxy_endpoint *endpoint)
{
    (void)__atomic_add_fetch(&endpoint->refs, 1, __ATOMIC_RELAXED);
    return endpoint;
}

void proxy_endpoint_unref(struct proxy_endpoint **endpoint)
{
    struct proxy_endpoint *e = TAKE(*endpoint);

    if (e == NULL || __atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    proxy_target_unref(&e->target);
    mem_free(&e->slots);
    mem_free(&e);
}

bool proxy_endpoint_is(const struct proxy_endpoint *endpoint, const struct proxy_target *target,
                       const struct proxy_sockaddr *address)
{
    return endpoint->address.size == address->size &&
           memcmp(&endpoint->address.at, &address->at, address->size) == 0 &&
           strcmp(endpoint->target->key, target->key) == 0;
}
