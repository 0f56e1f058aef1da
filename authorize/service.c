#include "authorize/service.h"

#include <pthread.h>
#include <signal.h>

#include "authorize/service_int.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/proof.h"

/* With the way to the proxies still within the second of a revocation. */
enum { DATA_TELL_MS = 100 };

/* --- the replica's news ----------------------------------------------------------------------- */

static void on_session(void *arg, struct sv session_id)
{
    authz_streams_tell(arg, session_id);
}

static void on_swap(void *arg)
{
    struct authz_service *svc = arg;

    authz_identities_clear(svc->identities);
    authz_streams_tell(svc, SV(""));
}

static void on_data_told(void *arg)
{
    struct authz_service *svc = arg;

    svc->data_changed = false;
    if (!svc->stopping) {
        authz_streams_tell(svc, SV(""));
    }
}

/* An import is many records: what is open is looked at again once for all that come together. */
static void on_data(void *arg)
{
    struct authz_service *svc = arg;

    if (!svc->data_changed) {
        svc->data_changed = true;
        rpc_run(svc->rpc, DATA_TELL_MS, on_data_told, svc);
    }
}

static void on_progress(void *arg)
{
    struct authz_service *svc = arg;

    if (!list_empty(&svc->waiters)) {
        authz_waiting_run(svc, SV(""), AUTHZ_MAY_WAIT);
    }
}

static void on_ready(void *arg, bool ready)
{
    struct authz_service *svc = arg;

    if (ready) {
        log_info("replica.fresh");
    } else {
        log_error("replica.stale", KV_STR("effect", "requests with a session get 503"));
        authz_streams_tell(svc,
                           SV("")); /* what is open was let in by what nobody vouches for now */
    }
    svc->ready = ready;
    if (svc->listening) {
        rpc_server_set_serving(svc->server, ready);
    }
    svc->opts.on_ready(svc->opts.arg, ready);
}

/* --- rules ------------------------------------------------------------------------------------ */

struct new_rules {
    struct authz_service *service;
    struct authz_rules *rules;
};

static void drop_rules(void *arg)
{
    struct authz_rules *old = arg;

    authz_rules_free(&old);
}

static void take_rules(void *arg)
{
    struct new_rules *n = arg;
    struct authz_service *svc = n->service;
    struct authz_rules *old = svc->rules;

    authz_shadow_free(&svc->shadow, old);
    svc->rules = n->rules;
    svc->shadow = authz_shadow_new(svc->rules);
    authz_identities_clear(svc->identities);
    if (svc->opts.loop != NULL) { /* 10,000 policies: nobody's check waits for their end */
        loop_post(svc->opts.loop, drop_rules, old);
    } else {
        drop_rules(old);
    }
    authz_sync_set_staleness(svc->sync,
                             authz_rules_config(svc->rules)->databroker_max_staleness_ms);
    authz_sync_keep_tokens(svc->sync, authz_rules_want_tokens(svc->rules));
    authz_answers_follow(svc->answers, authz_rules_config(svc->rules));
    authz_streams_tell(svc, SV(""));
    mem_free(&n);
}

enum err authz_service_set_rules(struct authz_service *svc, struct authz_rules *rules,
                                 struct diag *d)
{
    struct new_rules *n = NULL;
    enum err err = authz_answers_set(svc->answers, authz_rules_config(rules), d);

    if (err == ERR_OK) {
        n = MEM_NEW(struct new_rules);
        *n = (struct new_rules){ .service = svc, .rules = rules };
        rpc_run(svc->rpc, 0, take_rules, n);
    }
    return err;
}

/* --- begin and end ---------------------------------------------------------------------------- */

struct turn {
    struct authz_service *service;
    void (*fn)(struct authz_service *svc);
    bool over;
};

static void on_turn(void *arg)
{
    struct turn *t = arg;
    struct authz_service *svc = t->service;

    t->fn(svc);
    (void)pthread_mutex_lock(&svc->mutex);
    t->over = true;
    (void)pthread_cond_signal(&svc->done);
    (void)pthread_mutex_unlock(&svc->mutex);
}

/* Runs fn on the check thread and waits for it. */
static void on_check_thread(struct authz_service *svc, void (*fn)(struct authz_service *svc))
{
    struct turn t = { .service = svc, .fn = fn };

    rpc_run(svc->rpc, 0, on_turn, &t);
    (void)pthread_mutex_lock(&svc->mutex);
    while (!t.over) {
        (void)pthread_cond_wait(&svc->done, &svc->mutex);
    }
    (void)pthread_mutex_unlock(&svc->mutex);
}

static void on_more(void *arg, struct authz_replies *replies)
{
    (void)arg;
    authz_stream_flush(CONTAINER_OF(replies, struct authz_stream, replies));
}

static void begin(struct authz_service *svc)
{
    const struct rpc_client_opts client = { .target = svc->opts.databroker,
                                            .server = RPC_DATABROKER,
                                            .identity = svc->identity };

    const struct config *config = authz_rules_config(svc->rules);
    const struct authz_bearers_opts bearers = {
        .rpc = svc->rpc,
        .identity = svc->identity,
        .authenticate = config->authenticate_service_url.scheme == CONFIG_SCHEME_NONE
                            ? NULL
                            : config->authenticate_grpc.text.p,
        .on_known = authz_service_check_foreign,
        .arg = svc,
    };

    svc->client = rpc_client_new(svc->rpc, &client);
    svc->bearers = authz_bearers_new(&bearers);
    svc->access = authz_access_new(svc->rpc, svc->client);
    const struct authz_sync_opts sync = {
        .rpc = svc->rpc,
        .client = svc->client,
        .max_staleness_ms = authz_rules_config(svc->rules)->databroker_max_staleness_ms,
        .ops = { .on_session = on_session,
                 .on_swap = on_swap,
                 .on_data = on_data,
                 .on_progress = on_progress,
                 .on_ready = on_ready },
        .arg = svc,
    };
    svc->sync = authz_sync_new(&sync);
    authz_sync_keep_tokens(svc->sync, authz_rules_want_tokens(svc->rules));
    authz_sync_start(svc->sync);
}

static void on_refused(void *arg, const struct rpc_refusal *refusal)
{
    const struct authz_service *svc = arg;

    authz_answers_refused(svc->answers, refusal);
}

static void serve(struct authz_service *svc)
{
    svc->listening = true;
    rpc_server_set_serving(svc->server, svc->ready);
}

static void quiesce(struct authz_service *svc)
{
    svc->stopping = true;
    authz_bearers_stop(svc->bearers);
    authz_waiting_run(svc, SV(""), AUTHZ_GIVEN_UP);
    authz_answers_give_up(svc->answers);
    authz_access_stop(svc->access);
    authz_sync_stop(svc->sync);
}

static void drop_client(struct authz_service *svc)
{
    authz_bearers_free(&svc->bearers);
    rpc_client_free(&svc->client);
}

/* Gives the rules back. */
static struct authz_rules *service_end(struct authz_service *svc)
{
    rpc_server_free(&svc->server);
    on_check_thread(svc, drop_client);
    if (svc->answers != NULL) {
        authz_answers_stop(svc->answers);
    }
    if (svc->loop != NULL) {
        loop_stop(svc->loop);
        (void)pthread_join(svc->thread, NULL);
    }
    rpc_free(&svc->rpc);
    loop_free(&svc->loop);
    authz_answers_free(&svc->answers);
    authz_recent_free(&svc->recent);
    authz_sync_free(&svc->sync);
    authz_near_deinit(&svc->near);
    authz_access_free(&svc->access);
    authz_identities_free(&svc->identities);
    authz_shadow_free(&svc->shadow, svc->rules);
    rpc_identity_free(&svc->identity);
    arena_deinit(&svc->arena);
    (void)pthread_mutex_destroy(&svc->mutex);
    (void)pthread_cond_destroy(&svc->done);
    config_unref(&svc->first_config);
    struct authz_rules *rules = svc->rules; /* the last ones: take_rules may have run until now */

    mem_free(&svc);
    return rules;
}

static void *run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

/* The thread of the checks: on a unix socket a loop of its own, on which the proxies' streams are served
 * without gRPC core; with TLS the one that gRPC's queue has. */
static void start_thread(struct authz_service *svc, const char *listen)
{
    sigset_t all;
    sigset_t before;

    if (rpc_unix_path(sv_from(listen)).p != NULL) {
        svc->loop = loop_new();
        (void)sigfillset(&all); /* signals are the main thread's */
        (void)pthread_sigmask(SIG_BLOCK, &all, &before);
        CHECK(pthread_create(&svc->thread, NULL, run_loop, svc->loop) == 0);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    svc->rpc = rpc_new(svc->loop);
}

enum err authz_service_new(const struct authz_service_opts *opts,
                           struct authz_service **service_out, struct diag *d)
{
    struct authz_service *svc = MEM_NEW(struct authz_service);
    const struct config *config = authz_rules_config(opts->rules);

    svc->opts = *opts;
    svc->rules = opts->rules;
    svc->first_config = config_ref(config);
    svc->identity = rpc_identity_new(config->keys, RPC_AUTHORIZE);
    svc->identities = authz_identities_new();
    svc->recent = authz_recent_new();
    svc->shadow = authz_shadow_new(svc->rules);
    arena_init(&svc->arena);
    list_init(&svc->streams);
    list_init(&svc->waiters);
    CHECK(pthread_mutex_init(&svc->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&svc->done, NULL) == 0);
    start_thread(svc, opts->listen);
    const struct authz_answers_opts answers = {
        .rpc = svc->rpc, .config = config, .on_more = on_more, .ready = opts->audit
    };
    enum err err = authz_answers_new(&answers, &svc->answers, d);

    if (err != ERR_OK) {
        (void)service_end(svc);
        return err;
    }
    on_check_thread(svc, begin); /* before the first check can come */
    const struct rpc_server_opts server = { .address = opts->listen,
                                            .identity = svc->identity,
                                            .methods = authz_methods,
                                            .n_methods = AUTHZ_METHODS,
                                            .direct = svc->loop == NULL ? NULL : &authz_methods[0],
                                            .arg = svc,
                                            .on_refused = on_refused };
    err = rpc_server_new(svc->rpc, &server, &svc->server, d);
    if (err != ERR_OK) {
        on_check_thread(svc, quiesce);
        (void)service_end(svc);
        return err;
    }
    on_check_thread(svc, serve);
    *service_out = svc;
    return ERR_OK;
}

void authz_service_free(struct authz_service **service)
{
    struct authz_service *svc = TAKE(*service);

    if (svc == NULL) {
        return;
    }
    on_check_thread(svc, quiesce);
    struct authz_rules *rules = service_end(svc);

    authz_rules_free(&rules);
}
