/* http/method: request methods (IANA registry). A method that is not here gets 501. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

/* clang-format off */
#define HTTP_METHODS(X) \
    X(GET) X(HEAD) X(POST) X(PUT) X(DELETE) X(CONNECT) X(OPTIONS) X(TRACE) X(PATCH) X(ACL) \
    X(BIND) X(CHECKIN) X(CHECKOUT) X(COPY) X(LABEL) X(LINK) X(LOCK) X(MERGE) X(MKACTIVITY) \
    X(MKCALENDAR) X(MKCOL) X(MOVE) X(ORDERPATCH) X(PROPFIND) X(PROPPATCH) X(PURGE) X(QUERY) \
    X(REBIND) X(REPORT) X(SEARCH) X(SUBSCRIBE) X(UNBIND) X(UNCHECKOUT) X(UNLINK) X(UNLOCK) \
    X(UNSUBSCRIBE) X(UPDATE)

enum http_method {
    HTTP_UNKNOWN = 0,
#define HTTP_METHOD_ENUM(m) HTTP_##m,
    HTTP_METHODS(HTTP_METHOD_ENUM)
#undef HTTP_METHOD_ENUM
    HTTP_METHOD_COUNT
};
/* clang-format on */

/* Case-sensitive (RFC 9110 §9.1); HTTP_UNKNOWN: not in the table. */
enum http_method http_method_id(struct sv text);
struct sv http_method_text(enum http_method method);
/* GET, HEAD, OPTIONS, TRACE and the reading methods of WebDAV. */
bool http_method_is_safe(enum http_method method);
