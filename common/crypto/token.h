/* token: what a client from outside shows: `postern_` and base64url of {version, key id, expiry, role, id}
 * with HMAC-SHA-256. Tokens for gRPC are made with KEYS_TOKEN, those of service accounts, for
 * routes, with KEYS_SERVICE_ACCOUNT: whatever a caller forgets to ask, one is never the other. Immutable
 * functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum token_role {
    TOKEN_ROLE_NONE = 0,
    TOKEN_ROLE_SESSION_ADMIN,    /* list and revoke sessions */
    TOKEN_ROLE_READER,           /* read and follow records */
    TOKEN_ROLE_SERVICE_ACCOUNT,  /* id names the account's record; what it may is up to policies */
    TOKEN_ROLE_CHECKER,          /* ask authorize about requests that others forward */
    TOKEN_ROLE_RECORD_WRITER,    /* read and write external data */
    TOKEN_ROLE_DIRECTORY_WRITER, /* read and write users and groups of directories */
    TOKEN_ROLE_CONFIG_WRITER     /* read and write configuration */
};

enum { TOKEN_ID_SIZE = 37, TOKEN_TEXT_MAX = 256, TOKEN_TTL_MAX_S = 10 * 366 * 86400 };

/* A check names a service account by this and its id where others have a session: no session's id
 * begins so. */
#define TOKEN_ACCOUNT "service-account/"
/* So begin the ids of sessions that were made of others' tokens. */
#define TOKEN_SESSION "token/"

struct token {
    enum token_role role;
    int64_t expires_at_s;
    char id[TOKEN_ID_SIZE]; /* a UUID */
};

/* Makes a token that lives ttl_s from now on and appends its text; *made_out (may be NULL) is what it
 * says. */
MUST_CHECK enum err token_make(const struct keys *keys, enum token_role role, int64_t ttl_s,
                               struct token *made_out, struct buf *out);
/* ERR_CRYPTO: not ours; ERR_EXPIRED: over (60 s leeway). */
MUST_CHECK enum err token_verify(const struct keys *keys, struct sv text, struct token *token_out);
/* "session-admin" and back; ERR_INVALID, NULL. Not of service accounts. */
MUST_CHECK enum err token_role_parse(struct sv name, enum token_role *role_out);
const char *token_role_name(enum token_role role);
