/* proxy_ticket: session tickets (RFC 8446 4.6.1) whose keys follow from the shared secret and the
 * time: every proxy of one shared secret resumes what another began, without telling each other
 * anything, and nobody has to rotate a key.
 *
 *   key name (16)   "PT1" | id of the secret | slice, 8 bytes | 0, 4 bytes
 *   keys            HKDF-Expand(ticket key of the secret, key name): AES-256-CBC, HMAC-SHA-256
 *   slice           PROXY_TICKET_SLICE_S of wall time; the current one makes tickets, its two
 *                   neighbours are taken too: the last one, and the next of a clock that is ahead
 *
 * Only TLS 1.3: its resumption does a Diffie-Hellman of its own, so the shared secret, if it leaks,
 * opens no recorded conversation. A TLS 1.2 ticket would carry the keys themselves.
 * Any thread; each remembers the keys that it derived last. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/crypto/keys.h"

enum { PROXY_TICKET_SLICE_S = 4 * 3600, PROXY_TICKET_LIFE_S = PROXY_TICKET_SLICE_S };

/* Takes the ticket keys of the secrets into ctx, once. */
void proxy_ticket_use(SSL_CTX *ctx, const struct keys *keys);
