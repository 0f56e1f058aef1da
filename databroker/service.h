/* broker_service: databroker.DataBrokerService over a store. It belongs to one loop; reads of the
 * store are jobs, writes go to the store's writer. Which role may call what: the table in service.c. */
#pragma once

#include "common/audit/ready.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/loop.h"
#include "common/rpc/server.h"
#include "databroker/store.h"

struct broker_service;

/* Opens the store. opts->on_commit and arg are the service's own. Errors: store.h's open. */
MUST_CHECK enum err broker_service_new(struct loop *loop, const struct broker_store_ops *ops,
                                       const struct broker_store_opts *opts,
                                       struct broker_service **service_out, struct diag *d);
/* After broker_service_stop has said so and the server is gone. Closes the store. */
void broker_service_free(struct broker_service **service);

/* Where the lines of changes go, first and after each reload; without it there are none. ready, which
 * may be NULL and counts the first time, hears whether they can be written. Errors: audit_new,
 * audit_set. */
MUST_CHECK enum err broker_service_audit(struct broker_service *service,
                                         const struct config *config, struct audit_ready *ready,
                                         struct diag *d);
/* An rpc_server_opts.on_refused whose arg is the service. */
void broker_service_refused(void *arg, const struct rpc_refusal *refusal);

/* The external data to fetch, first and after each reload; without it there is none. */
void broker_service_fetch(struct broker_service *service, const struct config *config);

/* The rows for rpc_server_opts; their arg is the service. */
const struct rpc_method *broker_service_methods(size_t *n_out);

/* For rpc_server_opts.token_fits: whether the token is not revoked; its use is noted. */
struct token;
bool broker_token_fits(void *arg, const struct token *token);

/* Refuses new calls, ends the streams, and calls stopped once no call is open any more. */
void broker_service_stop(struct broker_service *service, void (*stopped)(void *arg), void *arg);

/* What readiness knows: a row was written and read back through the writer within the last
 * BROKER_PROBE_LATE_MS. why: a constant, NULL when ready. on_health is called on the loop after each
 * probe and when one is late. */
enum { BROKER_PROBE_MS = 2000, BROKER_PROBE_LATE_MS = 4000, BROKER_STUCK_MS = 60000 };

struct broker_health {
    bool ready;
    bool stuck; /* the writer has not come back for BROKER_STUCK_MS: only a restart helps */
    const char *why;
};

typedef void (*broker_health_fn)(void *arg, const struct broker_health *health);
void broker_service_on_health(struct broker_service *service, broker_health_fn on_health,
                              void *arg);
