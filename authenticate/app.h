/* authn: the daemon: what its parts share. One loop thread owns all of it. */
#pragma once

#include "authenticate/store.h"
#include "authenticate/throttle.h"
#include "authenticate/users.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/assertion.h"
#include "common/crypto/seal.h"
#include "common/fetch.h"
#include "common/job.h"
#include "common/list.h"
#include "common/loop.h"
#include "common/rpc/server.h"
#include "common/service.h"

enum { AUTHN_IDP_ID_SIZE = 17, AUTHN_COOKIE_NAME_MAX = 128 };

struct authn_http;
struct authn_keyset;
struct authn_oidc;
struct authn_renewer;

struct authn {
    struct service *service;
    struct loop *loop;
    struct config *config; /* in use */
    struct config *boot;   /* at start: what listeners and identity were made of */
    struct sv origin;      /* https://authenticate.example.com[:port] */
    struct sv host;        /* its host[:port]: what our own handle is bound to */
    char idp_id[AUTHN_IDP_ID_SIZE];
    char cookie_session[AUTHN_COOKIE_NAME_MAX]; /* names */
    char cookie_browser[AUTHN_COOKIE_NAME_MAX];

    struct sealer *handles;
    struct sealer *states;
    struct sealer *codes;
    struct sealer *forms;
    struct sealer *rest;
    struct assertion_keys *assertion;

    struct rpc *rpc;
    struct rpc_identity *identity;
    struct rpc_server *server;
    struct authn_store *store;
    struct rpc_pending *probe;
    struct event *probe_timer;
    bool store_there;        /* as the last probe found it */
    struct list redemptions; /* Redeem calls that wait for the databroker */
    struct list proofs;      /* Token calls under way */
    size_t n_proofs;
    struct authn_keyset **keysets; /* of config's issuers, in their order */
    size_t n_keysets;

    struct authn_http *http;
    struct job_pool *pool;
    struct fetcher *fetcher;
    struct authn_renewer *renewer;
    struct authn_oidc *oidc;   /* NULL: idp_provider is not oidc */
    struct authn_users *users; /* NULL: none could be read yet */
    struct authn_throttle *throttle;

    unsigned busy;  /* at the end: what has not finished yet */
    bool http_open; /* the pages are among it */
    struct event *stop_timer;

    struct service_part *part_http;
    struct service_part *part_store;
    struct service_part *part_users;
};
