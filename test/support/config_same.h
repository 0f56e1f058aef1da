/* config_same: whether two configurations say the same, for tests of the ways to read one. */
#pragma once

#include "common/buf.h"
#include "common/config/config.h"

/* All that a route says and where it stands, one fact a line. */
void config_route_dump(const struct config_route *route, struct buf *out);
/* Of a configuration: its sum, files, a few global settings and all routes. */
void config_dump(const struct config *config, struct buf *out);
/* Both came out as configurations that say the same, or as the same errors (then both are NULL). */
bool config_outcome_same(const struct config *a, const struct config_errors *a_errors,
                         const struct config *b, const struct config_errors *b_errors);
