#include "proxy/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/mem.h"

static void text_of(const struct proxy_sockaddr *address, char out[PROXY_ENDPOINT_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "";

    if (address->at.ss_family == AF_INET) {
        struct sockaddr_in v4;

        memcpy(&v4, &address->at, sizeof(v4));
        (void)inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
        (void)snprintf(out, PROXY_ENDPOINT_TEXT, "%s:%u", host, ntohs(v4.sin_port));
    } else if (address->at.ss_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, &address->at, sizeof(v6));
        (void)inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
        (void)snprintf(out, PROXY_ENDPOINT_TEXT, "[%s]:%u", host, ntohs(v6.sin6_port));
    } else {
        struct sockaddr_un path;

        memcpy(&path, &address->at, sizeof(path));
        (void)snprintf(out, PROXY_ENDPOINT_TEXT, "unix:%s", path.sun_path);
    }
}

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
    text_of(address, e->text);
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
