/* http/date: IMF-fixdate (RFC 9110 §5.6.7), "Mon, 23 Nov 2026 10:26:41 GMT". */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum { HTTP_DATE_LEN = 29 };

/* One a thread (or connection pool): formats at most once a second. Zero value is ready. */
struct http_date {
    int64_t second;
    char text[HTTP_DATE_LEN + 1];
};

/* The text for that second, valid until the next call with another one. */
struct sv http_date_at(struct http_date *cache, int64_t wall_s);
/* Years 1970 to 9999; outside of them the nearest end. */
void http_date_format(int64_t wall_s, char out[HTTP_DATE_LEN + 1]);
/* IMF-fixdate only, weekday checked. ERR_INVALID. */
MUST_CHECK enum err http_date_parse(struct sv text, int64_t *wall_s_out);
