/* authz_front: what it takes to read a visitor's request as the proxy does: the routing table, the canonical
 * form, our cookies and names, the key of session handles (KEYS_HANDLE). Made with the rules; the check
 * thread's from then on. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/seal.h"
#include "common/http/canon.h"
#include "common/http/cookie.h"
#include "common/http/head.h"
#include "common/http/name.h"
#include "common/route/table.h"

struct authz_front {
    const struct config *config;
    struct route_table *table;
    struct http_canon_rules canon;
    struct http_rules head;
    struct http_session_cookies cookies;
    struct http_name_set *ours; /* request fields that nobody may bring along */
    struct sealer *handles;
};

/* Borrows config. */
struct authz_front *authz_front_new(const struct config *config);
void authz_front_free(struct authz_front **front);
