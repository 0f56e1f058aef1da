#include "authorize/access.h"

#include <string.h>

#include "access.pb-c.h"

#include "common/arena.h"
#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"

enum { PUT_TIMEOUT_MS = 3000, RETRY_MS = 10000 };

struct use {
    struct list node;
    int64_t at_s;
    int64_t expires_s; /* 0: no end */
    char id[];
};

struct authz_access {
    struct rpc *rpc;
    struct rpc_client *client;
    struct list waiting; /* use.node, the oldest first */
    struct list sent;    /* with the Put under way */
    size_t n;            /* of both */
    struct rpc_pending *call;
    bool timed; /* a timer is set */
    bool stopped;
};

static void flush(struct authz_access *a);

static void on_timer(void *arg)
{
    struct authz_access *a = arg;

    a->timed = false;
    if (!a->stopped && a->call == NULL) {
        flush(a);
    }
}

static void flush_later(struct authz_access *a, int64_t ms)
{
    if (!a->timed && !list_empty(&a->waiting)) {
        a->timed = true;
        rpc_run(a->rpc, ms, on_timer, a);
    }
}

static void drop_all(struct authz_access *a, struct list *uses)
{
    while (!list_empty(uses)) {
        struct use *use = LIST_ENTRY(uses->next, struct use, node);

        list_remove(&use->node);
        a->n--;
        mem_free(&use);
    }
}

static void on_put(void *arg, enum rpc_status status, const char *text,
                   const ProtobufCMessage *response)
{
    struct authz_access *a = arg;

    (void)response;
    a->call = NULL;
    if (status == RPC_OK) {
        drop_all(a, &a->sent);
        flush_later(a, list_empty(&a->waiting) ? AUTHZ_ACCESS_GATHER_MS : 0);
        return;
    }
    log_debug("access.not_told", KV_I64("status", status), KV_STR("text", text));
    while (!list_empty(&a->sent)) {
        struct list *last = a->sent.prev;

        list_remove(last);
        list_push_front(&a->waiting, last);
    }
    flush_later(a, RETRY_MS);
}

static Google__Protobuf__Timestamp *timestamp(int64_t seconds, struct arena *arena)
{
    Google__Protobuf__Timestamp *t = arena_alloc(arena, sizeof *t);

    google__protobuf__timestamp__init(t);
    t->seconds = seconds;
    return t;
}

static Databroker__Record *record_of(struct use *use, struct arena *arena)
{
    Databroker__Record *r = arena_alloc(arena, sizeof *r);
    Google__Protobuf__Any *any = arena_alloc(arena, sizeof *any);
    Postern__SessionAccess m = POSTERN__SESSION_ACCESS__INIT;

    m.accessed_at = timestamp(use->at_s, arena);
    m.expires_at = use->expires_s == 0 ? NULL : timestamp(use->expires_s, arena);
    google__protobuf__any__init(any);
    any->type_url = arena_str(arena, SV("type.googleapis.com/postern.SessionAccess"));
    any->value.data = arena_alloc(arena, protobuf_c_message_get_packed_size(&m.base) + 1);
    any->value.len = protobuf_c_message_pack(&m.base, any->value.data);
    databroker__record__init(r);
    r->type = arena_str(arena, SV(AUTHZ_TYPE_ACCESS));
    r->id = use->id;
    r->data = any;
    return r;
}

static void flush(struct authz_access *a)
{
    Databroker__PutRequest request = DATABROKER__PUT_REQUEST__INIT;
    Databroker__Record *records[AUTHZ_ACCESS_BATCH];
    struct arena arena;

    if (list_empty(&a->waiting)) {
        return;
    }
    arena_init(&arena);
    while (request.n_records < ARRAY_LEN(records) && !list_empty(&a->waiting)) {
        struct use *use = LIST_ENTRY(a->waiting.next, struct use, node);

        list_remove(&use->node);
        list_push_back(&a->sent, &use->node);
        records[request.n_records++] = record_of(use, &arena);
    }
    request.records = records;
    a->call = rpc_client_call(a->client, "/databroker.DataBrokerService/Put", &request.base,
                              &databroker__put_response__descriptor, PUT_TIMEOUT_MS, on_put, a);
    arena_deinit(&arena);
}

static void tell_too_many(const struct authz_access *a)
{
    static struct log_limit limit;

    if (log_limit_pass(&limit, 1)) {
        log_warn("access.too_many", KV_U64("waiting", a->n));
    }
}

void authz_access_note(struct authz_access *a, const struct authz_session *session, int64_t wall_ms,
                       int64_t mono_ms)
{
    struct use *use = NULL;
    struct sv id = authz_session_id(session);

    if (!authz_session_used(session, mono_ms) || a->stopped) {
        return;
    }
    if (a->n >= AUTHZ_ACCESS_WAITING) {
        tell_too_many(a);
        return; /* it is told of the next time */
    }
    use = mem_zalloc(sizeof *use + id.n + 1);
    use->at_s = wall_ms / 1000;
    use->expires_s = session->expires_at_s;
    memcpy(use->id, id.p, id.n);
    list_push_back(&a->waiting, &use->node);
    a->n++;
    flush_later(a, AUTHZ_ACCESS_GATHER_MS);
}

struct authz_access *authz_access_new(struct rpc *rpc, struct rpc_client *client)
{
    struct authz_access *a = MEM_NEW(struct authz_access);

    a->rpc = rpc;
    a->client = client;
    list_init(&a->waiting);
    list_init(&a->sent);
    return a;
}

void authz_access_stop(struct authz_access *a)
{
    a->stopped = true;
    rpc_pending_cancel(&a->call);
}

void authz_access_free(struct authz_access **access)
{
    if (*access == NULL) {
        return;
    }
    drop_all(*access, &(*access)->waiting);
    drop_all(*access, &(*access)->sent);
    mem_free(access);
}
