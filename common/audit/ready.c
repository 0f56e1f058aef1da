#include "common/audit/ready.h"

static void tell(struct audit_ready *ready)
{
    bool fails = __atomic_load_n(&ready->fails, __ATOMIC_SEQ_CST) != 0 &&
                 __atomic_load_n(&ready->needed, __ATOMIC_SEQ_CST) != 0;

    service_part_set(ready->part, !fails,
                     fails ? "audit lines cannot be written, and audit.required wants them" : NULL);
}

void audit_ready_init(struct audit_ready *ready, struct service *service,
                      const struct config *config)
{
    ready->part = service_part_new(service, "audit");
    audit_ready_follow(ready, config);
}

void audit_ready_follow(struct audit_ready *ready, const struct config *config)
{
    int needed = config->audit.required != CONFIG_AUDIT_NONE ? 1 : 0;

    __atomic_store_n(&ready->needed, needed, __ATOMIC_SEQ_CST);
    tell(ready);
}

void audit_ready_works(void *arg, bool works)
{
    struct audit_ready *ready = arg;

    __atomic_store_n(&ready->fails, works ? 0 : 1, __ATOMIC_SEQ_CST);
    tell(ready);
}
