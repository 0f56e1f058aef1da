/* proxy_upstream_tls: TLS towards upstreams: who is trusted there and who we say we are. Equal settings
 * are one context in a process: 10,000 routes do not read the system's CAs 10,000 times. Immutable,
 * refcounted; any thread. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"

struct proxy_target;
struct proxy_upstream_tls;

enum { PROXY_UPSTREAM_TLS_ID = 65 };

/* All that decides, as text: equal ids, equal contexts. route NULL: the system's CAs, no certificate
 * of ours. */
void proxy_upstream_tls_id(const struct config_route *route, char id_out[PROXY_UPSTREAM_TLS_ID]);
/* One reference for the caller. ERR_INVALID with the reason in d. */
MUST_CHECK enum err proxy_upstream_tls_get(const struct config_route *route,
                                           struct proxy_upstream_tls **tls_out, struct diag *d);
void proxy_upstream_tls_unref(struct proxy_upstream_tls **tls);
SSL_CTX *proxy_upstream_tls_ctx(const struct proxy_upstream_tls *tls); /* borrowed */

/* A handshake about to begin on fd: asks for and verifies target's server name. NULL: the name
 * cannot be asked for. */
SSL *proxy_upstream_tls_open(const struct proxy_target *target, int fd);
/* After a handshake: warns, once a day and target, about a certificate that ends soon. */
void proxy_upstream_tls_look(struct proxy_target *target, const SSL *ssl);
