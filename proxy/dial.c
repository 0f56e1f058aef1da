#include "proxy/dial.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int dial_unix(const char *path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&at, sizeof(at)) != 0 &&
        errno != EINPROGRESS && errno != EAGAIN) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int dial_tcp(const char *target)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char host[256];
    const char *colon = strrchr(target, ':');
    int fd = -1;

    if (colon == NULL || (size_t)(colon - target) >= sizeof(host)) {
        return -1;
    }
    memcpy(host, target, (size_t)(colon - target));
    host[colon - target] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS) {
        (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

int proxy_dial(const char *target)
{
    return strncmp(target, "unix:", 5) == 0 ? dial_unix(target + 5) : dial_tcp(target);
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
