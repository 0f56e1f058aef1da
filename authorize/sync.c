#include "authorize/sync.h"

#include "replica.pb-c.h"
#include "session.pb-c.h"

#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/scan.h"

#define BROKER "/databroker.DataBrokerService/"

enum {
    RETRY_MIN_MS = 100,
    RETRY_MAX_MS = 2000,
    BEAT_MIN_MS = 100,
    BEAT_MAX_MS = 5000,
    INFO_TIMEOUT_MS = 2000,
    CONFIRM_TIMEOUT_MS = 1000,
    STUCK_MS = 10000,        /* a version was promised and did not come: begin anew */
    FETCH_TIMEOUT_MS = 1500, /* below the 2 s that a proxy waits for its answer */
    FETCHES_MAX = 256
};

enum sync_state { SYNC_STOPPED = 0, SYNC_WAIT, SYNC_SNAPSHOT, SYNC_FOLLOW };

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): by meaning, not by size */
struct authz_sync {
    struct authz_sync_opts opts;
    enum sync_state state;
    struct authz_replica *serving;
    struct authz_replica *building; /* SNAPSHOT only */
    bool have_snapshot;             /* serving came from a snapshot and can be followed */
    uint64_t server_version;        /* of serving */
    uint64_t building_server;
    uint64_t building_latest;
    bool building_broken;   /* a message could not be read */
    bool building_versions; /* the snapshot's versions have come */
    struct rpc_pending *stream;
    struct rpc_pending *info;
    struct rpc_pending *confirm;
    char confirms[RAND_UUID_SIZE]; /* the name of this stream at the databroker */
    uint64_t confirm_wanted;       /* a deletion's version that is not confirmed yet; 0: none */
    bool anew;                     /* the next begin takes a snapshot */
    uint64_t turn;                 /* counts (re)starts: late timers know that they are late */
    int64_t retry_ms;
    int64_t began_ms; /* the snapshot's first moment */
    int64_t heard_ms; /* the stream's last message */
    int64_t fresh_ms; /* the replica held all that was acknowledged before; INT64_MIN: never */
    int64_t asked_ms; /* when the open ServerInfo left */
    uint64_t goal;    /* version that the last answer named; 0: none open */
    int64_t goal_ms;  /* when it was asked for */
    bool told_ready;
    bool keep_tokens;
    struct arena arena;
    struct list fetches;
    size_t n_fetches;
};

static void sync_begin(struct authz_sync *s);

/* --- freshness -------------------------------------------------------------------------------- */

int64_t authz_sync_age_ms(const struct authz_sync *s, int64_t mono_ms)
{
    return s->have_snapshot && s->fresh_ms != INT64_MIN ? MAX(mono_ms - s->fresh_ms, (int64_t)0)
                                                        : INT64_MAX;
}

bool authz_sync_fresh(const struct authz_sync *s, int64_t mono_ms)
{
    return s->have_snapshot && s->fresh_ms != INT64_MIN &&
           mono_ms - s->fresh_ms <= s->opts.max_staleness_ms;
}

static void tell_ready(struct authz_sync *s)
{
    bool ready = authz_sync_fresh(s, clock_mono_ms());

    if (ready != s->told_ready) {
        s->told_ready = ready;
        s->opts.ops.on_ready(s->opts.arg, ready);
    }
}

static void fresh_since(struct authz_sync *s, int64_t mono_ms)
{
    s->fresh_ms = MAX(s->fresh_ms, mono_ms);
    s->goal = 0;
    tell_ready(s);
}

static void check_goal(struct authz_sync *s)
{
    if (s->goal != 0 && authz_replica_version(s->serving) >= s->goal) {
        fresh_since(s, s->goal_ms);
    }
}

/* --- turns ------------------------------------------------------------------------------------ */

struct turn {
    struct authz_sync *sync;
    uint64_t number;
};

static void on_turn(void *arg)
{
    struct turn *turn = arg;
    struct authz_sync *s = turn->sync;

    if (s->state != SYNC_STOPPED && s->turn == turn->number) {
        sync_begin(s);
    }
    mem_free(&turn);
}

/* Begins again after delay_ms: with a new snapshot, or where the stream broke off. */
static void sync_again(struct authz_sync *s, bool anew, int64_t delay_ms)
{
    struct turn *turn = MEM_NEW(struct turn);

    s->turn++;
    s->state = SYNC_WAIT;
    s->anew = s->anew || anew;
    s->goal = 0;
    *turn = (struct turn){ .sync = s, .number = s->turn };
    rpc_run(s->opts.rpc, delay_ms, on_turn, turn);
}

static int64_t next_retry(struct authz_sync *s)
{
    s->retry_ms = s->retry_ms == 0 ? RETRY_MIN_MS : MIN(s->retry_ms * 2, (int64_t)RETRY_MAX_MS);
    return s->retry_ms / 2 + (int64_t)rand_below((uint64_t)s->retry_ms / 2 + 1);
}

static void on_stream_end(void *arg, enum rpc_status status, const char *text)
{
    struct authz_sync *s = arg;
    bool anew = s->state == SYNC_SNAPSHOT || status == RPC_ABORTED;

    s->stream = NULL;
    if (s->state == SYNC_WAIT) {
        return; /* another begin is on its way */
    }
    authz_replica_free(&s->building);
    log_warn("replica.stream-ended", KV_U64("status", (uint64_t)status), KV_STR("text", text),
             KV_BOOL("resync", anew));
    sync_again(s, anew, status == RPC_ABORTED ? 0 : next_retry(s));
}

/* --- confirm ---------------------------------------------------------------------------------- */

static void confirm_next(struct authz_sync *s);

/* A databroker that does not know the call does not wait for it either: its answer is no matter. */
static void on_confirmed(void *arg, enum rpc_status status, const char *text,
                         const ProtobufCMessage *response)
{
    struct authz_sync *s = arg;

    (void)status;
    (void)text;
    (void)response;
    s->confirm = NULL;
    confirm_next(s);
}

/* One at a time; the next one speaks for all that came meanwhile. */
static void confirm_next(struct authz_sync *s)
{
    Postern__ConfirmRequest request = POSTERN__CONFIRM_REQUEST__INIT;

    if (s->confirm != NULL || s->confirm_wanted == 0 || s->state != SYNC_FOLLOW) {
        return;
    }
    s->confirm_wanted = 0;
    request.follower = s->confirms;
    request.record_version = authz_replica_version(s->serving);
    s->confirm = rpc_client_call(s->opts.client, "/postern.Replica/Confirm", &request.base,
                                 &postern__confirm_response__descriptor, CONFIRM_TIMEOUT_MS,
                                 on_confirmed, s);
}

/* --- follow ----------------------------------------------------------------------------------- */

static void changes_take(struct authz_sync *s, Databroker__Record *const *records, size_t n)
{
    const struct authz_data *data = authz_replica_data(s->serving);
    uint64_t epoch = authz_data_epoch(data);

    for (size_t i = 0; i < n; i++) {
        authz_replica_apply(s->serving, records[i]);
        if (records[i]->deleted_at != NULL) {
            s->confirm_wanted = records[i]->version;
        }
    }
    if (n == 0) {
        return;
    }
    if (authz_data_epoch(data) != epoch) {
        s->opts.ops.on_data(s->opts.arg);
    }
    check_goal(s);
    s->opts.ops.on_progress(s->opts.arg);
    confirm_next(s);
}

static void on_follow_message(void *arg, struct sv bytes)
{
    struct authz_sync *s = arg;
    ProtobufCMessage *m = NULL;

    if (s->state != SYNC_FOLLOW) {
        return;
    }
    s->heard_ms = clock_mono_ms();
    s->retry_ms = 0;
    if (rpc_unpack(&databroker__sync_response__descriptor, bytes, &s->arena, &m) == ERR_OK) {
        const Databroker__SyncResponse *response = (const Databroker__SyncResponse *)(void *)m;

        if (response->response_case == DATABROKER__SYNC_RESPONSE__RESPONSE_RECORD) {
            changes_take(s, &response->record, 1);
        }
        changes_take(s, response->records, response->n_records);
    } else {
        /* Without this message the replica has a hole. */
        log_error("replica.message-invalid", KV_U64("bytes", bytes.n));
        sync_again(s, true, RETRY_MAX_MS);
    }
    arena_reset(&s->arena);
}

static void follow_begin(struct authz_sync *s)
{
    static const struct rpc_follow_ops ops = { .on_message = on_follow_message,
                                               .on_end = on_stream_end };
    Databroker__SyncRequest request = DATABROKER__SYNC_REQUEST__INIT;

    s->state = SYNC_FOLLOW;
    s->confirm_wanted = 0; /* the request says how far we are */
    rand_uuid(s->confirms);
    request.confirms = s->confirms;
    request.batches = true;
    request.server_version = s->server_version;
    request.record_version = authz_replica_version(s->serving);
    s->stream = rpc_client_follow(s->opts.client, BROKER "Sync", &request.base, &ops, s);
}

/* --- snapshot --------------------------------------------------------------------------------- */

static void snapshot_take(struct authz_sync *s, const Databroker__SyncLatestResponse *response)
{
    for (size_t i = 0; i < response->n_records; i++) {
        authz_replica_apply_ahead(s->building, response->records[i]);
    }
    switch (response->response_case) {
    case DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_RECORD:
        authz_replica_apply_ahead(s->building, response->record);
        break;
    case DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_VERSIONS:
        s->building_versions = true;
        s->building_server = response->versions->server_version;
        s->building_latest = response->versions->latest_record_version;
        break;
    case DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_OPTIONS:
    case DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE__NOT_SET:
    case _DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE__CASE_IS_INT_SIZE:
        break;
    }
}

static void on_snapshot_message(void *arg, struct sv bytes)
{
    struct authz_sync *s = arg;
    ProtobufCMessage *m = NULL;

    if (s->state != SYNC_SNAPSHOT) {
        return;
    }
    s->heard_ms = clock_mono_ms();
    if (rpc_unpack(&databroker__sync_latest_response__descriptor, bytes, &s->arena, &m) == ERR_OK) {
        snapshot_take(s, (const Databroker__SyncLatestResponse *)(void *)m);
    } else {
        log_error("replica.message-invalid", KV_U64("bytes", bytes.n));
        s->building_broken = true;
    }
    arena_reset(&s->arena);
}

static void swap_in(struct authz_sync *s)
{
    struct authz_replica *old = s->serving;
    struct authz_replica_counts counts;

    authz_replica_set_version(s->building, s->building_latest);
    s->serving = TAKE(s->building);
    s->server_version = s->building_server;
    s->have_snapshot = true;
    s->retry_ms = 0;
    authz_replica_on_change(s->serving, s->opts.ops.on_session, s->opts.arg);
    s->opts.ops.on_swap(s->opts.arg);
    authz_replica_free(&old);
    authz_replica_count(s->serving, &counts);
    log_info("replica.loaded", KV_U64("sessions", counts.sessions), KV_U64("users", counts.persons),
             KV_U64("rows", counts.rows), KV_U64("version", authz_replica_version(s->serving)),
             KV_U64("bytes", counts.bytes), KV_U64("unreadable", counts.unreadable));
    fresh_since(s, s->began_ms);
    s->opts.ops.on_progress(s->opts.arg);
}

static void on_snapshot_end(void *arg, enum rpc_status status, const char *text)
{
    struct authz_sync *s = arg;

    if (s->state != SYNC_SNAPSHOT || status != RPC_OK || !s->building_versions ||
        s->building_broken) {
        on_stream_end(s, status, text);
        return;
    }
    s->stream = NULL;
    swap_in(s);
    follow_begin(s);
}

static void snapshot_begin(struct authz_sync *s)
{
    static const struct rpc_follow_ops ops = { .on_message = on_snapshot_message,
                                               .on_end = on_snapshot_end };
    Databroker__SyncLatestRequest request = DATABROKER__SYNC_LATEST_REQUEST__INIT;

    request.batches = true;
    s->state = SYNC_SNAPSHOT;
    authz_replica_free(&s->building);
    s->building = authz_replica_new();
    authz_replica_keep_tokens(s->building, s->keep_tokens);
    s->building_versions = false;
    s->building_broken = false;
    s->began_ms = clock_mono_ms();
    s->stream = rpc_client_follow(s->opts.client, BROKER "SyncLatest", &request.base, &ops, s);
}

static void sync_begin(struct authz_sync *s)
{
    bool anew = s->anew || !s->have_snapshot;

    rpc_pending_cancel(&s->stream);
    rpc_pending_cancel(&s->confirm);
    s->heard_ms = clock_mono_ms();
    s->anew = false;
    if (anew) {
        snapshot_begin(s);
    } else {
        follow_begin(s);
    }
}

/* --- the beat --------------------------------------------------------------------------------- */

static void on_info(void *arg, enum rpc_status status, const char *text,
                    const ProtobufCMessage *response)
{
    struct authz_sync *s = arg;
    const Databroker__ServerInfoResponse *info =
        (const Databroker__ServerInfoResponse *)(const void *)response;

    (void)text;
    s->info = NULL;
    if (status != RPC_OK || s->state != SYNC_FOLLOW) {
        return;
    }
    if (info->server_version != s->server_version) {
        log_warn("replica.other-server");
        sync_again(s, true, 0);
        return;
    }
    if (authz_replica_version(s->serving) >= info->latest_record_version) {
        fresh_since(s, s->asked_ms);
    } else if (s->goal == 0) { /* an older goal stays: it is reached earlier */
        s->goal = info->latest_record_version;
        s->goal_ms = s->asked_ms;
    }
}

static void ask_info(struct authz_sync *s)
{
    static const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    s->asked_ms = clock_mono_ms();
    s->info =
        rpc_client_call(s->opts.client, BROKER "ServerInfo", &empty.base,
                        &databroker__server_info_response__descriptor, INFO_TIMEOUT_MS, on_info, s);
}

static bool stuck(const struct authz_sync *s, int64_t now_ms)
{
    if (s->state == SYNC_FOLLOW) {
        return s->goal != 0 && now_ms - STUCK_MS > s->goal_ms &&
               now_ms - s->heard_ms > STUCK_MS / 5;
    }
    return s->state == SYNC_SNAPSHOT && now_ms - s->heard_ms > STUCK_MS;
}

static void on_beat(void *arg)
{
    struct authz_sync *s = arg;
    int64_t now_ms = clock_mono_ms();
    int64_t beat_ms =
        MIN(MAX(s->opts.max_staleness_ms / 6, (int64_t)BEAT_MIN_MS), (int64_t)BEAT_MAX_MS);

    if (s->state == SYNC_STOPPED) {
        return;
    }
    if (stuck(s, now_ms)) {
        log_warn("replica.stuck", KV_U64("version", authz_replica_version(s->serving)));
        sync_again(s, true, 0);
    } else if (s->state == SYNC_FOLLOW && s->info == NULL) {
        ask_info(s);
    }
    tell_ready(s);
    rpc_run(s->opts.rpc, beat_ms, on_beat, s);
}

/* --- fetch ------------------------------------------------------------------------------------ */

enum fetch_stage { FETCH_SESSION = 0, FETCH_USER, FETCH_DIRECTORY, FETCH_STAGES };

struct fetch {
    struct list in_sync;
    struct authz_sync *sync;
    enum fetch_stage stage;
    char *session_id;
    char *user_id;
    Databroker__GetResponse *found[FETCH_STAGES];
    struct rpc_pending *call;
    authz_fetched_fn done;
    void *arg;
};

static void fetch_free(struct fetch *f)
{
    list_remove(&f->in_sync);
    f->sync->n_fetches--;
    for (size_t i = 0; i < FETCH_STAGES; i++) {
        if (f->found[i] != NULL) {
            protobuf_c_message_free_unpacked(&f->found[i]->base, NULL);
        }
    }
    mem_free(&f->session_id);
    mem_free(&f->user_id);
    mem_free(&f);
}

static void fetch_end(struct fetch *f, bool settled)
{
    /* The session last: whoever finds it finds its user, too. */
    for (size_t i = FETCH_STAGES; settled && i > 0; i--) {
        const Databroker__GetResponse *found = f->found[i - 1];

        if (found != NULL && found->record != NULL) {
            authz_replica_apply_ahead(f->sync->serving, found->record);
        }
    }
    f->done(f->arg, sv_from(f->session_id), settled);
    fetch_free(f);
}

static void fetch_next(struct fetch *f);

/* Keeps a copy of the answer: it is only lent. */
static Databroker__GetResponse *keep(const ProtobufCMessage *response)
{
    size_t n = protobuf_c_message_get_packed_size(response);
    uint8_t *bytes = mem_alloc(n + 1);
    ProtobufCMessage *copy = NULL;

    (void)protobuf_c_message_pack(response, bytes);
    enum err err = rpc_unpack(&databroker__get_response__descriptor, sv_of(bytes, n), NULL, &copy);
    mem_free(&bytes);
    return err == ERR_OK ? (Databroker__GetResponse *)(void *)copy : NULL;
}

/* NULL: no session that could be read. */
static char *user_of(const Databroker__GetResponse *response)
{
    ProtobufCMessage *m = NULL;

    if (response->record == NULL || response->record->data == NULL ||
        rpc_unpack(&session__session__descriptor,
                   sv_of(response->record->data->value.data, response->record->data->value.len),
                   NULL, &m) != ERR_OK) {
        return NULL;
    }
    char *id = mem_strdup(((const Session__Session *)(void *)m)->user_id);
    protobuf_c_message_free_unpacked(m, NULL);
    return id;
}

static void on_fetched(void *arg, enum rpc_status status, const char *text,
                       const ProtobufCMessage *response)
{
    struct fetch *f = arg;

    (void)text;
    f->call = NULL;
    if (status != RPC_OK && status != RPC_NOT_FOUND) {
        fetch_end(f, false);
        return;
    }
    f->found[f->stage] = status == RPC_OK ? keep(response) : NULL;
    if (f->stage == FETCH_SESSION) {
        f->user_id = f->found[FETCH_SESSION] != NULL ? user_of(f->found[FETCH_SESSION]) : NULL;
    }
    if (f->user_id == NULL || f->user_id[0] == '\0' || f->stage == FETCH_DIRECTORY) {
        fetch_end(f, true);
        return;
    }
    f->stage++;
    fetch_next(f);
}

static void fetch_next(struct fetch *f)
{
    static const char *const types[] = { AUTHZ_TYPE_SESSION, AUTHZ_TYPE_USER,
                                         AUTHZ_TYPE_DIRECTORY };
    Databroker__GetRequest request = DATABROKER__GET_REQUEST__INIT;
    CLEANUP(mem_free) char *type = mem_strdup(types[f->stage]);

    request.type = type;
    request.id = f->stage == FETCH_SESSION ? f->session_id : f->user_id;
    f->call =
        rpc_client_call(f->sync->opts.client, BROKER "Get", &request.base,
                        &databroker__get_response__descriptor, FETCH_TIMEOUT_MS, on_fetched, f);
}

enum err authz_sync_fetch(struct authz_sync *s, struct sv session_id, authz_fetched_fn done,
                          void *arg)
{
    if (s->state == SYNC_STOPPED || s->n_fetches >= FETCHES_MAX) {
        return ERR_LIMIT;
    }
    struct fetch *f = MEM_NEW(struct fetch);

    f->sync = s;
    f->session_id = mem_svdup(session_id);
    f->done = done;
    f->arg = arg;
    list_push_back(&s->fetches, &f->in_sync);
    s->n_fetches++;
    fetch_next(f);
    return ERR_OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

struct authz_sync *authz_sync_new(const struct authz_sync_opts *opts)
{
    struct authz_sync *s = MEM_NEW(struct authz_sync);

    s->opts = *opts;
    s->serving = authz_replica_new();
    s->fresh_ms = INT64_MIN;
    list_init(&s->fetches);
    arena_init(&s->arena);
    return s;
}

void authz_sync_start(struct authz_sync *s)
{
    CHECK(s->state == SYNC_STOPPED);
    s->state = SYNC_WAIT;
    sync_begin(s);
    on_beat(s);
}

void authz_sync_stop(struct authz_sync *s)
{
    struct list *it;
    struct list *tmp;

    s->state = SYNC_STOPPED;
    rpc_pending_cancel(&s->stream);
    rpc_pending_cancel(&s->info);
    rpc_pending_cancel(&s->confirm);
    LIST_FOREACH_SAFE(it, tmp, &s->fetches) {
        struct fetch *f = LIST_ENTRY(it, struct fetch, in_sync);

        rpc_pending_cancel(&f->call);
        fetch_free(f);
    }
}

void authz_sync_free(struct authz_sync **sync)
{
    struct authz_sync *s = TAKE(*sync);

    if (s == NULL) {
        return;
    }
    CHECK(s->state == SYNC_STOPPED);
    authz_replica_free(&s->building);
    authz_replica_free(&s->serving);
    arena_deinit(&s->arena);
    mem_free(&s);
}

void authz_sync_keep_tokens(struct authz_sync *s, bool keep)
{
    bool more = keep && !s->keep_tokens;

    s->keep_tokens = keep;
    authz_replica_keep_tokens(s->serving, keep);
    if (more && s->state != SYNC_STOPPED) {
        rpc_pending_cancel(&s->stream);
        sync_again(s, true, 0); /* those of the sessions that are there already */
    }
}

void authz_sync_set_staleness(struct authz_sync *s, int64_t max_staleness_ms)
{
    s->opts.max_staleness_ms = max_staleness_ms;
    tell_ready(s);
}

const struct authz_replica *authz_sync_replica(const struct authz_sync *s)
{
    return s->serving;
}
