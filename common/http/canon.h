/* http/canon: the canonical request: what router, policy, log and forwarder all use (DESIGN 3.2).
 * The path has one reading: percent-encoded unreserved characters decoded, hexadecimal digits in
 * upper case, dot segments removed, slashes merged; what two servers could read differently is
 * refused. `forward` is that very path, so the upstream gets what the policy judged, byte for
 * byte; for a request that was canonical already (nearly all) it is the original target's bytes
 * and nothing is allocated. Property: canon(forward) == itself. Thread: the request's. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/http/head.h"
#include "common/http/url.h"
#include "common/sv.h"

enum http_escaped_slashes { /* path_with_escaped_slashes_action; %2F and %5C */
                            HTTP_SLASH_REJECT = 0,
                            HTTP_SLASH_KEEP, /* an ordinary character of a segment, kept as %2F and %5C */
                            HTTP_SLASH_UNESCAPE_REDIRECT, /* request.redirect is set: answer 308 to forward */
                            HTTP_SLASH_UNESCAPE_FORWARD
};

/* The zero value is the strict default. */
struct http_canon_rules {
    bool keep_dot_segments;   /* normalize_path: false; such paths are then refused, not resolved */
    bool keep_double_slashes; /* merge_slashes: false */
    enum http_escaped_slashes escaped_slashes;
    bool keep_double_encoding; /* do not refuse %25 in front of what reads as an escape */
    bool keep_invalid_utf8;    /* do not refuse paths whose bytes are not UTF-8 */
};

struct http_request {
    enum http_method method;
    struct sv method_text;
    struct sv authority; /* host[:port], lower case, as canonical as host */
    struct sv host;      /* lower case, no final dot, IPv6 in brackets: the routing key */
    uint16_t port;       /* 0: none was given */
    enum http_form form;
    struct sv target;  /* as received */
    struct sv path;    /* canonical, ASCII; "*" for asterisk form, "" for CONNECT */
    struct sv decoded; /* path with its escapes decoded, for policies and people; kept escaped
                          slashes stay %2F and %5C, so that it splits like path */
    struct sv query;   /* behind '?', as received */
    bool has_query;    /* "/a?" has an empty query */
    struct sv forward; /* request target for the upstream: path[?query]; host:port for CONNECT */
    bool changed;      /* forward differs from target */
    bool redirect;     /* HTTP_SLASH_UNESCAPE_REDIRECT found something to unescape */
};

/* From a head that is complete (HTTP/1 or sealed HTTP/2). Results point into the head's bytes and
 * arena. HTTP_FAULT_NONE, or why it is refused (all 400). */
MUST_CHECK enum http_fault http_canon_request(const struct http_head *head,
                                              const struct http_canon_rules *rules,
                                              struct arena *arena, struct http_request *req_out);
/* Another reading of its path, canonical too: decoded and forward follow. */
void http_canon_set_path(struct http_request *req, struct sv path, struct arena *arena);
/* The path alone, for configured prefixes and paths of other origin. raw begins with '/'.
 * *redirect_out may be NULL. */
MUST_CHECK enum http_fault http_canon_path(struct sv raw, const struct http_canon_rules *rules,
                                           struct arena *arena, struct sv *path_out,
                                           bool *unescaped_out);
/* Whether text is a path, or a part of one, as http_request.decoded spells it: nothing is escaped there
 * but slashes, as %2F and %5C. A rule with another escape in it would never fit what it is about. */
bool http_canon_is_decoded(struct sv text);
/* Decodes a canonical path as in http_request.decoded; path itself where nothing is escaped. */
struct sv http_canon_decode(struct sv path, struct arena *arena);
/* Routes and policies match `decoded`: "/%40admin" must meet the route "/@admin", as it does at the
 * upstream. Rewrites then cut `path`: the number of its bytes that the first decoded_n bytes of the
 * decoded path stand for. */
size_t http_canon_encoded_len(struct sv path, size_t decoded_n);
/* A decoded path as servers read it that cut ";parameters" off every segment, and skip those that were
 * nothing else: "/;/admin" is "/admin" there. out: room for path.n bytes. */
struct sv http_canon_without_params(struct sv path, char *out);
