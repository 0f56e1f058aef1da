/* authz_audit: one JSON line for each decision, allow and deny alike; common/audit brings it to where
 * it is kept. Check thread. */
#pragma once

#include "authorize.pb-c.h"

#include "authorize/check.h"
#include "common/base.h"

/* Appends the line with its line break. */
void authz_audit_line(struct buf *out, const Postern__CheckRequest *req,
                      const struct authz_outcome *outcome, int64_t wall_ms,
                      const struct config_log_fields *fields);
