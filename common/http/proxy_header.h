/* http/proxy_header: the PROXY protocol, versions 1 and 2: what a load balancer that passes bytes on
 * says, before the first of them, about the connection it took. Whether the sender may be believed
 * is the caller's business. Pure functions; any thread.
 * Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt */
#pragma once

#include "common/base.h"
#include "common/http/head.h"
#include "common/sv.h"

/* Of a whole header. Version 2 may announce 64 KiB of extensions; a few hundred bytes are in use. */
enum { HTTP_PROXY_HEADER_MAX = 4096 };

enum http_proxy_source {
    HTTP_PROXY_UNKNOWN = 0, /* bytes of a client whose address is not told */
    HTTP_PROXY_CLIENT,      /* bytes of the client at address */
    HTTP_PROXY_SENDER       /* bytes of the sender itself: its health check (LOCAL) */
};

struct http_proxy_header {
    size_t size; /* of the header */
    unsigned version;
    enum http_proxy_source source;
    uint8_t address[16]; /* CLIENT: IPv4 as ::ffff:a.b.c.d */
    uint16_t port;
};

/* HTTP_DONE: a header is there, bytes behind it are the client's. HTTP_MORE: all of in belongs to a
 * header that is not whole yet. HTTP_ERROR: this is no header. */
MUST_CHECK enum http_step http_proxy_header_parse(struct sv in,
                                                  struct http_proxy_header *header_out);
