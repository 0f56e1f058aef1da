#include "authenticate/watch.h"

#include "databroker.pb-c.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/scan.h"

enum { RETRY_MIN_MS = 200, RETRY_MAX_MS = 5000 };

struct authn_watch {
    struct authn_store *store;
    struct authn_watch_ops ops;
    void *arg;
    struct arena arena; /* of one message */
    struct event *timer;
    struct rpc_pending *stream;
    bool following; /* else a snapshot */
    bool known;     /* versions are */
    uint64_t server_version;
    uint64_t record_version;
    int64_t retry_ms;
};

static void begin(struct authn_watch *w);

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    begin(arg);
}

static void begin_later(struct authn_watch *w)
{
    struct timeval tv = { .tv_sec = 0 };
    int64_t wait_ms = 0;

    w->retry_ms = w->retry_ms == 0 ? RETRY_MIN_MS : MIN(w->retry_ms * 2, (int64_t)RETRY_MAX_MS);
    wait_ms = w->retry_ms / 2 + (int64_t)rand_below((uint64_t)w->retry_ms / 2 + 1);
    tv.tv_sec = wait_ms / 1000;
    tv.tv_usec = (wait_ms % 1000) * 1000;
    (void)event_add(w->timer, &tv);
}

/* --- records -------------------------------------------------------------------------------------- */

static int64_t ms_of(const Google__Protobuf__Timestamp *t)
{
    return t == NULL ? 0 : t->seconds * 1000 + t->nanos / 1000000;
}

static void take_record(struct authn_watch *w, const Databroker__Record *record)
{
    ProtobufCMessage *m = NULL;

    w->record_version = MAX(w->record_version, record->version);
    if (record->deleted_at != NULL || record->data == NULL) {
        w->ops.on_end(w->arg, sv_from(record->id));
        return;
    }
    if (rpc_unpack(&session__session__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), &w->arena,
                   &m) != ERR_OK) {
        log_warn("session.unreadable", KV_STR("session", record->id));
        return;
    }
    w->ops.on_session(w->arg, (const Session__Session *)(void *)m, record->version,
                      ms_of(record->modified_at));
}

static void on_snapshot_message(void *arg, struct sv bytes)
{
    struct authn_watch *w = arg;
    const Databroker__SyncLatestResponse *response = NULL;
    ProtobufCMessage *m = NULL;

    if (rpc_unpack(&databroker__sync_latest_response__descriptor, bytes, &w->arena, &m) != ERR_OK) {
        log_warn("sessions.message_unreadable", KV_U64("bytes", bytes.n));
        arena_reset(&w->arena);
        return;
    }
    response = (const Databroker__SyncLatestResponse *)(void *)m;
    if (response->response_case == DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_RECORD) {
        take_record(w, response->record);
    } else if (response->response_case == DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_VERSIONS) {
        w->server_version = response->versions->server_version;
        w->record_version = response->versions->latest_record_version;
        w->known = true;
    }
    arena_reset(&w->arena);
}

static void on_follow_message(void *arg, struct sv bytes)
{
    struct authn_watch *w = arg;
    const Databroker__SyncResponse *response = NULL;
    ProtobufCMessage *m = NULL;

    w->retry_ms = 0;
    if (rpc_unpack(&databroker__sync_response__descriptor, bytes, &w->arena, &m) != ERR_OK) {
        log_warn("sessions.message_unreadable", KV_U64("bytes", bytes.n));
        arena_reset(&w->arena);
        return;
    }
    response = (const Databroker__SyncResponse *)(void *)m;
    if (response->response_case == DATABROKER__SYNC_RESPONSE__RESPONSE_RECORD) {
        take_record(w, response->record);
    }
    arena_reset(&w->arena);
}

/* --- streams -------------------------------------------------------------------------------------- */

static void on_end(void *arg, enum rpc_status status, const char *text)
{
    struct authn_watch *w = arg;

    w->stream = NULL;
    if (!w->following && status == RPC_OK && w->known) {
        begin(w);
        return;
    }
    log_debug("sessions.stream_ended", KV_I64("status", status), KV_STR("text", text));
    w->known = w->known && w->following && status != RPC_ABORTED;
    begin_later(w);
}

static void begin(struct authn_watch *w)
{
    static const struct rpc_follow_ops snapshot = { .on_message = on_snapshot_message,
                                                    .on_end = on_end };
    static const struct rpc_follow_ops follow = { .on_message = on_follow_message,
                                                  .on_end = on_end };

    w->following = w->known;
    w->stream = w->known
                    ? authn_store_follow(w->store, w->server_version, w->record_version, &follow, w)
                    : authn_store_snapshot(w->store, &snapshot, w);
}

struct authn_watch *authn_watch_new(struct loop *loop, struct authn_store *store,
                                    const struct authn_watch_ops *ops, void *arg)
{
    struct authn_watch *w = MEM_NEW(struct authn_watch);

    w->store = store;
    w->ops = *ops;
    w->arg = arg;
    arena_init(&w->arena);
    w->timer = event_new(loop_base(loop), -1, 0, on_due, w);
    CHECK(w->timer != NULL);
    begin(w);
    return w;
}

void authn_watch_free(struct authn_watch **watch)
{
    if (*watch == NULL) {
        return;
    }
    rpc_pending_cancel(&(*watch)->stream);
    event_free((*watch)->timer);
    arena_deinit(&(*watch)->arena);
    mem_free(watch);
}

void authn_watch_again(struct authn_watch *watch)
{
    const struct timeval now = { .tv_sec = 0 };

    rpc_pending_cancel(&watch->stream);
    watch->known = false;
    (void)event_add(watch->timer, &now);
}
