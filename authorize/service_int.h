/* The inside of authz_service, shared by service.c, stream.c, waiting.c and methods.c only. All of it is the
 * check thread's, where not said otherwise. */
#pragma once

#include <pthread.h>

#include "authorize.pb-c.h"

#include "authorize/access.h"
#include "authorize/answer.h"
#include "authorize/bearers.h"
#include "authorize/check.h"
#include "authorize/foreign.h"
#include "authorize/identity.h"
#include "authorize/near.h"
#include "authorize/recent.h"
#include "authorize/reply.h"
#include "authorize/service.h"
#include "authorize/shadow.h"
#include "authorize/sync.h"
#include "common/arena.h"
#include "common/list.h"
#include "common/rpc/client.h"
#include "common/rpc/server.h"

struct authz_service {
    struct loop *loop; /* the check thread's; NULL: it is the rpc's own */
    pthread_t thread;  /* with loop */
    struct rpc *rpc;
    struct rpc_identity *identity;
    struct rpc_client *client;
    struct rpc_server *server;
    struct config *first_config; /* the identity's keys live in it */
    struct authz_service_opts opts;
    /* the check thread's */
    struct authz_rules *rules;
    struct authz_sync *sync;
    struct authz_identities *identities;
    struct authz_bearers *bearers;
    struct authz_access *access;
    struct authz_answers *answers;
    struct authz_recent *recent;
    struct authz_shadow *shadow; /* NULL: no route has a shadow policy */
    struct arena arena;
    struct authz_near near;
    struct list streams;
    struct list waiters;
    size_t n_waiters;
    bool ticking;
    bool data_changed; /* and the streams are about to be told */
    bool stopping;
    bool listening; /* server is there */
    bool ready;     /* checks with a session can be answered */
    /* for calls from another thread */
    pthread_mutex_t mutex;
    pthread_cond_t done;
};

struct authz_stream {
    struct list in_service;
    struct authz_service *service;
    struct rpc_call *call;
    struct authz_replies replies;
};

/* Who waits for an answer: a stream, or a call of its own. */
struct authz_asker {
    struct authz_stream *stream;   /* NULL: unary */
    struct rpc_call *call;         /* unary */
    struct authz_foreign *foreign; /* unary, in somebody else's form; NULL: ours */
};

/* waiting.c: a check is answered at once, or when the replica has come as far as its session, or when it has
 * waited long enough. */
struct authz_facts authz_service_facts(const struct authz_service *svc);
void authz_service_check(struct authz_service *svc, const struct authz_facts *facts,
                         struct authz_asker asker, const Postern__CheckRequest *req);
/* What is decided goes its way back, and is noted. */
void authz_service_answer(struct authz_service *svc, const struct authz_facts *facts,
                          struct authz_asker asker, const Postern__CheckRequest *req,
                          struct authz_outcome *outcome);
/* Answers those that wait and can be answered with so much patience. session: only its, "" all. */
void authz_waiting_run(struct authz_service *svc, struct sv session, enum authz_patience patience);
/* The stream is gone: nobody waits there. */
void authz_waiting_forget(struct authz_service *svc, const struct authz_stream *stream);

/* stream.c: one CheckStream of a proxy's worker. */
void authz_service_on_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
/* Sends what is there, if what was sent before is on its way. */
void authz_stream_flush(struct authz_stream *st);
/* Every stream hears that a session has changed; "": everything. */
void authz_streams_tell(struct authz_service *svc, struct sv session);

/* methods.c: {method, who may call it, handler}; the first one is CheckStream, which needs no gRPC core. */
enum { AUTHZ_METHODS = 4 };

extern const struct rpc_method authz_methods[AUTHZ_METHODS];
/* It is known who asks, or why nobody is let in: authz_bearers_opts. */
void authz_service_check_foreign(void *arg, struct rpc_call *call, struct authz_foreign *foreign);
