/* token: what a client from outside shows the databroker: `postern_` and base64url of
 * {version, key id, expiry, role, id} with HMAC-SHA-256 under KEYS_TOKEN. Immutable functions; any
 * thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum token_role {
    TOKEN_ROLE_NONE = 0,
    TOKEN_ROLE_SESSION_ADMIN, /* list and revoke sessions */
    TOKEN_ROLE_READER         /* read and follow records */
};

enum { TOKEN_ID_SIZE = 37, TOKEN_TEXT_MAX = 256 };

struct token {
    enum token_role role;
    int64_t expires_at_s;
    char id[TOKEN_ID_SIZE]; /* a UUID, for the logs */
};

/* Makes a token that lives ttl_s from now on and appends its text. */
MUST_CHECK enum err token_make(const struct keys *keys, enum token_role role, int64_t ttl_s,
                               struct buf *out);
/* ERR_CRYPTO: not ours; ERR_EXPIRED: over (60 s leeway). */
MUST_CHECK enum err token_verify(const struct keys *keys, struct sv text, struct token *token_out);
/* "session-admin" and back; ERR_INVALID, NULL. */
MUST_CHECK enum err token_role_parse(struct sv name, enum token_role *role_out);
const char *token_role_name(enum token_role role);
