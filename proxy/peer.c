#include "proxy/peer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/cidr.h"

enum { FORWARDED_MAX = (PROXY_HOPS_MAX + 1) * (PROXY_ADDRESS_TEXT + 2) };

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

/* ---- addresses -------------------------------------------------------------------------------- */

struct sv proxy_address_bytes(const struct proxy_address *address)
{
    if (!address->known) {
        return (struct sv){ 0 };
    }
    if (memcmp(address->ip, mapped, sizeof(mapped)) == 0) {
        return sv_of(address->ip + sizeof(mapped), 4);
    }
    return sv_of(address->ip, sizeof(address->ip));
}

void proxy_address_text(const struct proxy_address *address, char text[PROXY_ADDRESS_TEXT])
{
    struct sv ip = proxy_address_bytes(address);

    if (ip.n == 0) {
        (void)snprintf(text, PROXY_ADDRESS_TEXT, "unknown");
    } else {
        (void)inet_ntop(ip.n == 4 ? AF_INET : AF_INET6, ip.p, text, PROXY_ADDRESS_TEXT);
    }
}

static bool is_listed(const struct proxy_address *address, const struct config_cidrs *list)
{
    size_t i = 0;

    for (i = 0; address->known && i < list->n; i++) {
        if (cidr_holds(&list->v[i], address->ip)) {
            return true;
        }
    }
    return false;
}

static bool is_port(struct sv text)
{
    uint64_t port = 0;

    return sv_u64(text, UINT16_MAX, &port) == ERR_OK;
}

/* 192.0.2.7, 192.0.2.7:4711, 2001:db8::7, [2001:db8::7], [2001:db8::7]:4711: what proxies write. */
static bool read_address(struct sv text, struct proxy_address *address_out)
{
    size_t colon = sv_find(text, ':');

    if (sv_starts(text, SV("["))) {
        size_t close = sv_find(text, ']');
        struct sv rest = close == SIZE_MAX ? text : sv_from_at(text, close + 1);

        if (close == SIZE_MAX || sv_find(sv_head(text, close), ':') == SIZE_MAX ||
            (rest.n != 0 && (rest.p[0] != ':' || !is_port(sv_from_at(rest, 1))))) {
            return false;
        }
        text = sv_from_at(sv_head(text, close), 1);
    } else if (colon != SIZE_MAX && sv_rfind(text, ':') == colon) {
        if (!is_port(sv_from_at(text, colon + 1))) {
            return false;
        }
        text = sv_head(text, colon);
    }
    address_out->known = cidr_ip_parse(text, address_out->ip) == ERR_OK;
    return address_out->known;
}

/* ---- the connection --------------------------------------------------------------------------- */

static void set_text(struct proxy_peer *peer)
{
    proxy_address_text(&peer->connection, peer->text);
    if (!peer->connection.known && peer->unix_socket && peer->header_version == 0) {
        (void)snprintf(peer->text, sizeof(peer->text), "unix:");
    }
}

void proxy_peer_init(struct proxy_peer *peer, const struct sockaddr *address)
{
    *peer = (struct proxy_peer){ .unix_socket = address->sa_family == AF_UNIX };
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)(const void *)address;

        memcpy(peer->socket.ip, mapped, sizeof(mapped));
        memcpy(peer->socket.ip + sizeof(mapped), &a->sin_addr, 4);
        peer->socket.port = ntohs(a->sin_port);
        peer->socket.known = true;
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)(const void *)address;

        memcpy(peer->socket.ip, &a->sin6_addr, 16);
        peer->socket.port = ntohs(a->sin6_port);
        peer->socket.known = true;
    }
    peer->connection = peer->socket;
    set_text(peer);
}

static bool socket_is_in(const struct proxy_peer *peer, const struct config_cidrs *list)
{
    return peer->unix_socket ? list->unix_peers : is_listed(&peer->socket, list);
}

bool proxy_peer_owes_header(const struct proxy_peer *peer, const struct config *config)
{
    return config->use_proxy_protocol && socket_is_in(peer, &config->trusted_proxies);
}

void proxy_peer_take_header(struct proxy_peer *peer, const struct http_proxy_header *header)
{
    peer->header_version = (unsigned char)header->version;
    peer->header_source = header->source;
    switch (header->source) {
    case HTTP_PROXY_SENDER:
        break; /* the balancer's own */
    case HTTP_PROXY_CLIENT:
        peer->connection = (struct proxy_address){ .known = true, .port = header->port };
        memcpy(peer->connection.ip, header->address, sizeof(header->address));
        break;
    case HTTP_PROXY_UNKNOWN:
        /* Somebody's bytes: the balancer's own address would give them its rights. */
        peer->connection = (struct proxy_address){ .known = false };
        break;
    }
    set_text(peer);
}

bool proxy_peer_is_in(const struct proxy_peer *peer, const struct config_cidrs *list)
{
    if (peer->header_version == 0 || peer->header_source == HTTP_PROXY_SENDER) {
        return socket_is_in(peer, list);
    }
    return is_listed(&peer->connection, list);
}

bool proxy_peer_is_trusted(const struct proxy_peer *peer, const struct config *config)
{
    return proxy_peer_is_in(peer, &config->trusted_proxies);
}

/* ---- X-Forwarded-For -------------------------------------------------------------------------- */

/* The members of all X-Forwarded-For fields together, from the end (RFC 9110 §5.3). A Connection
 * that names the field changes nothing: it is no word about who the client is. */
struct members {
    const struct http_head *head;
    uint32_t next; /* fields before this one are still to be looked at */
    struct sv rest;
};

/* False: there are no more. Empty members do not count (RFC 9110 §5.6.1). */
static bool previous(struct members *m, struct sv *member_out)
{
    for (;;) {
        while (m->rest.n != 0) {
            size_t comma = sv_rfind(m->rest, ',');

            *member_out = sv_trim(comma == SIZE_MAX ? m->rest : sv_from_at(m->rest, comma + 1));
            m->rest = comma == SIZE_MAX ? (struct sv){ 0 } : sv_head(m->rest, comma);
            if (member_out->n != 0) {
                return true;
            }
        }
        while (m->next > 0 && m->head->fields[m->next - 1].id != HTTP_H_X_FORWARDED_FOR) {
            m->next--;
        }
        if (m->next == 0) {
            return false;
        }
        m->next--;
        m->rest = m->head->fields[m->next].value;
    }
}

void proxy_peer_walk(const struct proxy_peer *peer, const struct config *config,
                     const struct http_head *head, struct proxy_walk *walk_out)
{
    struct proxy_walk *w = walk_out;
    struct members members = { .head = head, .next = head->n };
    size_t counted = config->xff_num_trusted_hops;
    bool go_on = false;
    struct sv member = { 0 };

    w->n = 0;
    w->unclear = false;
    w->believed = proxy_peer_is_trusted(peer, config);
    go_on = w->believed;
    while (go_on && previous(&members, &member)) {
        struct proxy_hop *hop = NULL;

        w->unclear = w->n == PROXY_HOPS_MAX;
        if (w->unclear) {
            return;
        }
        hop = &w->hops[w->n++];
        *hop = (struct proxy_hop){ .text = member };
        w->unclear = !read_address(member, &hop->address);
        if (w->unclear) {
            return;
        }
        hop->trusted =
            counted != 0 ? w->n < counted : is_listed(&hop->address, &config->trusted_proxies);
        go_on = hop->trusted;
    }
}

/* ---- the request ------------------------------------------------------------------------------ */

static bool came_by_https(const struct http_head *head, bool believed, bool tls)
{
    struct sv value = http_head_value(head, HTTP_H_X_FORWARDED_PROTO);

    if (!believed || http_head_count(head, HTTP_H_X_FORWARDED_PROTO) != 1) {
        return tls;
    }
    return sv_ieq(value, SV("https")) || (tls && !sv_ieq(value, SV("http")));
}

/* Only what somebody vouches for: the client, the proxies after it, who connected. */
static struct sv forwarded_for(const struct proxy_walk *walk, struct sv connection,
                               struct arena *arena)
{
    CLEANUP(buf_deinit) struct buf line = { 0 };
    size_t i = 0;

    buf_init(&line, FORWARDED_MAX);
    for (i = walk->n; i > 0; i--) {
        char text[PROXY_ADDRESS_TEXT];

        proxy_address_text(&walk->hops[i - 1].address, text);
        buf_add_str(&line, line.n == 0 ? "" : ", ");
        buf_add_str(&line, text);
    }
    if (connection.n != 0) {
        buf_add_str(&line, line.n == 0 ? "" : ", ");
        buf_add_sv(&line, connection);
    }
    CHECK(line.err == ERR_OK);
    return arena_sv(arena, buf_sv(&line));
}

bool proxy_peer_visitor(const struct proxy_peer *peer, const struct config *config,
                        const struct http_head *head, bool tls, struct arena *arena,
                        struct proxy_visitor *visitor_out)
{
    struct sv connection = peer->connection.known ? sv_from(peer->text) : SV("unknown");
    struct proxy_walk walk;

    *visitor_out =
        (struct proxy_visitor){ .address = peer->connection, .text = connection, .https = tls };
    if (config->skip_xff_append) {
        connection = (struct sv){ 0 };
    }
    visitor_out->forwarded_for = connection;
    if (!proxy_peer_is_trusted(peer, config)) {
        return true;
    }
    proxy_peer_walk(peer, config, head, &walk);
    visitor_out->https = came_by_https(head, walk.believed, tls);
    if (walk.unclear) {
        visitor_out->address = (struct proxy_address){ .known = false };
        visitor_out->text = SV("unknown");
        visitor_out->forwarded_for = (struct sv){ 0 };
        visitor_out->unclear = walk.hops[walk.n - 1].address.known ? SV("too many addresses")
                                                                   : walk.hops[walk.n - 1].text;
        return false;
    }
    if (walk.n != 0) {
        char text[PROXY_ADDRESS_TEXT];

        visitor_out->address = walk.hops[walk.n - 1].address;
        proxy_address_text(&visitor_out->address, text);
        visitor_out->text = arena_sv(arena, sv_from(text));
        visitor_out->forwarded_for = forwarded_for(&walk, connection, arena);
    }
    return true;
}
