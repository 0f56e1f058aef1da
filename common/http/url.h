/* http/url: authorities and absolute URLs, strict (RFC 3986 without its repairs, plus WHATWG's
 * rule that a host ending in a number is an IPv4 address). One reading, or refused: no user
 * information, backslash, blank, control byte, raw non-ASCII, empty port. International names come
 * in their xn-- form. Pure functions; results point into the input or the given storage. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

enum http_host_kind { HTTP_HOST_NONE = 0, HTTP_HOST_NAME, HTTP_HOST_IPV4, HTTP_HOST_IPV6 };

enum { HTTP_HOST_MAX = 255 };

struct http_authority {
    enum http_host_kind kind;
    struct sv host; /* as in the text, IPv6 with its brackets; not yet lower-cased */
    uint16_t port;  /* 0: none was given */
};

/* host[:port]. ERR_INVALID. */
MUST_CHECK enum err http_authority_parse(struct sv text, struct http_authority *auth_out);
/* Writes the one spelling of the host: lower case, no final dot, IPv6 as RFC 5952 in brackets.
 * Returns text itself where it is that spelling already, else uses out. ERR_INVALID: not a host. */
MUST_CHECK enum err http_host_canonical(struct sv host, char out[HTTP_HOST_MAX + 1],
                                        struct sv *host_out);
/* The same for a host that http_authority_parse has looked at. ERR_INVALID: it refused it. */
MUST_CHECK enum err http_authority_host(const struct http_authority *auth,
                                        char out[HTTP_HOST_MAX + 1], struct sv *host_out);

enum http_scheme { HTTP_SCHEME_NONE = 0, HTTP_SCHEME_HTTP, HTTP_SCHEME_HTTPS, HTTP_SCHEME_OTHER };

struct http_url {
    enum http_scheme scheme;
    struct sv scheme_text; /* as written */
    enum http_host_kind host_kind;
    struct sv host; /* canonical; IPv6 in brackets */
    uint16_t port;  /* given, or the scheme's; 0 for HTTP_SCHEME_OTHER without one */
    bool port_given;
    struct sv path;     /* as written; "" or begins with '/' */
    struct sv query;    /* behind '?', as written */
    struct sv fragment; /* behind '#' */
    bool has_query;
    bool has_fragment;
    char host_text[HTTP_HOST_MAX + 1]; /* storage of host where the input was not canonical */
};

enum { HTTP_URL_MAX = 8192 };

/* scheme://host[:port][/path][?query][#fragment]; schemes are any RFC 3986 scheme, so callers test
 * url->scheme. A percent sign in the path must begin an escape; queries are opaque. *url must stay in place
 * (host may point into it): copy with http_url_copy. ERR_INVALID, ERR_LIMIT (HTTP_URL_MAX). */
MUST_CHECK enum err http_url_parse(struct sv text, struct http_url *url, struct diag *d);
/* Copies with all texts in arena. */
void http_url_copy(const struct http_url *from, struct arena *arena, struct http_url *to);
/* Appends scheme://host[:port], without a default port: an origin (RFC 6454 §6.2). */
void http_url_add_origin(struct buf *b, const struct http_url *url);
/* Appends the whole URL in its canonical spelling of scheme, host and port; path at least "/". */
void http_url_add(struct buf *b, const struct http_url *url);
/* http:// on this very machine, as programs listen for the browser's return (RFC 8252 §7.3):
 * 127.0.0.1, [::1] or localhost, with a port of its own and no fragment. */
bool http_url_is_loopback(const struct http_url *url);
/* Same scheme, host and port. */
bool http_url_same_origin(const struct http_url *a, const struct http_url *b);

/* Where a browser may be sent after login or logout: an absolute http(s) URL with exactly a host
 * (and port, where the set names one) of the allowed set; never a prefix, suffix or pattern. */
struct http_url_set;

struct http_url_set *http_url_set_new(void);
void http_url_set_free(struct http_url_set **set);
/* "host" (default ports only) or "host:port". ERR_INVALID. */
MUST_CHECK enum err http_url_set_add(struct http_url_set *set, struct sv authority);
/* Parses and tests in one; ERR_INVALID: not one clear URL; ERR_DENIED: not in the set, or plain
 * http where https_only. url may be NULL. */
MUST_CHECK enum err http_url_redirect_check(const struct http_url_set *set, struct sv text,
                                            bool https_only, struct http_url *url);
/* A target on the same host, safe in Location: begins with '/', and its path holds no "//", no
 * backslash and nothing that must be encoded. */
bool http_url_is_local_path(struct sv text);
