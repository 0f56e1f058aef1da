/* proxy_sockaddr: one address to connect to: IPv4, IPv6 or a socket in the file system. Plain values;
 * any thread. */
#pragma once

#include <sys/socket.h>

#include "common/base.h"
#include "common/sv.h"

enum { PROXY_SOCKADDR_TEXT = 160 };

struct proxy_sockaddr {
    struct sockaddr_storage at;
    socklen_t size;
};

struct proxy_sockaddr proxy_sockaddr_unix(const char *path);
/* host without brackets: an IP address, or localhost and what is below it, which is 127.0.0.1 (RFC
 * 6761 §6.3: never asked about). False: it is a name to be looked up. */
bool proxy_sockaddr_literal(struct sv host, uint16_t port, struct proxy_sockaddr *address_out);
void proxy_sockaddr_set_port(struct proxy_sockaddr *address, uint16_t port);
bool proxy_sockaddr_same(const struct proxy_sockaddr *a, const struct proxy_sockaddr *b);
/* "192.0.2.7:443", "[2001:db8::7]:443", "unix:/path". */
const char *proxy_sockaddr_text(const struct proxy_sockaddr *address,
                                char text[PROXY_SOCKADDR_TEXT]);
