/* proxy_peer: who the client is. Three may have a say, each believed only if the one before it is one
 * of trusted_proxies: the socket, the PROXY header, X-Forwarded-For from its end. Without
 * trusted_proxies the socket alone counts. Pure functions of a snapshot's configuration; any thread.
 *
 *     client ──▶ proxy 1 ──▶ proxy 2 ──▶ balancer ──PROXY header──▶ us
 *     hops[1]    hops[0]     connection  socket
 *
 * An address that should be there and is none makes the client unclear: such a request is refused,
 * because its sender could be taken for a proxy of ours. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/http/head.h"
#include "common/http/proxy_header.h"

enum { PROXY_HOPS_MAX = 32, PROXY_ADDRESS_TEXT = INET6_ADDRSTRLEN };

struct proxy_address {
    bool known;
    uint8_t ip[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint16_t port;  /* 0: not known */
};

/* Of a connection. */
struct proxy_peer {
    struct proxy_address socket;
    bool unix_socket;
    struct proxy_address connection; /* as the PROXY header tells; without one the socket's */
    unsigned char header_version;    /* of the PROXY header; 0: there was none */
    enum http_proxy_source header_source;
    char text[PROXY_ADDRESS_TEXT]; /* of connection; "unix:", "unknown" */
};

/* Of a request. Texts live as long as the request's arena or its connection. */
struct proxy_visitor {
    struct proxy_address address;
    struct sv text;          /* "unknown" where the address is not known */
    struct sv forwarded_for; /* what the upstream gets to see; "": nothing */
    bool https;              /* how the client came, as far as that can be believed */
    struct sv unclear;       /* what made the client unclear, for the log */
};

/* How the address was found, for people. */
struct proxy_hop {
    struct sv text; /* as it was written */
    struct proxy_address address;
    bool trusted;
};

struct proxy_walk {
    bool believed; /* the connection comes from a trusted proxy: X-Forwarded-For counts */
    bool unclear;
    struct proxy_hop hops[PROXY_HOPS_MAX]; /* from the end; the last one is the client */
    size_t n;
};

void proxy_peer_init(struct proxy_peer *peer, const struct sockaddr *address);
/* Whether the connection must begin with a PROXY header. */
bool proxy_peer_owes_header(const struct proxy_peer *peer, const struct config *config);
void proxy_peer_take_header(struct proxy_peer *peer, const struct http_proxy_header *header);
/* Whether the connection comes from there, as the socket or a PROXY header that counts says. */
bool proxy_peer_is_in(const struct proxy_peer *peer, const struct config_cidrs *list);
bool proxy_peer_is_trusted(const struct proxy_peer *peer, const struct config *config);

void proxy_peer_walk(const struct proxy_peer *peer, const struct config *config,
                     const struct http_head *head, struct proxy_walk *walk_out);
/* tls: the connection to us is encrypted. False: the client is unclear. */
MUST_CHECK bool proxy_peer_visitor(const struct proxy_peer *peer, const struct config *config,
                                   const struct http_head *head, bool tls, struct arena *arena,
                                   struct proxy_visitor *visitor_out);
/* The bytes that authorize gets: 4, 16 or none. */
struct sv proxy_address_bytes(const struct proxy_address *address);
/* Writes the address without its port; "unknown". */
void proxy_address_text(const struct proxy_address *address, char text[PROXY_ADDRESS_TEXT]);
