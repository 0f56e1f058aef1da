/* proxy_tls: the TLS contexts of a snapshot: one for each certificate of the listener, found by
 * SNI in a hash (exact name, then *.parent), and those towards upstreams. Main thread builds, any
 * thread uses. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "proxy/snapshot.h"

/* Fills tls, certs and contexts. ERR_INVALID, ERR_CRYPTO with the certificate's place in d. */
MUST_CHECK enum err proxy_tls_build(struct proxy_snapshot *snapshot, struct diag *d);
void proxy_tls_drop(struct proxy_snapshot *snapshot);
/* TLS 1.2 or later towards an upstream. ca_pem empty: the system's. */
MUST_CHECK enum err proxy_tls_upstream_ctx(struct sv ca_pem, bool verify, SSL_CTX **ctx_out,
                                           struct diag *d);
/* True if the certificate that the client of ssl was shown also covers host. */
bool proxy_tls_covers(const SSL *ssl, const char *host);
