/* authz_foreign: a check that somebody else's proxy asks for (envoy.service.auth.v3): the visitor's request as
 * they tell it becomes the same question that our own proxy asks, and the outcome the answer they know.
 * The route is found from host and path in the proxy's canonical form; a request with two readings is
 * refused, because it goes on as they have it. User's view: docs/ext-authz.md. Check thread. */
#pragma once

#include "authorize.pb-c.h"
#include "ext_authz.pb-c.h"

#include "authorize/check.h"
#include "authorize/front.h"
#include "common/arena.h"
#include "common/authz_headers.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/http/canon.h"
#include "common/http/head.h"
#include "common/rand.h"
#include "common/token_ask.h"

enum { AUTHZ_FOREIGN_FIELDS_MAX = 256, AUTHZ_FOREIGN_BYTES_MAX = 131072 };

struct authz_foreign {
    unsigned refs;
    struct arena arena; /* of all texts here */
    Postern__CheckRequest check;
    struct authz_headers headers; /* of check */
    struct http_field fields[AUTHZ_FOREIGN_FIELDS_MAX];
    struct http_head head; /* the visitor's, without fields of one connection */
    struct http_request req;
    char request_id[RAND_UUID_SIZE];
    bool upgrades;   /* it asks for another protocol: no navigation */
    bool by_token;   /* a program shows a token: it is sent nowhere to log in */
    struct sv token; /* of somebody else, that authenticate has to tell about first; "": none */
    bool has_login;
    const struct authz_front *front; /* until the rules change: for authz_foreign_new alone */
    struct sv cookie;                /* what is left of Cookie without ours; "": nothing */
    bool has_cookie;                 /* ours was in it */
    const char **remove;             /* names of fields that the application must not see */
    size_t n_remove;
    unsigned status;  /* refused before any policy was asked; 0: not */
    const char *code; /* then */
};

/* Reads it. ERR_INVALID: it tells of no HTTP request. */
MUST_CHECK enum err authz_foreign_new(const struct authz_front *front,
                                      const Envoy__Service__Auth__V3__CheckRequest *request,
                                      struct authz_foreign **foreign_out);
/* What token turned out to be worth. */
void authz_foreign_identified(struct authz_foreign *foreign, const struct token_answer *answer);
/* Before any policy is asked. code: constant. */
void authz_foreign_refuse(struct authz_foreign *foreign, unsigned status, const char *code);
struct authz_foreign *authz_foreign_ref(struct authz_foreign *foreign); /* NULL: NULL */
void authz_foreign_unref(struct authz_foreign **foreign);
/* Appends the packed CheckResponse. */
void authz_foreign_answer(struct authz_foreign *foreign, const struct authz_outcome *outcome,
                          struct buf *out);
