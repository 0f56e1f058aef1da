/* tunnel: one connection to a proxy that became a tunnel: TLS, CONNECT, bytes both ways. Blocking; one
 * thread each. What goes wrong is one sentence in a diag. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

enum { CLI_TUNNEL_TEXT_MAX = 300 };

/* Where to, and by which way; the same for all tunnels of one command. */
struct cli_tunnel_way {
    SSL_CTX *tls;
    char host[CLI_TUNNEL_TEXT_MAX];      /* the proxy's name, IPv6 in brackets */
    uint16_t port;                       /* the proxy's */
    char authority[CLI_TUNNEL_TEXT_MAX]; /* host:port that CONNECT names */
};

/* dest: host:port or tcp+https://proxy[:port]/host:port; proxy: its URL, NULL: none was given.
 * ERR_INVALID. tls is left alone. */
MUST_CHECK enum err cli_tunnel_way(const char *dest, const char *proxy, struct cli_tunnel_way *way,
                                   struct diag *d);

/* PEM files; each may be NULL. */
struct cli_tunnel_files {
    const char *ca;   /* in place of the system's authorities */
    const char *cert; /* ours, for proxies that ask for one, with its chain */
    const char *key;
};

/* Sets way->tls, which the caller frees. ERR_IO, ERR_CRYPTO. */
MUST_CHECK enum err cli_tunnel_trust(struct cli_tunnel_way *way,
                                     const struct cli_tunnel_files *files, struct diag *d);
/* "https://host[:port]" of the proxy. */
void cli_tunnel_proxy_url(const struct cli_tunnel_way *way, struct buf *out);

struct cli_tunnel;

/* ERR_DENIED: the proxy wants another login. ERR_UNAVAILABLE, ERR_CRYPTO, ERR_INVALID: d says why. */
MUST_CHECK enum err cli_tunnel_open(const struct cli_tunnel_way *way, const char *token,
                                    struct cli_tunnel **tunnel_out, struct diag *d);
/* Until both directions have ended; in and out (which may be the same) are closed. ERR_IO: it was cut:
 * what came is not all. */
enum err cli_tunnel_run(struct cli_tunnel *tunnel, int in, int out);
void cli_tunnel_free(struct cli_tunnel **tunnel);
