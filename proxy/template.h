/* proxy_template: values of set_request_headers that hold tokens. A token without a value for this
 * request (nobody is logged in, no such header, no trusted client certificate) leaves out the whole
 * header: an empty credential is worse than none. Pure functions; any thread. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/http/head.h"
#include "common/sv.h"

enum { PROXY_TEMPLATE_MAX = 32768 };

/* {NULL, 0}: there is none. */
struct proxy_template_facts {
    struct sv access_token;
    struct sv id_token;
    struct sv jwt;
    struct sv cert_fingerprint;
    struct sv cert_san_dns;
    struct sv cert_san_email;
    /* The value of a request header, as it may go upstream; {NULL, 0}: none. */
    struct sv (*header)(void *arg, struct sv name);
    void *arg;
};

/* {NULL, 0}: the header is not sent. The value is one line without blanks at its ends. */
struct sv proxy_template_value(const struct config_template *t,
                               const struct proxy_template_facts *facts, struct arena *arena);
