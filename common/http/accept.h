/* http/accept: who is asking: a person who can follow a redirect to a login page, or a program
 * that needs a status it can read. Rules, in order (user-facing table in docs/http.md):
 *   Content-Type application/grpc             gRPC
 *   Upgrade, OPTIONS, X-Requested-With, prefetch    API
 *   Sec-Fetch-Mode                            navigation only for "navigate" with a document-like
 *                                             Sec-Fetch-Dest, else API
 *   Accept                                    navigation when it names text/html (or xhtml) with
 *                                             q > 0 and no lower than application/json, for GET,
 *                                             HEAD and POST; else API
 * Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/http/head.h"

enum http_client { HTTP_CLIENT_API = 0, HTTP_CLIENT_NAVIGATION, HTTP_CLIENT_GRPC };

enum http_client http_accept_client(const struct http_head *head);

enum http_media {
    HTTP_MEDIA_JSON = 0,
    HTTP_MEDIA_HTML,
    HTTP_MEDIA_GRPC,
    HTTP_MEDIA_GRPC_WEB,
    HTTP_MEDIA_GRPC_WEB_TEXT,
    HTTP_MEDIA_CONNECT, /* unary calls */
    HTTP_MEDIA_CONNECT_STREAM,
    HTTP_MEDIA_CONNECT_STREAM_JSON,
    HTTP_MEDIA_KUBERNETES, /* kubectl and its kin, by their user agent */
    HTTP_MEDIA_MCP,        /* JSON-RPC of the Model Context Protocol */
    HTTP_MEDIA_TEXT
};

/* For pages of our own (errors): HTML where the client ranks text/html over application/json,
 * JSON where not, also without Accept; text where only that is named; the form of their own protocol
 * for those who speak one. */
enum http_media http_accept_media(const struct http_head *head);
/* Quality of type/subtype in an Accept value, 0 to 1000; the most specific range counts
 * (RFC 9110 §12.5.1). An empty value gives 1000. named_out (may be NULL): the exact type was
 * named, not a wildcard. */
unsigned http_accept_quality(struct sv accept, struct sv type, bool *named_out);
