#include "authorize/service.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "authorize/access.h"
#include "authorize/answer.h"
#include "authorize/bearers.h"
#include "authorize/check.h"
#include "authorize/explain.h"
#include "authorize/identity.h"
#include "authorize/near.h"
#include "authorize/question.h"
#include "authorize/recent.h"
#include "authorize/reply.h"
#include "authorize/shadow.h"
#include "authorize/sync.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/client.h"
#include "common/rpc/proof.h"
#include "common/rpc/scan.h"
#include "common/rpc/server.h"
#include "common/rpc/wire.h"

enum {
    WAITERS_MAX = 8192,
    WAIT_TICK_MS = 20,
    WAIT_FETCH_MS = 20, /* the stream is usually faster than a question of our own */
    DATA_TELL_MS = 100, /* with the way to the proxies still within the second of a revocation */
    WAIT_MAX_MS = 1000  /* well inside the proxy's authorize_timeout */
};

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

struct stream {
    struct list in_service;
    struct authz_service *service;
    struct rpc_call *call;
    struct authz_replies replies;
};

/* Who waits for an answer: a stream, or a call of its own. */
struct asker {
    struct stream *stream;         /* NULL: unary */
    struct rpc_call *call;         /* unary */
    struct authz_foreign *foreign; /* unary, in somebody else's form; NULL: ours */
};

/* A check that waits for the replica. */
struct waiter {
    struct list in_service;
    struct asker asker;
    Postern__CheckRequest *request;
    int64_t since_ms;
    bool asked; /* the databroker itself is asked for the session */
};

/* --- answering -------------------------------------------------------------------------------- */

static struct authz_facts facts_now(const struct authz_service *svc)
{
    return (struct authz_facts){ .rules = svc->rules,
                                 .sync = svc->sync,
                                 .identities = svc->identities,
                                 .wall_ms = clock_wall_ms(),
                                 .mono_ms = clock_mono_ms() };
}

static void stream_flush(struct stream *st)
{
    if (st->replies.out.err != ERR_OK) {
        log_warn("stream.overrun", KV_STR("caller", rpc_call_who(st->call)));
        rpc_call_finish(st->call, RPC_RESOURCE_EXHAUSTED, "the answers were not read");
        return;
    }
    if (st->replies.out.n > 0 && rpc_call_can_send(st->call)) {
        struct sv message = authz_replies_next(&st->replies);

        rpc_call_send(st->call, message);
        authz_replies_sent(&st->replies, message.n);
    }
}

static void answer(struct authz_service *svc, const struct authz_facts *facts, struct asker asker,
                   const Postern__CheckRequest *req, struct authz_outcome *outcome)
{
    const struct authz_to to = {
        .replies = asker.stream == NULL ? NULL : &asker.stream->replies,
        .call = asker.call,
        .foreign = asker.foreign,
    };

    if (outcome->decision == AUTHZ_ALLOW && outcome->session != NULL && !req->recheck) {
        authz_access_note(svc->access, outcome->session, facts->wall_ms, facts->mono_ms);
    }
    authz_answers_give(svc->answers, to, req, outcome, facts->wall_ms);
    authz_recent_add(svc->recent, facts, req, outcome);
    if (outcome->has_shadow) {
        authz_shadow_note(svc->shadow, facts, outcome);
    }
}

static void on_more(void *arg, struct authz_replies *replies)
{
    (void)arg;
    stream_flush(CONTAINER_OF(replies, struct stream, replies));
}

/* --- waiting ---------------------------------------------------------------------------------- */

static Postern__CheckRequest *request_copy(const Postern__CheckRequest *req)
{
    size_t n = protobuf_c_message_get_packed_size(&req->base);
    uint8_t *bytes = mem_alloc(n + 1);
    ProtobufCMessage *copy = NULL;

    (void)protobuf_c_message_pack(&req->base, bytes);
    CHECK(rpc_unpack(&postern__check_request__descriptor, sv_of(bytes, n), NULL, &copy) == ERR_OK);
    mem_free(&bytes);
    return (Postern__CheckRequest *)(void *)copy;
}

static void waiter_free(struct authz_service *svc, struct waiter *w)
{
    list_remove(&w->in_service);
    svc->n_waiters--;
    protobuf_c_message_free_unpacked(&w->request->base, NULL);
    authz_foreign_unref(&w->asker.foreign);
    mem_free(&w);
}

/* Answers w if it can be answered now. */
static bool waiter_run(struct authz_service *svc, struct waiter *w, enum authz_patience patience)
{
    struct authz_facts facts = facts_now(svc);
    struct authz_outcome outcome;

    if (!authz_check_run(&facts, w->request, patience, &outcome)) {
        return false;
    }
    answer(svc, &facts, w->asker, w->request, &outcome);
    if (w->asker.stream != NULL) {
        stream_flush(w->asker.stream);
    }
    waiter_free(svc, w);
    return true;
}

/* session: only its waiters, "" all. */
static void waiters_run(struct authz_service *svc, struct sv session, enum authz_patience patience)
{
    struct list *it;
    struct list *tmp;

    LIST_FOREACH_SAFE(it, tmp, &svc->waiters) {
        struct waiter *w = LIST_ENTRY(it, struct waiter, in_service);

        if (session.n == 0 || sv_eq(session, sv_from(w->request->session))) {
            (void)waiter_run(svc, w, patience);
        }
    }
    authz_answers_flush(svc->answers);
}

static void on_fetched(void *arg, struct sv session_id, bool settled)
{
    /* Not settled: they wait on for the stream, until their time is over. */
    waiters_run(arg, session_id, settled ? AUTHZ_SETTLED : AUTHZ_MAY_WAIT);
}

/* One question for all that wait for a session. */
static void waiter_ask(struct authz_service *svc, struct waiter *w)
{
    struct list *it;
    struct sv session = sv_from(w->request->session);

    if (authz_sync_fetch(svc->sync, session, on_fetched, svc) != ERR_OK) {
        return; /* too many at once: the stream, or the next tick */
    }
    LIST_FOREACH(it, &svc->waiters) {
        struct waiter *other = LIST_ENTRY(it, struct waiter, in_service);

        other->asked = other->asked || sv_eq(session, sv_from(other->request->session));
    }
}

static void on_wait_tick(void *arg)
{
    struct authz_service *svc = arg;
    struct list *it;
    struct list *tmp;
    int64_t now_ms = clock_mono_ms();

    svc->ticking = false;
    if (svc->stopping) {
        return;
    }
    LIST_FOREACH_SAFE(it, tmp, &svc->waiters) {
        struct waiter *w = LIST_ENTRY(it, struct waiter, in_service);

        if (now_ms - w->since_ms >= WAIT_MAX_MS) {
            (void)waiter_run(svc, w, AUTHZ_GIVEN_UP);
        } else if (!w->asked && now_ms - w->since_ms >= WAIT_FETCH_MS) {
            waiter_ask(svc, w);
        }
    }
    authz_answers_flush(svc->answers);
    if (!list_empty(&svc->waiters)) {
        svc->ticking = true;
        rpc_run(svc->rpc, WAIT_TICK_MS, on_wait_tick, svc);
    }
}

static void wait_for_replica(struct authz_service *svc, struct asker asker,
                             const Postern__CheckRequest *req)
{
    struct waiter *w = MEM_NEW(struct waiter);

    w->asker = asker;
    (void)authz_foreign_ref(asker.foreign);
    w->request = request_copy(req);
    w->since_ms = clock_mono_ms();
    list_push_back(&svc->waiters, &w->in_service);
    svc->n_waiters++;
    if (!svc->ticking) {
        svc->ticking = true;
        rpc_run(svc->rpc, WAIT_TICK_MS, on_wait_tick, svc);
    }
}

/* --- checks ----------------------------------------------------------------------------------- */

static void check(struct authz_service *svc, const struct authz_facts *facts, struct asker asker,
                  const Postern__CheckRequest *req)
{
    struct authz_outcome outcome;

    if (!authz_check_run(facts, req, AUTHZ_MAY_WAIT, &outcome)) {
        if (svc->n_waiters < WAITERS_MAX && !svc->stopping) {
            wait_for_replica(svc, asker, req);
            return;
        }
        (void)authz_check_run(facts, req, AUTHZ_GIVEN_UP, &outcome);
    }
    answer(svc, facts, asker, req, &outcome);
}

/* Answers the checks of a CheckBatch in turn; those in front of a fault are answered, too. */
static enum err check_batch(struct authz_service *svc, struct stream *st, struct sv bytes)
{
    struct authz_facts facts = facts_now(svc);
    struct rpc_wire w = rpc_wire_of(bytes);
    Postern__CheckRequest reqs[AUTHZ_EXPECT_MAX];
    struct sv ids[AUTHZ_EXPECT_MAX];
    size_t total = 0;
    size_t n = 0;
    unsigned place = 0;
    enum err err = ERR_OK;

    do {
        err = authz_questions_read(&w, &svc->arena, reqs, AUTHZ_EXPECT_MAX, &n, &place);
        for (size_t i = 0; i < n; i++) {
            ids[i] = sv_from(reqs[i].session);
        }
        authz_replica_expect(authz_sync_replica(svc->sync), ids, n);
        for (size_t i = 0; i < n; i++) {
            if (++total > AUTHZ_BATCH_MAX) {
                return ERR_LIMIT;
            }
            check(svc, &facts, (struct asker){ .stream = st }, &reqs[i]);
        }
    } while (err == ERR_OK && n == AUTHZ_EXPECT_MAX);
    authz_near_note(&svc->near, st, total, svc->loop == NULL ? 0 : place, facts.mono_ms);
    return err;
}

static void on_stream_message(void *arg, struct sv bytes)
{
    struct stream *st = arg;
    struct authz_service *svc = st->service;
    enum err err = bytes.n > AUTHZ_MESSAGE_MAX ? ERR_LIMIT : check_batch(svc, st, bytes);

    if (err != ERR_OK) {
        log_warn("stream.refused", KV_STR("caller", rpc_call_who(st->call)), KV_ERR(err));
        rpc_call_finish(st->call, rpc_status_of(err), "the message is no batch of checks");
    } else {
        stream_flush(st);
    }
    authz_answers_flush(svc->answers);
    arena_reset(&svc->arena);
}

static void on_stream_writable(void *arg)
{
    stream_flush(arg);
}

static void on_stream_closed(void *arg)
{
    struct stream *st = arg;
    struct authz_service *svc = st->service;
    struct list *it;
    struct list *tmp;

    LIST_FOREACH_SAFE(it, tmp, &svc->waiters) {
        struct waiter *w = LIST_ENTRY(it, struct waiter, in_service);

        if (w->asker.stream == st) {
            waiter_free(svc, w);
        }
    }
    authz_answers_forget(svc->answers, &st->replies);
    log_info("stream.closed");
    list_remove(&st->in_service);
    authz_replies_deinit(&st->replies);
    mem_free(&st);
}

static void handle_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const struct rpc_stream_ops ops = { .on_message = on_stream_message,
                                               .on_writable = on_stream_writable,
                                               .on_closed = on_stream_closed };
    struct authz_service *svc = arg;
    struct stream *st = MEM_NEW(struct stream);

    (void)request;
    st->service = svc;
    st->call = call;
    authz_replies_init(&st->replies);
    list_push_back(&svc->streams, &st->in_service);
    rpc_call_stream(call, &ops, st);
    log_info("stream.opened", KV_STR("caller", rpc_call_who(call)));
}

static void handle_check(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct authz_service *svc = arg;
    struct authz_facts facts = facts_now(svc);

    check(svc, &facts, (struct asker){ .call = call },
          (const Postern__CheckRequest *)(const void *)request);
    authz_answers_flush(svc->answers);
}

/* It is known who asks, or why nobody is let in. */
static void check_foreign(void *arg, struct rpc_call *call, struct authz_foreign *foreign)
{
    struct authz_service *svc = arg;
    struct authz_facts facts = facts_now(svc);
    const struct asker asker = { .call = call, .foreign = foreign };
    struct authz_outcome outcome;

    if (foreign->status != 0) {
        authz_check_refused(&outcome, foreign->status);
        answer(svc, &facts, asker, &foreign->check, &outcome);
    } else {
        check(svc, &facts, asker, &foreign->check);
    }
    authz_answers_flush(svc->answers);
}

static void handle_foreign(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct authz_service *svc = arg;
    const struct config *config = authz_rules_config(svc->rules);
    struct authz_foreign *foreign = NULL;

    if (authz_foreign_new(authz_rules_front(svc->rules), (const void *)request, &foreign) !=
        ERR_OK) {
        rpc_call_fail(call, RPC_INVALID_ARGUMENT, "the message tells of no HTTP request");
        return;
    }
    if (foreign->status == 0 && foreign->token.n != 0) {
        authz_bearers_ask(svc->bearers, call, foreign,
                          config_route_by_id(config, foreign->check.route));
    } else {
        check_foreign(svc, call, foreign);
    }
    authz_foreign_unref(&foreign);
}

static void handle_explain(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct authz_service *svc = arg;
    struct authz_facts facts = facts_now(svc);
    Postern__Explanation answer = POSTERN__EXPLANATION__INIT;
    struct diag d = { .line = 0 };
    CLEANUP(buf_deinit) struct buf document;

    buf_init(&document, AUTHZ_EXPLAIN_MAX);
    enum err err = authz_explain(
        &facts, svc->recent, (const Postern__ExplainRequest *)(const void *)request, &document, &d);

    log_info("explain", KV_STR("caller", rpc_call_who(call)), KV_BOOL("answered", err == ERR_OK));
    if (err != ERR_OK) {
        rpc_call_fail(call, rpc_status_of(err), d.text);
        return;
    }
    answer.document = (ProtobufCBinaryData){ .len = document.n, .data = (uint8_t *)document.p };
    rpc_call_reply(call, &answer.base);
}

static const struct rpc_method methods[] = {
    { .path = "/postern.Authorize/CheckStream",
      .roles = BIT(RPC_PROXY),
      .client_streams = true,
      .request = &postern__check_batch__descriptor,
      .handler = handle_stream },
    { .path = "/postern.Authorize/Check",
      .roles = BIT(RPC_PROXY) | BIT(RPC_CLI),
      .request = &postern__check_request__descriptor,
      .handler = handle_check },
    { .path = "/envoy.service.auth.v3.Authorization/Check",
      .roles = BIT(RPC_PROXY) | BIT(RPC_CLI) | BIT(RPC_TOKEN_CHECKER),
      .request = &envoy__service__auth__v3__check_request__descriptor,
      .handler = handle_foreign },
    { .path = "/postern.Authorize/Explain",
      .roles = BIT(RPC_CLI),
      .request = &postern__explain_request__descriptor,
      .handler = handle_explain },
};

/* --- the replica's news ----------------------------------------------------------------------- */

/* session "": everything. */
static void tell_streams(struct authz_service *svc, struct sv session)
{
    struct list *it;
    struct list *tmp;

    LIST_FOREACH_SAFE(it, tmp, &svc->streams) {
        struct stream *st = LIST_ENTRY(it, struct stream, in_service);

        authz_replies_changed(&st->replies, session);
        stream_flush(st);
    }
}

static void on_session(void *arg, struct sv session_id)
{
    tell_streams(arg, session_id);
}

static void on_swap(void *arg)
{
    struct authz_service *svc = arg;

    authz_identities_clear(svc->identities);
    tell_streams(svc, SV(""));
}

static void on_data_told(void *arg)
{
    struct authz_service *svc = arg;

    svc->data_changed = false;
    if (!svc->stopping) {
        tell_streams(svc, SV(""));
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
        waiters_run(svc, SV(""), AUTHZ_MAY_WAIT);
    }
}

static void on_ready(void *arg, bool ready)
{
    struct authz_service *svc = arg;

    if (ready) {
        log_info("replica.fresh");
    } else {
        log_error("replica.stale", KV_STR("effect", "requests with a session get 503"));
        tell_streams(svc, SV("")); /* what is open was let in by what nobody vouches for now */
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
    tell_streams(svc, SV(""));
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
        .on_known = check_foreign,
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
    waiters_run(svc, SV(""), AUTHZ_GIVEN_UP);
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
                                            .methods = methods,
                                            .n_methods = ARRAY_LEN(methods),
                                            .direct = svc->loop == NULL ? NULL : &methods[0],
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
