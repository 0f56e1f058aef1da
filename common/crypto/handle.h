/* handle: what the browser holds of a session: a sealed reference, bound to one host, without any
 * token or name in it. It says which session to look up, not that it still lives. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/seal.h"
#include "common/sv.h"

enum { HANDLE_SESSION_MAX = 64, HANDLE_IDP_MAX = 32, HANDLE_TEXT_MAX = 256 };

struct handle {
    char session[HANDLE_SESSION_MAX + 1]; /* session id */
    char idp_id[HANDLE_IDP_MAX + 1];
    uint64_t record_version; /* of the session record when the handle was made */
    int64_t issued_at_s;
};

/* A handle for a tunnel is bound to this and the host:port that CONNECT names: no cookie of a web
 * application opens one, and the other way round. */
#define HANDLE_TCP "tcp:"
/* A program's one-time code is for this and what its token will be bound to: no browser's callback
 * redeems it, and the other way round. */
#define HANDLE_PROGRAM "program:"

/* host: lower case, with the port only where the URL shows one; it is associated data.
 * The sealer's purpose is KEYS_HANDLE. ERR_LIMIT: an id is too long. */
MUST_CHECK enum err handle_make(struct sealer *sealer, const struct handle *handle, struct sv host,
                                struct buf *out);
/* ERR_CRYPTO: not ours, changed, or another host's. */
MUST_CHECK enum err handle_open(struct sealer *sealer, struct sv text, struct sv host,
                                struct handle *handle_out);
