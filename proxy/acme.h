/* proxy_acme: the open challenges of an ACME order, answered by every proxy that shares autocert_dir:
 * HTTP-01 (RFC 8555 §8.3) on plain connections, TLS-ALPN-01 (RFC 8737) in handshakes.
 * postern-acme puts them into challenges/ and takes them out again; a job of the main thread looks
 * there and hands each worker an immutable, refcounted table. What is not in the table is not
 * answered: there is no way from a request to a file. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/loop.h"
#include "common/sv.h"

struct proxy_acme;       /* the table; any thread */
struct proxy_acme_watch; /* its source; main thread */

/* postern-acme gives the proxies 2 s before it tells the server to come. */
enum { PROXY_ACME_LOOK_MS = 500, PROXY_ACME_OPEN_MAX = 256 };

/* The challenges that are open have changed; acme is borrowed. */
typedef void (*proxy_acme_fn)(struct proxy_acme *acme, void *arg);

struct proxy_acme_watch *proxy_acme_watch_new(struct loop *loop, proxy_acme_fn changed, void *arg);
void proxy_acme_watch_free(struct proxy_acme_watch **watch);
/* The folder to look at from now on, autocert_dir; empty: none, and every challenge is closed. */
void proxy_acme_watch_set(struct proxy_acme_watch *watch, struct sv folder);

/* Reads folder once; blocks. Never NULL: what cannot be read is not there. */
struct proxy_acme *proxy_acme_read(struct sv folder);
struct proxy_acme *proxy_acme_ref(struct proxy_acme *acme);
void proxy_acme_unref(struct proxy_acme **acme);

/* The key authorization to answer a path with; { NULL, 0 }: it is no open challenge. acme may be
 * NULL. Lives as long as acme. */
struct sv proxy_acme_answer(const struct proxy_acme *acme, struct sv path);

/* ---- TLS ---- */

/* For the listener's contexts: a client hello that offers acme-tls/1 gets the challenge's certificate
 * for the name it asks for, or no handshake. */
void proxy_acme_listen(SSL_CTX *ctx);
/* slot: where the owner of ssl keeps the table in force (NULL in it: none); outlives ssl. */
void proxy_acme_attach(SSL *ssl, struct proxy_acme *const *slot);
/* True after a handshake for a challenge: nothing may be served on the connection. */
bool proxy_acme_was_challenge(const SSL *ssl);
