/* config_log_fields: which fields log lines have, part of struct config; the rules of config.h hold. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct config_strings {
    struct sv *v;
    size_t n;
};

enum config_log_field {
    CONFIG_LOG_NONE = 0,
    CONFIG_LOG_REQUEST_ID,
    CONFIG_LOG_METHOD,
    CONFIG_LOG_PATH,
    CONFIG_LOG_IP,
    CONFIG_LOG_QUERY,
    CONFIG_LOG_USER,
    CONFIG_LOG_EMAIL,
    CONFIG_LOG_ROUTE_ID,
    CONFIG_LOG_CLIENT_CERTIFICATE,
    /* of authorize's line */
    CONFIG_LOG_HOST,
    CONFIG_LOG_SESSION_ID,
    CONFIG_LOG_IMPERSONATE_SESSION_ID,
    CONFIG_LOG_IMPERSONATE_USER_ID,
    CONFIG_LOG_IMPERSONATE_EMAIL,
    /* of the access line */
    CONFIG_LOG_AUTHORITY,
    CONFIG_LOG_USER_AGENT,
    CONFIG_LOG_REFERER,
    CONFIG_LOG_FORWARDED_FOR,
    CONFIG_LOG_DURATION,
    CONFIG_LOG_SIZE,
    CONFIG_LOG_RESPONSE_CODE,
    CONFIG_LOG_RESPONSE_CODE_DETAILS,
    CONFIG_LOG_DECISION,
    CONFIG_LOG_REASONS,
    CONFIG_LOG_RECEIVED,
    CONFIG_LOG_UPSTREAM_DURATION
};

#define CONFIG_LOG_BIT(field) (UINT64_C(1) << (unsigned)(field))

enum { CONFIG_LOG_HEADERS_MAX = 16, CONFIG_LOG_HEADER_MAX = 128 };

struct config_log_fields {
    bool given; /* else the usual ones */
    uint64_t set;
    struct config_strings headers; /* names as written */
};

/* Whether a header goes by such a name that its value may let somebody in: in no log, and not kept. */
bool config_header_is_secret(struct sv name);
