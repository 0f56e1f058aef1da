/* rpc_proof: who a program is on a unix socket, where there is no TLS: the kernel already keeps both
 * ends apart from everybody but the socket's owner. A proof says "I hold the shared secret and call
 * the server of that role in this one of mine": base64url of
 *   0x01 | key id | caller's role | server's role | end (8, big-endian) | HMAC-SHA-256 (32)
 * under KEYS_PROOF, good for RPC_PROOF_LIFE_S. It travels as metadata `authorization: Postern …`.
 * And whether a socket is where nobody else could have put one. Any thread. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/rpc/identity.h"
#include "common/sv.h"

enum { RPC_PROOF_LIFE_S = 3600, RPC_PROOF_SIZE = 80, RPC_UNIX_PATH_SIZE = 108 };

#define RPC_PROOF_SCHEME "Postern "

/* Writes scheme and proof with a NUL: the value of `authorization`. */
void rpc_proof_make(const struct rpc_identity *caller, enum rpc_role server,
                    char out[RPC_PROOF_SIZE]);
/* The role that text (with its scheme) proves to this server; RPC_NOBODY: none. */
enum rpc_role rpc_proof_check(const struct rpc_identity *server, struct sv text);

/* "unix:/path": the path behind it; else nothing. */
struct sv rpc_unix_path(struct sv address);
/* The socket beside the one at path where a server's direct method is served (server.h). False: the
 * name would be too long, there is none. */
MUST_CHECK bool rpc_direct_path(struct sv path, char out[RPC_UNIX_PATH_SIZE]);
/* A folder that others may write to could hold anybody's socket: it and every folder above must be
 * ours or root's and not be writable for others (above the last one, the sticky bit will do), and a
 * socket that is there already must be ours or root's. ERR_DENIED, ERR_IO (no such folder): d says
 * why. */
MUST_CHECK enum err rpc_unix_check(struct sv path, struct diag *d);
