/* authn_provider: what an OpenID provider says, read strictly: discovery (OpenID Connect Discovery 1.0
 * §3), token response (RFC 6749 §5.1) and the claims of an ID token (OpenID Connect Core §3.1.3.7).
 * Pure functions over hostile bytes; any thread. */
#pragma once

#include <jansson.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/sv.h"

enum {
    AUTHN_PROVIDER_BYTES_MAX = 256 * 1024,
    AUTHN_SUBJECT_MAX = 255,
    AUTHN_LEEWAY_S = 60 /* for clocks that differ */
};

struct jose_keys;

struct authn_provider {
    struct sv issuer;
    struct sv authorization_endpoint;
    struct sv token_endpoint;
    struct sv jwks_uri;
    struct sv userinfo_endpoint;      /* "" none */
    struct sv introspection_endpoint; /* "" none (RFC 7662) */
    struct sv end_session_endpoint;   /* "" none */
    bool secret_in_body;              /* client_secret_post is all it takes */
    bool introspection_secret_in_body;
    bool tells_issuer; /* callbacks must carry iss (RFC 9207) */
};

/* Texts live in arena. issuer: what is configured; the document's must be equal, but for one slash at
 * the end. Endpoints are https, or http on loopback. ERR_INVALID, ERR_LIMIT; d says what. */
MUST_CHECK enum err authn_provider_parse(struct sv json, struct sv issuer, struct arena *arena,
                                         struct authn_provider *provider_out, struct diag *d);

struct authn_tokens {
    struct sv id_token;
    struct sv access_token;  /* "" none */
    struct sv refresh_token; /* "" none */
    int64_t expires_in_s;    /* 0: not told */
};

/* What comes for a code: ERR_INVALID without an ID token. */
MUST_CHECK enum err authn_tokens_parse(struct sv json, struct arena *arena,
                                       struct authn_tokens *tokens_out, struct diag *d);
/* What comes for a refresh token: the ID token may be missing (OpenID Connect Core §12.2), the access token
 * may not. */
MUST_CHECK enum err authn_tokens_parse_refreshed(struct sv json, struct arena *arena,
                                                 struct authn_tokens *tokens_out, struct diag *d);

enum authn_grant_fault {
    AUTHN_GRANT_LATER = 0, /* it may work another time */
    AUTHN_GRANT_OVER,      /* invalid_grant: this token is worth nothing (any more) */
    AUTHN_GRANT_CLIENT     /* it is us whom the provider does not take */
};

/* What an answer of the token endpoint that is not 200 means (RFC 6749 §5.2). */
enum authn_grant_fault authn_grant_fault(long status, struct sv body);

/* The claims of an ID token that keys verify; of what kind they are is for authn_id_check. *claims_out:
 * one reference. *new_keys_may_help_out: it failed, and keys that are not at hand may be why. ERR_INVALID,
 * ERR_UNSUPPORTED, ERR_NOT_FOUND (no such key), ERR_CRYPTO. */
MUST_CHECK enum err authn_id_open(const struct jose_keys *keys, struct sv token,
                                  json_t **claims_out, bool *new_keys_may_help_out, struct diag *d);

struct authn_id_expected {
    struct sv issuer;
    struct sv client_id;
    struct sv nonce;   /* of a login */
    struct sv subject; /* of a refreshed token, which needs no nonce: whom it must be about */
    int64_t now_s;
};

/* ERR_INVALID: a claim is missing or odd; ERR_DENIED: for somebody else (iss, aud, azp, nonce);
 * ERR_ABORTED: about somebody else than subject;
 * ERR_EXPIRED: over, or not yet valid: d names the difference in seconds. */
MUST_CHECK enum err authn_id_check(const json_t *claims, const struct authn_id_expected *expected,
                                   struct diag *d);

/* A token that a program shows. */
struct authn_bearer_expected {
    struct sv issuer;
    struct sv client_id;             /* an ID token's; "": audiences count */
    struct config_strings audiences; /* one of them */
    bool any_audience;               /* instead */
    bool opaque;                     /* its provider told of it, maybe without exp and iat */
    int64_t now_s;
};

/* As authn_id_check. A token that ends in more than AUTHN_BEARER_LIFE_MAX_S is ERR_INVALID: it could not
 * be told from one that was revoked for so long. One that is bound to a key (cnf, RFC 7800) is ERR_DENIED:
 * whoever shows it alone is not who it was made for. */
enum { AUTHN_BEARER_LIFE_MAX_S = 30 * 86400 };
MUST_CHECK enum err authn_bearer_check(const json_t *claims,
                                       const struct authn_bearer_expected *expected,
                                       struct diag *d);

/* What the provider tells of an access token that it alone can read, as the claims of a JWT access token
 * would say it, for authn_bearer_check: its answer to an introspection (RFC 7662 §2.2), or to userinfo,
 * which never says for whom the token is, nor until when. *claims_out: one reference. ERR_DENIED: it is
 * no good, or no access token; ERR_INVALID, ERR_LIMIT: no such answer. */
MUST_CHECK enum err authn_introspection_read(struct sv json, struct sv issuer, json_t **claims_out,
                                             struct diag *d);
MUST_CHECK enum err authn_userinfo_read(struct sv json, struct sv issuer, json_t **claims_out,
                                        struct diag *d);
/* Adds what userinfo tells beyond the ID token. ERR_DENIED: it is about another subject. */
MUST_CHECK enum err authn_userinfo_merge(json_t *claims, struct sv json, struct diag *d);
