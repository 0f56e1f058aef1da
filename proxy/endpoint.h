/* proxy_endpoint: one address of a target: what a request is sent to. Counts what is under way there
 * and what went wrong lately, for all workers at once; keeps each worker's idle connections in a slot
 * of that worker. Refcounted; atomic where several threads write. */
#pragma once

#include "common/base.h"
#include "common/list.h"
#include "proxy/target.h"

struct proxy_upstream;

enum { PROXY_CACHE_LINE = 64 };

/* A worker's own part; no other thread looks at it. */
struct proxy_endpoint_slot {
    struct list idle; /* struct proxy_upstream of HTTP/1, newest first */
    size_t n_idle;
    struct list shared; /* those of HTTP/2 */
    /* A connection on its way that may serve many: who comes meanwhile waits for it. NULL: none. */
    struct proxy_upstream *first;
    bool alone; /* the last one served one at a time, or failed: nobody waits for another's */
} __attribute__((aligned(PROXY_CACHE_LINE)));

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): the last group has its own line */
struct proxy_endpoint {
    struct proxy_target *target;
    struct proxy_sockaddr address;
    char text[PROXY_SOCKADDR_TEXT];    /* 10.0.0.1:80, [2001:db8::1]:80, unix:/path */
    uint64_t hash;                     /* the same in every process: its place on a ring */
    struct proxy_endpoint_slot *slots; /* one a worker */
    unsigned n_slots;
    unsigned owners; /* clusters in force that have it; main thread */
    /* Written by all, hence on a line of its own; atomic. */
    int refs __attribute__((aligned(PROXY_CACHE_LINE)));
    bool gone;        /* no cluster has it any more: keep no connection to it */
    uint32_t active;  /* requests under way */
    uint32_t run_5xx; /* failures in a row, and below only those of gateways */
    uint32_t run_gateway;
};

struct proxy_endpoint *proxy_endpoint_new(struct proxy_target *target,
                                          const struct proxy_sockaddr *address, unsigned n_workers);
struct proxy_endpoint *proxy_endpoint_ref(struct proxy_endpoint *endpoint);
void proxy_endpoint_unref(struct proxy_endpoint **endpoint);
bool proxy_endpoint_is(const struct proxy_endpoint *endpoint, const struct proxy_target *target,
                       const struct proxy_sockaddr *address);
/* A hash that is the same in every process and release: FNV-1a with the finalizer of MurmurHash3. */
uint64_t proxy_endpoint_hash(struct sv bytes, uint64_t seed);
