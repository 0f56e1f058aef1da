/* proxy_cors: the cors block of a route: which other origins may use it (WHATWG Fetch, section 3.2).
 * On such a route the proxy alone speaks about CORS: in answers of the upstream, in answers of its own
 * so that a page can read why it was refused, and to preflights. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/sv.h"
#include "proxy/emit.h"

/* origin: the request's Origin; "" where there is none. */
bool proxy_cors_allows(const struct config_cors *cors, struct sv origin);
/* What an answer says; for an origin that is not allowed only that the answer depends on it. */
void proxy_cors_answer(const struct config_cors *cors, struct sv origin,
                       struct proxy_fields *fields);
/* What the answer to a preflight says beside that; the origin is allowed. */
void proxy_cors_preflight(const struct config_cors *cors, struct proxy_fields *fields);
/* A field of an upstream's answer that only the proxy may say. */
bool proxy_cors_speaks_for(struct sv name);
