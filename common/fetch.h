/* fetch: small HTTP requests to services that Postern depends on (the identity provider), by libcurl's
 * multi interface on the loop. Bounded in time and size, no redirects, certificates always verified,
 * http only to loopback. HTTPS_PROXY and NO_PROXY count, but never for loopback and .localhost.
 * Loop thread only. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/loop.h"
#include "common/sv.h"

enum {
    FETCH_HEADERS_MAX = 16,
    FETCH_VALIDATOR_MAX = 256, /* of an ETag, a Last-Modified */
    FETCH_BODY_MAX = 1024 * 1024,
    FETCH_TIMEOUT_MS = 10000,
    FETCH_CONNECT_MS = 5000
};

struct fetcher;
struct fetch;

/* ca_file: PEM bundle to verify servers with instead of the system's; NULL: the system's. */
struct fetcher *fetcher_new(struct loop *loop, const char *ca_file);
/* How many fetches have a connection at once, 64 if not set; the others wait, and their time runs. */
void fetcher_set_max(struct fetcher *fetcher, long connections);
/* Open fetches go on to their end; what they share goes with the last of them. */
void fetcher_free(struct fetcher **fetcher);

/* A server of the caller's choice in place of the one that the URL names: for asking one of several how
 * it is. No proxy, plain http to anywhere, a connection of its own. */
struct fetch_via {
    const char *address;    /* "10.0.0.1:80", "[2001:db8::1]:80"; NULL: socket */
    const char *socket;     /* absolute name */
    struct ssl_ctx_st *tls; /* its CAs and client certificate count; NULL: the system's */
    bool verify;
    bool http2;       /* from the first byte where there is no TLS */
    const char *host; /* Host or :authority, where it is not the URL's; may be NULL */
    const char *type; /* Content-Type of the body, or NULL: form */
};

/* Trust and certificate of one request, by files; NULL: the fetcher's, none. Private addresses are fine,
 * but none of this link, where clouds keep the credentials of their machines: refused. */
struct fetch_tls {
    const char *ca_file;
    const char *cert_file; /* PEM, shown to the server */
    const char *key_file;
    bool skip_verify;
};

struct fetch_request {
    const char *url;             /* https://…, or http:// with a loopback host */
    struct sv body;              /* makes it a POST; { NULL, 0 }: a GET */
    const char *authorization;   /* value of Authorization, or NULL; wiped after use */
    const char *cookie;          /* value of Cookie, or NULL; wiped after use */
    const char *type;            /* Content-Type of the body, or NULL: form */
    const char *const *headers;  /* more, "Name: value", to a NULL; NULL: none; wiped after use */
    int64_t timeout_ms;          /* 0: FETCH_TIMEOUT_MS */
    const struct fetch_via *via; /* NULL: the URL says where; read before fetch_start returns */
    const struct fetch_tls *tls; /* NULL: as the fetcher; not together with via */
    const char *accept;          /* NULL: application/json */
    size_t max_bytes;            /* of the answer's body; 0: FETCH_BODY_MAX */
};

struct fetch_answer {
    enum err err;    /* ERR_OK: an answer of any status came whole; ERR_TIMEOUT, ERR_LIMIT (body),
                         ERR_CRYPTO (certificate), ERR_UNAVAILABLE, ERR_INVALID (url) */
    long status;     /* 0 without an answer */
    int grpc_status; /* of the head or the trailers; -1: none */
    struct sv body;  /* valid until the callback returns, as what follows */
    struct sv type;  /* Content-Type; "": not told */
    struct sv etag;  /* as it is sent back; "": none, or a long one */
    struct sv last_modified;
    bool is_framed;   /* the end of the body was told: a cut off one would be seen */
    const char *text; /* why there is none, for logs and diag; "" */
};

typedef void (*fetch_done_fn)(void *arg, const struct fetch_answer *answer);

/* done is called exactly once, later, unless the fetch is cancelled before. */
struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_request *request,
                          fetch_done_fn done, void *arg);
/* *fetch becomes NULL; NULL is fine. Not from within done. */
void fetch_cancel(struct fetch **fetch);

/* "Name=value,…" of a setting that was checked, to "Name: value" each with its NUL in room, which the
 * caller wipes, and a NULL behind the last. */
void fetch_headers(struct sv text, struct buf *room, const char *out[FETCH_HEADERS_MAX + 1]);
