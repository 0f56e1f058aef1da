/* audit_ready: readiness of a daemon that must not do without its audit: the part "audit" of /readyz is
 * not ready while lines cannot be written and audit.required asks for them. Loop thread, but for
 * audit_ready_works. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/service.h"

struct audit_ready {
    struct service_part *part;
    int fails;  /* atomic */
    int needed; /* atomic */
};

void audit_ready_init(struct audit_ready *ready, struct service *service,
                      const struct config *config);
/* Other settings. */
void audit_ready_follow(struct audit_ready *ready, const struct config *config);
/* An audit_opts.on_works, with a struct audit_ready. Any thread. */
void audit_ready_works(void *arg, bool works);
