/* What the tests about clients' addresses have in common: a configuration, a socket's peer, a request. */
#pragma once

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/un.h>

#include "proxy/peer.h"
#include "test/support/cmocka.h"

/* What every proxy needs. */
#define PEER_SETTINGS                                                  \
    "insecure_server: true\n"                                          \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"    \
    "authenticate_internal_service_url: unix:/run/authenticate.sock\n" \
    "authenticate_grpc_url: unix:/run/authenticate-grpc.sock\n"        \
    "authorize_service_url: unix:/run/authorize.sock\n"                \
    "databroker_service_url: unix:/run/databroker.sock\n"

/* With more settings; config_unref it. */
static inline struct config *peer_config(const char *settings)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    char text[2048];

    (void)snprintf(text, sizeof(text), "%s%s", PEER_SETTINGS, settings);
    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    return config;
}

/* address: IPv4 or IPv6; anything else is a unix socket. */
static inline struct proxy_peer peer_from(const char *address)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(4711) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(4711) };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    const struct sockaddr *sa = (const struct sockaddr *)&un;
    struct proxy_peer peer;

    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
        sa = (const struct sockaddr *)&v4;
    } else if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1) {
        sa = (const struct sockaddr *)&v6;
    }
    proxy_peer_init(&peer, sa);
    return peer;
}

/* room holds the request as long as head is used; lines: header lines, each with its CRLF. */
static inline void peer_request(const char *lines, char room[8192], struct http_head *head,
                                struct http_field fields[64])
{
    static const struct http_rules rules = { .underscores = HTTP_UNDERSCORE_ALLOW };

    (void)snprintf(room, 8192, "GET / HTTP/1.1\r\nHost: a.example.com\r\n%s\r\n", lines);
    http_head_init(head, HTTP_REQUEST, &rules, fields, 64);
    assert_int_equal(http_head_parse(head, sv_from(room)), HTTP_DONE);
}
