/* proxy_authz_names: where the authorizes are. Each target of authorize_service_url stands for all
 * addresses its name has; the resolver keeps them fresh. Main thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "proxy/resolve.h"

enum { PROXY_AUTHORIZES_MAX = 256 }; /* addresses in all; beyond it the first ones count */

struct proxy_authz_names;

/* All addresses, each once; those that need no look-up from within proxy_authz_names_new, then
 * whenever they change. */
typedef void (*proxy_authz_names_fn)(void *arg, const struct proxy_sockaddr *v, size_t n);

/* targets are borrowed. */
struct proxy_authz_names *proxy_authz_names_new(struct proxy_resolver *resolver,
                                                const struct config_targets *targets,
                                                proxy_authz_names_fn changed, void *arg);
void proxy_authz_names_free(struct proxy_authz_names **names); /* before the resolver */
