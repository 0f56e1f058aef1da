/* A CheckStream: a proxy's worker asks in batches, and hears what has changed. */
#include "authorize/question.h"
#include "authorize/service_int.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/wire.h"

void authz_stream_flush(struct authz_stream *st)
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

void authz_streams_tell(struct authz_service *svc, struct sv session)
{
    struct list *it;
    struct list *tmp;

    LIST_FOREACH_SAFE(it, tmp, &svc->streams) {
        struct authz_stream *st = LIST_ENTRY(it, struct authz_stream, in_service);

        authz_replies_changed(&st->replies, session);
        authz_stream_flush(st);
    }
}

/* Answers the checks of a CheckBatch in turn; those in front of a fault are answered, too. */
static enum err check_batch(struct authz_service *svc, struct authz_stream *st, struct sv bytes)
{
    struct authz_facts facts = authz_service_facts(svc);
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
            authz_service_check(svc, &facts, (struct authz_asker){ .stream = st }, &reqs[i]);
        }
    } while (err == ERR_OK && n == AUTHZ_EXPECT_MAX);
    authz_near_note(&svc->near, st, total, svc->loop == NULL ? 0 : place, facts.mono_ms);
    return err;
}

static void on_stream_message(void *arg, struct sv bytes)
{
    struct authz_stream *st = arg;
    struct authz_service *svc = st->service;
    enum err err = bytes.n > AUTHZ_MESSAGE_MAX ? ERR_LIMIT : check_batch(svc, st, bytes);

    if (err != ERR_OK) {
        log_warn("stream.refused", KV_STR("caller", rpc_call_who(st->call)), KV_ERR(err));
        rpc_call_finish(st->call, rpc_status_of(err), "the message is no batch of checks");
    } else {
        authz_stream_flush(st);
    }
    authz_answers_flush(svc->answers);
    arena_reset(&svc->arena);
}

static void on_stream_writable(void *arg)
{
    authz_stream_flush(arg);
}

static void on_stream_closed(void *arg)
{
    struct authz_stream *st = arg;
    struct authz_service *svc = st->service;

    authz_waiting_forget(svc, st);
    authz_answers_forget(svc->answers, &st->replies);
    log_info("stream.closed");
    list_remove(&st->in_service);
    authz_replies_deinit(&st->replies);
    mem_free(&st);
}

void authz_service_on_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const struct rpc_stream_ops ops = { .on_message = on_stream_message,
                                               .on_writable = on_stream_writable,
                                               .on_closed = on_stream_closed };
    struct authz_service *svc = arg;
    struct authz_stream *st = MEM_NEW(struct authz_stream);

    (void)request;
    st->service = svc;
    st->call = call;
    authz_replies_init(&st->replies);
    list_push_back(&svc->streams, &st->in_service);
    rpc_call_stream(call, &ops, st);
    log_info("stream.opened", KV_STR("caller", rpc_call_who(call)));
}
