/* proxy_probe: one active health check over the network: a GET, a TCP connection with what is said over
 * it, or grpc.health.v1.Health/Check, at one endpoint and with its target's TLS. Main thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/loop.h"
#include "proxy/endpoint.h"
#include "proxy/health.h"

struct proxy_prober;
struct proxy_probe;

struct proxy_prober *proxy_prober_new(struct loop *loop);
void proxy_prober_free(struct proxy_prober **prober);

/* why: for the log; a constant, or valid until the callback returns. */
typedef void (*proxy_probe_fn)(void *arg, enum proxy_health_result result, const char *why);
/* done is called once, later, unless the probe is cancelled; conf and endpoint outlive it. */
struct proxy_probe *proxy_probe_start(struct proxy_prober *prober,
                                      const struct config_health_check *conf,
                                      struct proxy_endpoint *endpoint, proxy_probe_fn done,
                                      void *arg);
void proxy_probe_cancel(struct proxy_probe **probe); /* NULL is fine; not from within done */
