/* Shared by access.c and access_fields.c: parts of the line. */
#pragma once

#include "common/buf.h"
#include "proxy/exchange.h"

void proxy_access_add_decision(struct buf *line, const struct proxy_exchange *x);
void proxy_access_add_reasons(struct buf *line, const struct proxy_exchange *x);
void proxy_access_add_ip(struct buf *line, const struct proxy_exchange *x);
void proxy_access_add_fields(struct buf *line, struct proxy_exchange *x, int64_t now_us,
                             const struct config_log_fields *fields);
