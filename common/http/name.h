/* http/name: header field names: the ones we know by number, and sets of names compared the way
 * the most careless application compares them. Pure functions; sets are immutable once filled and
 * may then be shared by threads. Source: RFC 9110 §5.1, §16.3; RFC 3875 §4.1.18 (why '_' is '-'). */
#pragma once

#include "common/base.h"
#include "common/sv.h"

/* X(enum suffix, canonical lower-case name, class). Classes: HTTP_C_* below. */
#define HTTP_NAMES(X)                                                                          \
    X(ACCEPT, "accept", 0)                                                                     \
    X(ACCEPT_CHARSET, "accept-charset", 0)                                                     \
    X(ACCEPT_ENCODING, "accept-encoding", 0)                                                   \
    X(ACCEPT_LANGUAGE, "accept-language", 0)                                                   \
    X(ACCEPT_RANGES, "accept-ranges", 0)                                                       \
    X(ACCESS_CONTROL_REQUEST_HEADERS, "access-control-request-headers", HTTP_C_SINGLE)         \
    X(ACCESS_CONTROL_REQUEST_METHOD, "access-control-request-method", HTTP_C_SINGLE)           \
    X(AGE, "age", HTTP_C_NO_TRAILER)                                                           \
    X(ALT_SVC, "alt-svc", 0)                                                                   \
    X(ALT_USED, "alt-used", 0)                                                                 \
    X(AUTHORIZATION, "authorization", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                       \
    X(CACHE_CONTROL, "cache-control", HTTP_C_NO_TRAILER)                                       \
    X(CONNECTION, "connection", HTTP_C_HOP | HTTP_C_NO_TRAILER)                                \
    X(CONTENT_DISPOSITION, "content-disposition", 0)                                           \
    X(CONTENT_ENCODING, "content-encoding", HTTP_C_NO_TRAILER)                                 \
    X(CONTENT_LENGTH, "content-length", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                     \
    X(CONTENT_RANGE, "content-range", HTTP_C_NO_TRAILER)                                       \
    X(CONTENT_SECURITY_POLICY, "content-security-policy", HTTP_C_NO_TRAILER)                   \
    X(CONTENT_TYPE, "content-type", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                         \
    X(COOKIE, "cookie", HTTP_C_NO_TRAILER)                                                     \
    X(DATE, "date", HTTP_C_NO_TRAILER)                                                         \
    X(ETAG, "etag", 0)                                                                         \
    X(EXPECT, "expect", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                                     \
    X(EXPIRES, "expires", HTTP_C_NO_TRAILER)                                                   \
    X(FORWARDED, "forwarded", HTTP_C_NO_TRAILER)                                               \
    X(FROM, "from", 0)                                                                         \
    X(HOST, "host", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                                         \
    X(HTTP2_SETTINGS, "http2-settings", HTTP_C_HOP | HTTP_C_NO_TRAILER)                        \
    X(IF_MATCH, "if-match", HTTP_C_NO_TRAILER)                                                 \
    X(IF_MODIFIED_SINCE, "if-modified-since", HTTP_C_NO_TRAILER)                               \
    X(IF_NONE_MATCH, "if-none-match", HTTP_C_NO_TRAILER)                                       \
    X(IF_RANGE, "if-range", HTTP_C_NO_TRAILER)                                                 \
    X(KEEP_ALIVE, "keep-alive", HTTP_C_HOP | HTTP_C_NO_TRAILER)                                \
    X(LAST_MODIFIED, "last-modified", 0)                                                       \
    X(LINK, "link", 0)                                                                         \
    X(LOCATION, "location", HTTP_C_NO_TRAILER)                                                 \
    X(MAX_FORWARDS, "max-forwards", HTTP_C_NO_TRAILER)                                         \
    X(ORIGIN, "origin", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                                     \
    X(PRAGMA, "pragma", HTTP_C_NO_TRAILER)                                                     \
    X(PRIORITY, "priority", 0)                                                                 \
    X(PROXY_AUTHENTICATE, "proxy-authenticate", HTTP_C_HOP | HTTP_C_NO_TRAILER)                \
    X(PROXY_AUTHORIZATION, "proxy-authorization", HTTP_C_HOP | HTTP_C_NO_TRAILER)              \
    X(PROXY_CONNECTION, "proxy-connection", HTTP_C_HOP | HTTP_C_NO_TRAILER)                    \
    X(PURPOSE, "purpose", 0)                                                                   \
    X(RANGE, "range", HTTP_C_NO_TRAILER)                                                       \
    X(REFERER, "referer", 0)                                                                   \
    X(RETRY_AFTER, "retry-after", HTTP_C_NO_TRAILER)                                           \
    X(SEC_FETCH_DEST, "sec-fetch-dest", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                     \
    X(SEC_FETCH_MODE, "sec-fetch-mode", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                     \
    X(SEC_FETCH_SITE, "sec-fetch-site", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                     \
    X(SEC_FETCH_USER, "sec-fetch-user", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)                     \
    X(SEC_PURPOSE, "sec-purpose", 0)                                                           \
    X(SEC_WEBSOCKET_ACCEPT, "sec-websocket-accept", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)         \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)               \
    X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol", HTTP_C_NO_TRAILER)                     \
    X(SEC_WEBSOCKET_VERSION, "sec-websocket-version", HTTP_C_SINGLE | HTTP_C_NO_TRAILER)       \
    X(SERVER, "server", 0)                                                                     \
    X(SET_COOKIE, "set-cookie", HTTP_C_NO_TRAILER)                                             \
    X(STRICT_TRANSPORT_SECURITY, "strict-transport-security", HTTP_C_NO_TRAILER)               \
    X(TE, "te", HTTP_C_HOP | HTTP_C_NO_TRAILER)                                                \
    X(TRAILER, "trailer", HTTP_C_HOP | HTTP_C_NO_TRAILER)                                      \
    X(TRANSFER_ENCODING, "transfer-encoding", HTTP_C_HOP | HTTP_C_SINGLE | HTTP_C_NO_TRAILER)  \
    X(UPGRADE, "upgrade", HTTP_C_HOP | HTTP_C_NO_TRAILER)                                      \
    X(UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests", 0)                               \
    X(USER_AGENT, "user-agent", 0)                                                             \
    X(VARY, "vary", HTTP_C_NO_TRAILER)                                                         \
    X(VIA, "via", 0)                                                                           \
    X(WWW_AUTHENTICATE, "www-authenticate", HTTP_C_NO_TRAILER)                                 \
    X(X_ENVOY_EXTERNAL_ADDRESS, "x-envoy-external-address", HTTP_C_NO_TRAILER)                 \
    X(X_FORWARDED_FOR, "x-forwarded-for", HTTP_C_NO_TRAILER)                                   \
    X(X_FORWARDED_HOST, "x-forwarded-host", HTTP_C_NO_TRAILER)                                 \
    X(X_FORWARDED_PORT, "x-forwarded-port", HTTP_C_NO_TRAILER)                                 \
    X(X_FORWARDED_PROTO, "x-forwarded-proto", HTTP_C_NO_TRAILER)                               \
    X(X_FRAME_OPTIONS, "x-frame-options", HTTP_C_NO_TRAILER)                                   \
    X(X_POMERIUM_AUTHORIZATION, "x-pomerium-authorization", HTTP_C_SINGLE | HTTP_C_NO_TRAILER) \
    X(X_POMERIUM_JWT_ASSERTION, "x-pomerium-jwt-assertion", HTTP_C_SINGLE | HTTP_C_NO_TRAILER) \
    X(X_REAL_IP, "x-real-ip", HTTP_C_NO_TRAILER)                                               \
    X(X_REQUEST_ID, "x-request-id", HTTP_C_NO_TRAILER)                                         \
    X(X_REQUESTED_WITH, "x-requested-with", 0)                                                 \
    X(X_XSS_PROTECTION, "x-xss-protection", 0)

/* clang-format off */
enum http_name {
    HTTP_H_OTHER = 0, /* a name without a number */
#define HTTP_NAME_ENUM(id, text, class) HTTP_H_##id,
    HTTP_NAMES(HTTP_NAME_ENUM)
#undef HTTP_NAME_ENUM
    HTTP_H_COUNT
};

/* clang-format on */

enum {
    HTTP_C_HOP = 1,       /* means this connection only; never forwarded (RFC 9110 §7.6.1) */
    HTTP_C_SINGLE = 2,    /* a second one in a request is refused: two readers pick differently */
    HTTP_C_NO_TRAILER = 4 /* framing, routing, authentication: refused in trailers (§6.5.1) */
};

/* The number of a name, any letter case. HTTP_H_OTHER: not in the table. */
enum http_name http_name_id(struct sv name);
struct sv http_name_text(enum http_name id); /* canonical text, "" for HTTP_H_OTHER */

extern const uint8_t http_name_classes[HTTP_H_COUNT];

/* HTTP_C_* bits; 0 for HTTP_H_OTHER. */
static inline unsigned http_name_class(enum http_name id)
{
    return (unsigned)id < HTTP_H_COUNT ? http_name_classes[id] : 0;
}

/* True for 1*tchar (RFC 9110 §5.6.2). */
bool http_is_token(struct sv s);
/* True for a field value: no control byte but HTAB, no CR, LF, NUL, no blank at either end. */
bool http_is_value(struct sv s);

/* Letter case apart and with every byte that is neither letter nor digit taken as '-': what CGI,
 * WSGI, PHP and others do to names, so X_Pomerium_Claim_Email is X-Pomerium-Claim-Email. */
bool http_name_eq_loose(struct sv a, struct sv b);

/* A set of names we speak for; members from outside are removed before ours are added. */
struct http_name_set;

struct http_name_set *http_name_set_new(void);
void http_name_set_free(struct http_name_set **set);
/* ERR_INVALID: not a token. ERR_LIMIT: more than HTTP_NAME_SET_MAX members. */
MUST_CHECK enum err http_name_set_add(struct http_name_set *set, struct sv name);
/* Every name that begins with prefix, e.g. "x-pomerium-". */
MUST_CHECK enum err http_name_set_add_prefix(struct http_name_set *set, struct sv prefix);
/* Loose comparison; a few nanoseconds for names that are not members. set may be NULL: false. */
bool http_name_set_has(const struct http_name_set *set, struct sv name);

enum { HTTP_NAME_SET_MAX = 1024 };

/* Numbers of names; HTTP_H_OTHER stands for all names without one. The zero value: none. */
struct http_name_bits {
    uint64_t words[HTTP_H_COUNT / 64 + 1];
};

static inline void http_name_bits_add(struct http_name_bits *bits, unsigned id)
{
    bits->words[id / 64] |= UINT64_C(1) << id % 64;
}

static inline bool http_name_bits_has(const struct http_name_bits *bits, unsigned id)
{
    return (bits->words[id / 64] >> id % 64 & 1U) != 0;
}

static inline void http_name_bits_join(struct http_name_bits *bits,
                                       const struct http_name_bits *more)
{
    for (size_t i = 0; i < sizeof(bits->words) / sizeof(bits->words[0]); i++) {
        bits->words[i] |= more->words[i];
    }
}

/* The members that have a number. set may be NULL: none. */
const struct http_name_bits *http_name_set_numbers(const struct http_name_set *set);
