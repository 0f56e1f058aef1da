#include "proxy/dial.h"

#include <errno.h>
#include <unistd.h>

int proxy_dial(const struct proxy_sockaddr *address)
{
    const struct sockaddr *at = (const struct sockaddr *)(const void *)&address->at;
    int fd = socket(at->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, at, address->size) != 0 && errno != EINPROGRESS && errno != EAGAIN) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

SSL_CTX *proxy_dial_ctx(const struct rpc_identity *identity)
{
    SSL_CTX *ctx = rpc_identity_client_ctx(identity);

    (void)SSL_CTX_set_mode(ctx,
                           SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    return ctx;
}

SSL *proxy_dial_tls(SSL_CTX *ctx, int fd, enum rpc_role server)
{
    SSL *ssl = SSL_new(ctx);

    CHECK(ssl != NULL && SSL_set_fd(ssl, fd) == 1);
    rpc_identity_expect(ssl, server);
    SSL_set_connect_state(ssl);
    return ssl;
}
