/* proxy_tls: TLS contexts of the listener (several certificates, chosen by SNI) and towards
 * upstreams. Contexts are immutable once made; any thread. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"

/* TLS 1.2 and 1.3, ALPN http/1.1. Without certificates a self-signed one is made. *certs_out is
 * freed with proxy_tls_certs_free after the context. */
MUST_CHECK enum err proxy_tls_server(const struct config *config, SSL_CTX **ctx_out,
                                     void **certs_out, struct diag *d);
void proxy_tls_certs_free(void **certs);
/* ca: PEM, or empty for the system's. verify false: tls_skip_verify. */
MUST_CHECK enum err proxy_tls_client(struct sv ca, bool verify, SSL_CTX **ctx_out, struct diag *d);
/* A connection on fd. name: the server's, checked where verify is on; NUL behind it. */
MUST_CHECK enum err proxy_tls_connect(SSL_CTX *ctx, int fd, struct sv name, bool verify,
                                      SSL **ssl_out);
