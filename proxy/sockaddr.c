#include "proxy/sockaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum { HOST_MAX = 256 };

static struct proxy_sockaddr of(const void *at, size_t size)
{
    struct proxy_sockaddr address = { .size = (socklen_t)size };

    memcpy(&address.at, at, size);
    return address;
}

struct proxy_sockaddr proxy_sockaddr_unix(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    return of(&un, sizeof(un));
}

bool proxy_sockaddr_literal(struct sv host, uint16_t port, struct proxy_sockaddr *address_out)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    char text[HOST_MAX];

    if (host.n >= sizeof(text)) {
        return false;
    }
    if (sv_eq(host, SV("localhost")) || sv_ends(host, SV(".localhost"))) {
        host = SV("127.0.0.1");
    }
    (void)snprintf(text, sizeof(text), "%.*s", SV_ARG(host));
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        *address_out = of(&v4, sizeof(v4));
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
        *address_out = of(&v6, sizeof(v6));
        return true;
    }
    return false;
}

void proxy_sockaddr_set_port(struct proxy_sockaddr *address, uint16_t port)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (address->at.ss_family == AF_INET) {
        memcpy(&v4, &address->at, sizeof(v4));
        v4.sin_port = htons(port);
        memcpy(&address->at, &v4, sizeof(v4));
    } else {
        memcpy(&v6, &address->at, sizeof(v6));
        v6.sin6_port = htons(port);
        memcpy(&address->at, &v6, sizeof(v6));
    }
}

bool proxy_sockaddr_same(const struct proxy_sockaddr *a, const struct proxy_sockaddr *b)
{
    return a->size == b->size && memcmp(&a->at, &b->at, a->size) == 0;
}

const char *proxy_sockaddr_text(const struct proxy_sockaddr *address,
                                char text[PROXY_SOCKADDR_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "";

    if (address->at.ss_family == AF_INET) {
        struct sockaddr_in v4;

        memcpy(&v4, &address->at, sizeof(v4));
        (void)inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
        (void)snprintf(text, PROXY_SOCKADDR_TEXT, "%s:%u", host, ntohs(v4.sin_port));
    } else if (address->at.ss_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, &address->at, sizeof(v6));
        (void)inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
        (void)snprintf(text, PROXY_SOCKADDR_TEXT, "[%s]:%u", host, ntohs(v6.sin6_port));
    } else {
        struct sockaddr_un path;

        memcpy(&path, &address->at, sizeof(path));
        (void)snprintf(text, PROXY_SOCKADDR_TEXT, "unix:%s", path.sun_path);
    }
    return text;
}
