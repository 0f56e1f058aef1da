#include "test/support/fake_broker.h"

#include <pthread.h>
#include <string.h>

#include "common/list.h"
#include "common/mem.h"
#include "common/rpc/rpc.h"
#include "common/rpc/server.h"

enum { RECORDS_MAX = 4096 };

enum { BATCH = 8 };

struct record {
    uint64_t version;
    char *type;
    char *id;
    char *data;
    size_t n;
    bool deleted;
};

struct fake_broker {
    struct rpc *rpc;
    struct rpc_server *server;
    pthread_mutex_t mutex; /* over all below */
    pthread_cond_t done;
    struct record records[RECORDS_MAX]; /* in the order of versions; each write is one more */
    size_t n;
    struct list follows;
    bool held;
    bool refusing;
    unsigned snapshots;
    unsigned gets;
};

struct follow {
    struct list in_broker;
    struct fake_broker *broker;
    struct rpc_call *call;
    bool latest;  /* SyncLatest */
    bool batches; /* Sync: what is there goes in one message */
    size_t next;  /* index of the record to send */
    size_t end;   /* latest: where the snapshot ends */
};

/* --- streams, on the broker's thread with the mutex held ---------------------------------------- */

static bool is_newest(const struct fake_broker *b, size_t i, size_t end)
{
    for (size_t k = i + 1; k < end; k++) {
        if (strcmp(b->records[k].type, b->records[i].type) == 0 &&
            strcmp(b->records[k].id, b->records[i].id) == 0) {
            return false;
        }
    }
    return true;
}

static void send_message(struct rpc_call *call, const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *bytes = mem_alloc(n + 1);

    (void)protobuf_c_message_pack(m, bytes);
    rpc_call_send(call, sv_of(bytes, n));
    mem_free(&bytes);
}

struct wire_record {
    Databroker__Record record;
    Google__Protobuf__Any any;
    Google__Protobuf__Timestamp at;
};

static void to_wire(struct record *r, struct wire_record *w)
{
    static char url[] = "type.googleapis.com/any";

    w->record = (Databroker__Record)DATABROKER__RECORD__INIT;
    w->any = (Google__Protobuf__Any)GOOGLE__PROTOBUF__ANY__INIT;
    w->at = (Google__Protobuf__Timestamp)GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    w->at.seconds = 1;
    w->any.type_url = url;
    w->any.value.data = (uint8_t *)r->data;
    w->any.value.len = r->n;
    w->record.version = r->version;
    w->record.type = r->type;
    w->record.id = r->id;
    w->record.data = &w->any;
    w->record.deleted_at = r->deleted ? &w->at : NULL;
}

static void step_latest(struct follow *f)
{
    struct fake_broker *b = f->broker;
    Databroker__SyncLatestResponse m = DATABROKER__SYNC_LATEST_RESPONSE__INIT;
    Databroker__Versions versions = DATABROKER__VERSIONS__INIT;
    struct wire_record w;

    while (f->next < f->end && (b->records[f->next].deleted || !is_newest(b, f->next, f->end))) {
        f->next++;
    }
    if (f->next < f->end) {
        to_wire(&b->records[f->next++], &w);
        m.response_case = DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_RECORD;
        m.record = &w.record;
        send_message(f->call, &m.base);
    } else if (f->next == f->end) {
        f->next++;
        versions.server_version = 7;
        versions.latest_record_version = f->end;
        m.response_case = DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_VERSIONS;
        m.versions = &versions;
        send_message(f->call, &m.base);
    } else {
        rpc_call_finish(f->call, RPC_OK, NULL);
    }
}

/* One record as the old message has it, more in a batch: who follows knows both. */
static void step_changes(struct follow *f)
{
    struct fake_broker *b = f->broker;
    Databroker__SyncResponse m = DATABROKER__SYNC_RESPONSE__INIT;
    struct wire_record w[BATCH];
    Databroker__Record *list[BATCH];
    size_t most = f->batches ? BATCH : 1;
    size_t n = 0;

    for (; n < most && f->next < b->n; n++) {
        to_wire(&b->records[f->next++], &w[n]);
        list[n] = &w[n].record;
    }
    if (n == 1) {
        m.response_case = DATABROKER__SYNC_RESPONSE__RESPONSE_RECORD;
        m.record = list[0];
    } else {
        m.records = list;
        m.n_records = n;
    }
    send_message(f->call, &m.base);
}

static void step(struct follow *f)
{
    if (!rpc_call_can_send(f->call)) {
        return;
    }
    if (f->latest) {
        step_latest(f);
    } else if (!f->broker->held && f->next < f->broker->n) {
        step_changes(f);
    }
}

static void on_writable(void *arg)
{
    struct follow *f = arg;

    (void)pthread_mutex_lock(&f->broker->mutex);
    step(f);
    (void)pthread_mutex_unlock(&f->broker->mutex);
}

static void on_closed(void *arg)
{
    struct follow *f = arg;
    struct fake_broker *b = f->broker;

    (void)pthread_mutex_lock(&b->mutex);
    list_remove(&f->in_broker);
    (void)pthread_mutex_unlock(&b->mutex);
    mem_free(&f);
}

static struct follow *follow_new(struct fake_broker *b, struct rpc_call *call, uint64_t after)
{
    static const struct rpc_stream_ops ops = { .on_writable = on_writable, .on_closed = on_closed };
    struct follow *f = MEM_NEW(struct follow);

    f->broker = b;
    f->call = call;
    f->next = after;
    f->end = b->n;
    list_push_back(&b->follows, &f->in_broker);
    rpc_call_stream(call, &ops, f);
    return f;
}

/* --- methods ------------------------------------------------------------------------------------ */

/* True: answered with a refusal. */
static bool refused(struct fake_broker *b, struct rpc_call *call)
{
    if (b->refusing) {
        rpc_call_fail(call, RPC_UNAVAILABLE, "refusing");
    }
    return b->refusing;
}

static void on_sync_latest(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct fake_broker *b = arg;

    (void)request;
    (void)pthread_mutex_lock(&b->mutex);
    if (!refused(b, call)) {
        struct follow *f = follow_new(b, call, 0);

        b->snapshots++;
        f->latest = true;
        step(f);
    }
    (void)pthread_mutex_unlock(&b->mutex);
}

static void on_sync(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct fake_broker *b = arg;
    const Databroker__SyncRequest *r = (const Databroker__SyncRequest *)(const void *)request;

    (void)pthread_mutex_lock(&b->mutex);
    if (!refused(b, call)) {
        if (r->server_version != 7 || r->record_version > b->n) {
            rpc_call_fail(call, RPC_ABORTED, "another server");
        } else {
            struct follow *f = follow_new(b, call, r->record_version);

            f->batches = r->batches;
            step(f);
        }
    }
    (void)pthread_mutex_unlock(&b->mutex);
}

static void on_get(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct fake_broker *b = arg;
    const Databroker__GetRequest *r = (const Databroker__GetRequest *)(const void *)request;
    Databroker__GetResponse answer = DATABROKER__GET_RESPONSE__INIT;
    struct wire_record w;
    bool found = false;

    (void)pthread_mutex_lock(&b->mutex);
    b->gets++;
    if (refused(b, call)) {
        (void)pthread_mutex_unlock(&b->mutex);
        return;
    }
    for (size_t i = b->n; i > 0 && !found; i--) {
        struct record *record = &b->records[i - 1];

        if (strcmp(record->type, r->type) == 0 && strcmp(record->id, r->id) == 0) {
            to_wire(record, &w);
            found = true;
        }
    }
    if (found && w.record.deleted_at == NULL) {
        answer.record = &w.record;
        rpc_call_reply(call, &answer.base);
    } else {
        rpc_call_fail(call, RPC_NOT_FOUND, "no such record");
    }
    (void)pthread_mutex_unlock(&b->mutex);
}

static void on_info(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct fake_broker *b = arg;
    Databroker__ServerInfoResponse answer = DATABROKER__SERVER_INFO_RESPONSE__INIT;

    (void)request;
    (void)pthread_mutex_lock(&b->mutex);
    if (!refused(b, call)) {
        answer.server_version = 7;
        answer.earliest_record_version = 1;
        answer.latest_record_version = b->n;
        rpc_call_reply(call, &answer.base);
    }
    (void)pthread_mutex_unlock(&b->mutex);
}

#define PATH(m) "/databroker.DataBrokerService/" m

static const struct rpc_method methods[] = {
    { PATH("SyncLatest"), BIT(RPC_AUTHORIZE), false, &databroker__sync_latest_request__descriptor,
      on_sync_latest },
    { PATH("Sync"), BIT(RPC_AUTHORIZE), false, &databroker__sync_request__descriptor, on_sync },
    { PATH("Get"), BIT(RPC_AUTHORIZE), false, &databroker__get_request__descriptor, on_get },
    { PATH("ServerInfo"), BIT(RPC_AUTHORIZE), false, &google__protobuf__empty__descriptor,
      on_info },
};

/* --- from the test ------------------------------------------------------------------------------ */

struct turn {
    struct fake_broker *broker;
    void (*fn)(struct fake_broker *b);
    bool over;
};

static void on_turn(void *arg)
{
    struct turn *t = arg;

    (void)pthread_mutex_lock(&t->broker->mutex);
    t->fn(t->broker);
    t->over = true;
    (void)pthread_cond_broadcast(&t->broker->done);
    (void)pthread_mutex_unlock(&t->broker->mutex);
}

static void on_broker_thread(struct fake_broker *b, void (*fn)(struct fake_broker *b))
{
    struct turn t = { .broker = b, .fn = fn };

    rpc_run(b->rpc, 0, on_turn, &t);
    (void)pthread_mutex_lock(&b->mutex);
    while (!t.over) {
        (void)pthread_cond_wait(&b->done, &b->mutex);
    }
    (void)pthread_mutex_unlock(&b->mutex);
}

static void step_all(struct fake_broker *b)
{
    struct list *it;

    LIST_FOREACH(it, &b->follows) {
        step(LIST_ENTRY(it, struct follow, in_broker));
    }
}

static void end_all(struct fake_broker *b, enum rpc_status status)
{
    struct list *it;

    LIST_FOREACH(it, &b->follows) {
        rpc_call_finish(LIST_ENTRY(it, struct follow, in_broker)->call, status,
                        "ended by the test");
    }
}

static void abort_all(struct fake_broker *b)
{
    end_all(b, RPC_ABORTED);
}

static void end_if_refusing(struct fake_broker *b)
{
    if (b->refusing) {
        end_all(b, RPC_UNAVAILABLE);
    }
}

uint64_t fake_broker_put(struct fake_broker *b, const char *type, const char *id,
                         const ProtobufCMessage *data)
{
    (void)pthread_mutex_lock(&b->mutex);
    CHECK(b->n < RECORDS_MAX);
    struct record *r = &b->records[b->n];
    size_t n = data != NULL ? protobuf_c_message_get_packed_size(data) : 0;

    r->data = mem_alloc(n + 1);
    if (data != NULL) {
        (void)protobuf_c_message_pack(data, (uint8_t *)r->data);
    }
    r->n = n;
    r->deleted = data == NULL;
    r->type = mem_strdup(type);
    r->id = mem_strdup(id);
    r->version = ++b->n;
    uint64_t version = r->version;
    (void)pthread_mutex_unlock(&b->mutex);
    on_broker_thread(b, step_all);
    return version;
}

void fake_broker_hold(struct fake_broker *b, bool held)
{
    (void)pthread_mutex_lock(&b->mutex);
    b->held = held;
    (void)pthread_mutex_unlock(&b->mutex);
    on_broker_thread(b, step_all);
}

void fake_broker_abort_streams(struct fake_broker *b)
{
    on_broker_thread(b, abort_all);
}

void fake_broker_refuse(struct fake_broker *b, bool refuse)
{
    (void)pthread_mutex_lock(&b->mutex);
    b->refusing = refuse;
    (void)pthread_mutex_unlock(&b->mutex);
    on_broker_thread(b, end_if_refusing);
}

static unsigned locked(struct fake_broker *b, const unsigned *count)
{
    (void)pthread_mutex_lock(&b->mutex);
    unsigned v = *count;

    (void)pthread_mutex_unlock(&b->mutex);
    return v;
}

unsigned fake_broker_snapshots(struct fake_broker *b)
{
    return locked(b, &b->snapshots);
}

unsigned fake_broker_gets(struct fake_broker *b)
{
    return locked(b, &b->gets);
}

struct fake_broker *fake_broker_new(const char *address, const struct rpc_identity *identity)
{
    struct fake_broker *b = MEM_NEW(struct fake_broker);
    struct rpc_server_opts opts = { .address = address,
                                    .identity = identity,
                                    .methods = methods,
                                    .n_methods = ARRAY_LEN(methods),
                                    .arg = b };

    list_init(&b->follows);
    CHECK(pthread_mutex_init(&b->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&b->done, NULL) == 0);
    b->rpc = rpc_new(NULL);
    CHECK(rpc_server_new(b->rpc, &opts, &b->server, NULL) == ERR_OK);
    return b;
}

void fake_broker_free(struct fake_broker **broker)
{
    struct fake_broker *b = TAKE(*broker);

    if (b == NULL) {
        return;
    }
    rpc_server_free(&b->server);
    rpc_free(&b->rpc);
    for (size_t i = 0; i < b->n; i++) {
        mem_free(&b->records[i].type);
        mem_free(&b->records[i].id);
        mem_free(&b->records[i].data);
    }
    (void)pthread_mutex_destroy(&b->mutex);
    (void)pthread_cond_destroy(&b->done);
    mem_free(&b);
}
