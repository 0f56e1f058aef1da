/* http_credential: where a program shows who it is. A token of ours stands in one of
 *
 *   X-Pomerium-Authorization: TOKEN
 *   Authorization: Pomerium TOKEN
 *   Authorization: Bearer Pomerium-TOKEN
 *   Authorization: Basic base64(ANY-NAME:Pomerium-TOKEN)    git, docker, WebDAV: they know nothing else
 *   Authorization: Bearer TOKEN                             where the route says so (bearer_token_format)
 *
 * and never goes to an upstream. Every other Authorization is the application's. What a token is worth
 * is not decided here. Pure functions over hostile bytes; any thread. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/http/head.h"
#include "common/sv.h"

enum { HTTP_CREDENTIAL_MAX = 16384, HTTP_CREDENTIAL_BASIC_MAX = 8192 };

/* Whether a value of Authorization is for us. bearer: so is every Bearer. *token_out (may be NULL):
 * the token, which points into value or, where it had to be decoded, lies in arena. */
bool http_credential_read(struct sv value, bool bearer, struct arena *arena, struct sv *token_out);

struct http_credential {
    bool shown;      /* there is one, good or bad */
    bool differs;    /* there are two, and they are not the same: neither counts */
    struct sv token; /* "": empty, or too long */
};

struct http_credential http_credential_find(const struct http_head *head, bool bearer,
                                            struct arena *arena);
