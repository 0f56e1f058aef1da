/* proxy_tls: the public listener's TLS: one context a snapshot, whatever the number of certificates.
 * Those for a connection are found by its server name (SNI) in a hash: exact name, then *.parent,
 * then the first of the list. A name may have one of each kind of key: the client's signature
 * algorithms choose. Where client certificates are asked for nothing is resumed, so that
 * no ticket stands for a certificate; else tickets (ticket.h) resume TLS 1.3.
 * The main thread builds, any thread uses. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "proxy/snapshot.h"

/* Fills tls and certs; trusts are there. ERR_INVALID, ERR_CRYPTO with the reason in d. */
MUST_CHECK enum err proxy_tls_build(struct proxy_snapshot *snapshot, struct diag *d);
void proxy_tls_drop(struct proxy_snapshot *snapshot);
/* Whether a request for host (lower case, no port) belongs on the connection of ssl: the name that
 * it was opened for would lead to the same certificate and ask for the same client certificates. If
 * not, 421 (RFC 9110 15.5.20): the client comes again on a connection of its own. No allocation. */
bool proxy_tls_serves(const struct proxy_snapshot *snapshot, const SSL *ssl, struct sv host);
/* Whether ssl was opened before client certificates were asked for: it cannot show one any more, and
 * 421 sends the client to a new connection. */
bool proxy_tls_is_stale(const struct proxy_snapshot *snapshot, const SSL *ssl);
/* A handshake failed: says so in the log, seldom enough. peer: who. */
void proxy_tls_failed(const struct proxy_snapshot *snapshot, const SSL *ssl, const char *peer);
