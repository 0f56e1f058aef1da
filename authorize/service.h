/* authz_service: the check service: postern.Authorize over gRPC, the replica behind it, the rules
 * in front. One thread, the rpc's own, evaluates every check and owns all state but the audit
 * writer's; the functions below may be called from the loop's thread. */
#pragma once

#include "authorize/rules.h"
#include "common/audit/ready.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/loop.h"

struct authz_service;

struct authz_service_opts {
    struct authz_rules *rules; /* becomes the service's */
    const char *listen;        /* "unix:/path" or "host:port" */
    const char *databroker;    /* likewise */
    struct loop *loop; /* where replaced rules are freed, off the check thread; NULL: at once */
    /* Whether session-bearing checks can be answered; from the check thread. */
    void (*on_ready)(void *arg, bool ready);
    void *arg;
    struct audit_ready *audit; /* hears whether audit lines can be written; NULL: nobody does */
};

/* Begins to listen and to follow the databroker, which need not be there. ERR_IO, ERR_INVALID: the
 * address cannot be had; rules are then the caller's still. */
MUST_CHECK enum err authz_service_new(const struct authz_service_opts *opts,
                                      struct authz_service **service_out, struct diag *d);
/* Takes rules over: from the next batch on they decide, and every stream hears Changed{all}. ERR_IO
 * and a sentence: their audit cannot be written; rules are the caller's still. */
MUST_CHECK enum err authz_service_set_rules(struct authz_service *svc, struct authz_rules *rules,
                                            struct diag *d);
/* Ends every stream and waits for it. */
void authz_service_free(struct authz_service **service);
