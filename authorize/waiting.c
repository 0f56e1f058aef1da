/* One check from who asks to its answer: at once, or when the replica is no older than the session that is
 * shown. */
#include "authorize/service_int.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

enum {
    WAITERS_MAX = 8192,
    WAIT_TICK_MS = 20,
    WAIT_FETCH_MS = 20, /* the stream is usually faster than a question of our own */
    WAIT_MAX_MS = 1000  /* well inside the proxy's authorize_timeout */
};

/* A check that waits for the replica. */
struct waiter {
    struct list in_service;
    struct authz_asker asker;
    Postern__CheckRequest *request;
    int64_t since_ms;
    bool asked; /* the databroker itself is asked for the session */
};

struct authz_facts authz_service_facts(const struct authz_service *svc)
{
    return (struct authz_facts){ .rules = svc->rules,
                                 .sync = svc->sync,
                                 .identities = svc->identities,
                                 .wall_ms = clock_wall_ms(),
                                 .mono_ms = clock_mono_ms() };
}

void authz_service_answer(struct authz_service *svc, const struct authz_facts *facts,
                          struct authz_asker asker, const Postern__CheckRequest *req,
                          struct authz_outcome *outcome)
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
    struct authz_facts facts = authz_service_facts(svc);
    struct authz_outcome outcome;

    if (!authz_check_run(&facts, w->request, patience, &outcome)) {
        return false;
    }
    authz_service_answer(svc, &facts, w->asker, w->request, &outcome);
    if (w->asker.stream != NULL) {
        authz_stream_flush(w->asker.stream);
    }
    waiter_free(svc, w);
    return true;
}

void authz_waiting_run(struct authz_service *svc, struct sv session, enum authz_patience patience)
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
    authz_waiting_run(arg, session_id, settled ? AUTHZ_SETTLED : AUTHZ_MAY_WAIT);
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

static void wait_for_replica(struct authz_service *svc, struct authz_asker asker,
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

void authz_service_check(struct authz_service *svc, const struct authz_facts *facts,
                         struct authz_asker asker, const Postern__CheckRequest *req)
{
    struct authz_outcome outcome;

    if (!authz_check_run(facts, req, AUTHZ_MAY_WAIT, &outcome)) {
        if (svc->n_waiters < WAITERS_MAX && !svc->stopping) {
            wait_for_replica(svc, asker, req);
            return;
        }
        (void)authz_check_run(facts, req, AUTHZ_GIVEN_UP, &outcome);
    }
    authz_service_answer(svc, facts, asker, req, &outcome);
}

void authz_waiting_forget(struct authz_service *svc, const struct authz_stream *stream)
{
    struct list *it;
    struct list *tmp;

    LIST_FOREACH_SAFE(it, tmp, &svc->waiters) {
        struct waiter *w = LIST_ENTRY(it, struct waiter, in_service);

        if (w->asker.stream == stream) {
            waiter_free(svc, w);
        }
    }
}
