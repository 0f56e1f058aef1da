/* authz_headers: the headers of a request that its route's policies ask for, as a check tells them. Pure; any
 * thread. */
#pragma once

#include "authorize.pb-c.h"

#include "common/authz_block.h"
#include "common/config/config.h"
#include "common/http/head.h"

/* As long as the check. */
struct authz_headers {
    Postern__RequestHeader v[AUTHZ_HEADERS_MAX];
    Postern__RequestHeader *p[AUTHZ_HEADERS_MAX];
};

/* route NULL: nothing is asked for. Texts are those of head and route. */
void authz_headers_add(const struct http_head *head, const struct config_route *route,
                       struct authz_headers *room, Postern__CheckRequest *check);
/* The same for those that others ask for: the audit's fields. */
void authz_headers_add_named(const struct http_head *head, const struct config_strings *names,
                             struct authz_headers *room, Postern__CheckRequest *check);
