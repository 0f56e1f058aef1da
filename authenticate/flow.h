/* authn_flow: what a login must remember between leaving for the provider (or the form) and coming
 * back, sealed so that it travels through the browser and nothing is kept here: any number of tabs,
 * any authenticate. And the one-time code that brings the session to the app's host. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/crypto/seal.h"
#include "common/sv.h"

enum {
    AUTHN_FLOW_LIFE_S = 600,
    AUTHN_FORM_LIFE_S = 3600,
    AUTHN_CODE_LIFE_S = 60,
    AUTHN_ATTEMPTS_MAX = 3,
    AUTHN_FLOW_BYTES_MAX = 24576
};

/* For which way the state was made: it is associated data, one never opens as another. */
enum authn_flow_use {
    AUTHN_FLOW_NONE = 0,
    AUTHN_FLOW_PROVIDER, /* state parameter */
    AUTHN_FLOW_FORM,     /* login form */
    AUTHN_FLOW_SIGN_OUT, /* confirmation form */
    AUTHN_FLOW_PROGRAM   /* whether a program gets the session */
};

struct authn_flow {
    struct sv redirect_uri; /* the original URL; checked when it came in by a signed link */
    struct sv binding;      /* hash of the browser's login cookie on the app's host; of a program:
                               of its verifier (RFC 7636, S256), or "" */
    struct sv program;  /* a program began: what its token will be bound to; "": a browser did */
    struct sv browser;  /* hash of the browser's cookie on the authenticate host */
    struct sv nonce;    /* PROVIDER */
    struct sv verifier; /* PROVIDER: PKCE */
    bool fresh;         /* the session that there is, is too old: the person logs in again */
    uint64_t attempt;   /* from 1 */
    int64_t issued_at_s;
};

MUST_CHECK enum err authn_flow_seal(struct sealer *sealer, enum authn_flow_use use,
                                    const struct authn_flow *flow, struct buf *out);
/* Texts live in arena. ERR_CRYPTO: not ours. Age is the caller's to judge. */
MUST_CHECK enum err authn_flow_open(struct sealer *sealer, enum authn_flow_use use, struct sv text,
                                    struct arena *arena, struct authn_flow *flow_out);

struct authn_code {
    struct sv id; /* random: its hash names the lease that makes the code single-use */
    struct sv session;
    uint64_t record_version;
    struct sv idp_id;
    struct sv redirect_uri;
    struct sv host; /* of redirect_uri, with the port where it shows one */
    struct sv binding;
    int64_t expires_at_s;         /* the code's */
    int64_t session_expires_at_s; /* the session's */
};

MUST_CHECK enum err authn_code_seal(struct sealer *sealer, const struct authn_code *code,
                                    struct buf *out);
/* ERR_CRYPTO: not ours; ERR_EXPIRED. */
MUST_CHECK enum err authn_code_open(struct sealer *sealer, struct sv text, int64_t now_s,
                                    struct arena *arena, struct authn_code *code_out);
