/* proxy_app: the main thread's side of the proxy: configuration, gRPC to authenticate and for who asks for
 * the proxy's health, workers. */
#pragma once

#include "common/base.h"
#include "common/rpc/client.h"
#include "common/rpc/identity.h"
#include "common/rpc/server.h"
#include "common/service.h"
#include "proxy/acme.h"
#include "proxy/advice.h"
#include "proxy/authz_names.h"
#include "proxy/crowd.h"
#include "proxy/snapshot.h"
#include "proxy/worker.h"

enum { PROXY_WORKERS_MAX = 64 };

struct proxy_asking;

struct proxy_app {
    struct service *service;
    struct rpc *rpc;
    struct rpc_identity *identity;
    struct config *boot;             /* its keys are the identity's, through every reload */
    struct rpc_client *authenticate; /* NULL: no login is configured */
    struct rpc_server *server;       /* health and reflection; NULL: no grpc_address */
    struct proxy_clusters *clusters;
    struct proxy_worker *workers[PROXY_WORKERS_MAX];
    unsigned n_workers;
    unsigned n_stopped;
    bool stopping;
    struct proxy_authz_names *authorizes;
    struct proxy_acme_watch *acme;
    uint32_t n_conns;          /* of all workers; atomic */
    struct proxy_crowd *crowd; /* and by address */
    struct service_part *authorize_part;
    struct proxy_advice *advice;
    unsigned authz_up; /* workers whose check stream is up; atomic */
};

extern const struct service_app proxy_service;

void proxy_app_worker_stopped(struct proxy_app *app); /* any thread */
/* A worker's check stream came up or was lost; any thread. */
void proxy_app_authz(struct proxy_app *app, bool up);

/* A one-time code on its way to authenticate and back. */
struct proxy_redeem {
    struct proxy_worker *worker;
    void *exchange; /* the worker's; NULL: it is gone */
    char *code;
    char *host;
    unsigned char binding[32];
    bool program; /* a program asks, not a browser */
    /* the answer */
    enum rpc_status status;
    char *session;
    char *idp_id;
    char *redirect_uri;
    uint64_t record_version;
};

/* Worker's thread; the answer comes to proxy_login_redeemed or _program_ there, unless exchange became NULL. */
void proxy_app_redeem(struct proxy_app *app, struct proxy_redeem *redeem);
/* Worker's thread; the answer comes to proxy_bearer_answered there. */
void proxy_app_ask(struct proxy_app *app, struct proxy_asking *asking);
