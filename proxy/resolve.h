/* proxy_resolver: names to all their addresses, kept fresh. One lookup a name however many ask; again
 * when its time to live is over; after a failure the last good answer stays. By c-ares on the loop: it
 * never blocks and tells the time to live. Main thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/loop.h"
#include "proxy/sockaddr.h"

enum { PROXY_ADDRESSES_MAX = 256 }; /* of one name; more are left out */

struct proxy_resolver;
struct proxy_name;

/* Of which the port is not set. */
struct proxy_addresses {
    struct proxy_sockaddr *v;
    size_t n; /* 0: the name never had any answer */
};

struct proxy_resolver *proxy_resolver_new(struct loop *loop, const struct config_dns *conf);
void proxy_resolver_free(struct proxy_resolver **resolver);
/* Other settings; names are looked up again at their time, all at once if conf differs. */
void proxy_resolver_set(struct proxy_resolver *resolver, const struct config_dns *conf);

/* The answer, at first and whenever it changes; a first failure is told, too. Never from within
 * proxy_name_watch. addresses are valid until the callback returns. */
typedef void (*proxy_name_fn)(void *arg, const struct proxy_addresses *addresses);
struct proxy_name *proxy_name_watch(struct proxy_resolver *resolver, const char *host,
                                    proxy_name_fn changed, void *arg);
void proxy_name_unwatch(struct proxy_name **name);
