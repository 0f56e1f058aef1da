/* proxy_dial: begins a connection to a daemon of ours. The socket is non-blocking, nothing is looked
 * up. Any thread. */
#pragma once

#include "common/rpc/identity.h"
#include "proxy/sockaddr.h"

/* Returns the socket, connected or about to be (writable then, SO_ERROR tells); the caller closes
 * it. -1: nobody listens there. */
int proxy_dial(const struct proxy_sockaddr *address);
/* The context for those connections; to be renewed with the identity's certificate. */
SSL_CTX *proxy_dial_ctx(const struct rpc_identity *identity);
/* The client's side of TLS on fd, which must lead to a daemon of that role. */
SSL *proxy_dial_tls(SSL_CTX *ctx, int fd, enum rpc_role server);
