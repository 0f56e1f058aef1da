/* rpc_identity: who a program is among the others. The internal CA's key follows from the shared
 * secret, so every program that holds the secret makes the same CA, trusts it and issues itself a
 * certificate for its role that lives a day:
 *   URI SAN  spiffe://postern/<role>     what a server reads the caller's role from
 *   DNS SAN  <role>.postern.internal     what a client checks the server by
 * During rotation the CAs of both secrets are trusted, the first one issues. Any thread. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum rpc_role {
    RPC_NOBODY = 0,
    RPC_PROXY,
    RPC_AUTHORIZE,
    RPC_AUTHENTICATE,
    RPC_DATABROKER,
    RPC_CLI,
    RPC_TOKEN_SESSION_ADMIN, /* shown by a token, not a certificate */
    RPC_TOKEN_READER,
    RPC_TOKEN_CHECKER,
    RPC_TOKEN_RECORD_WRITER,
    RPC_TOKEN_DIRECTORY_WRITER,
    RPC_TOKEN_CONFIG_WRITER
};

enum { RPC_CERT_LIFE_S = 86400, RPC_CERT_RENEW_S = 43200 };

const char *rpc_role_name(enum rpc_role role); /* "proxy" …; "nobody" */
/* The role behind spiffe://postern/<role>; RPC_NOBODY for anything else. Never a token's role. */
enum rpc_role rpc_role_of_spiffe(struct sv uri);

struct rpc_identity;

/* keys outlive the identity. */
struct rpc_identity *rpc_identity_new(const struct keys *keys, enum rpc_role role);
void rpc_identity_free(struct rpc_identity **identity);
const struct keys *rpc_identity_keys(const struct rpc_identity *identity);
enum rpc_role rpc_identity_role(const struct rpc_identity *identity);
/* PEM of the trusted CAs; borrowed. This is what a foreign client needs to know us. */
const char *rpc_identity_ca_pem(const struct rpc_identity *identity);
/* Issues a fresh certificate and key, PEM; the caller frees both with mem_free and wipes the key. */
void rpc_identity_issue(const struct rpc_identity *identity, int64_t life_s, char **cert_pem_out,
                        char **key_pem_out);
/* Whether a certificate made at that time (wall clock; 0: none yet) should be replaced: half of its
 * life is over, or the clock was set back to before it. */
bool rpc_identity_due(int64_t issued_s);
/* A client context for our own HTTP/2 client: TLS 1.2 or later, our certificate, ALPN h2, the
 * server's chain verified. The caller frees it with SSL_CTX_free and makes a new one when
 * rpc_identity_due. Per connection call rpc_identity_expect before the handshake. */
SSL_CTX *rpc_identity_client_ctx(const struct rpc_identity *identity);
void rpc_identity_expect(SSL *ssl, enum rpc_role server);
