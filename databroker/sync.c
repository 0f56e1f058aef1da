/* Sync and SyncLatest: each follower reads the store page by page at its own pace.
 *
 *   Sync:        OPTIONS --> CHANGES --(nothing new)--> wait for a commit --> CHANGES …
 *   SyncLatest:  SNAPSHOT --> TAIL --> OPTIONS --> VERSIONS
 *   Watch:       [PEOPLE -->] SNAPSHOT --> TAIL --> READY --> CHANGES …   (SessionService)
 *
 * No transaction outlives a page, so a slow reader holds up nobody. A snapshot's pages therefore
 * show the store at different times; TAIL then sends every change since the first page, deletions
 * among them, after which what was sent is exactly the store at the version that VERSIONS names. */
#include "session_service.pb-c.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/access.h"
#include "databroker/service_int.h"
#include "databroker/session_filter.h"

enum {
    /* Of data in a message. The last record may go beyond it: a message stays under gRPC's usual 4 MiB. */
    BATCH_BYTES = 512 * 1024,
    CHANGES_MAX =
        64 /* records in a message of Sync: a replica takes it in at one go, between two checks */
};

enum phase {
    PHASE_END = 0,
    PHASE_PEOPLE,
    PHASE_SNAPSHOT,
    PHASE_TAIL,
    PHASE_OPTIONS,
    PHASE_CHANGES,
    PHASE_VERSIONS,
    PHASE_READY
};

struct follower {
    struct list in_service;
    struct broker_service *service;
    struct rpc_call *call;
    bool guest;                          /* of somebody who is no daemon */
    bool latest;                         /* SyncLatest */
    bool batches;                        /* many records a message */
    struct broker_session_filter *watch; /* Watch, in texts; else NULL */
    bool wait;
    struct sv type; /* in texts */
    enum phase phase;
    struct broker_records ahead; /* a page on its way, or read and not begun */
    bool job_out;                /* the job owns all above */
    bool ahead_fresh;
    struct broker_records page; /* is being sent */
    size_t next;                /* of page */
    bool begun;                 /* there was a page */
    bool dirty;                 /* there was a commit since the last page was asked for */
    bool closed;
    bool finished;
    bool held;               /* other databrokers do not know of it yet */
    uint64_t server_version; /* 0: SyncLatest has not read yet */
    uint64_t position;
    struct sv confirms; /* in texts; "": it does not */
    uint64_t confirmed;
    uint64_t deleted; /* version of the last deletion that was sent; only such are confirmed */
    uint64_t sent;    /* all up to here was */
    uint64_t tail_until;
    uint64_t options_seen;
    struct arena texts;
    struct arena after; /* PEOPLE, SNAPSHOT: type and id of the last record */
    struct broker_record last;
    enum err err;
};

static void step(struct follower *f);

static void follower_free(struct follower *f)
{
    struct broker_service *service = f->service;

    list_remove(&f->in_service);
    service->n_followers--;
    service->n_guests -= f->guest ? 1 : 0;
    broker_records_deinit(&f->page);
    broker_records_deinit(&f->ahead);
    arena_deinit(&f->texts);
    arena_deinit(&f->after);
    mem_free(&f);
    broker_confirm_check(service);
    broker_service_call_over(service);
}

static void finish(struct follower *f, enum rpc_status status, const char *text)
{
    if (!f->finished) {
        f->finished = true;
        rpc_call_finish(f->call, status, text); /* on_closed may have run when it returns */
    }
}

/* ---- reading: on a job's thread -------------------------------------------------------------- */

/* The next page begins behind page. */
static void set_last(struct follower *f, const struct broker_records *page)
{
    if (page->count > 0) {
        const struct broker_record *last = &page->items[page->count - 1];

        arena_reset(&f->after);
        f->last.type = arena_sv(&f->after, last->type);
        f->last.id = arena_sv(&f->after, last->id);
        f->last.place = last->place;
    }
}

/* Whom does it mean? A page of users, of which nothing is sent. */
static enum err read_people(struct follower *f, int64_t deadline_ms)
{
    CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };
    enum err err = ERR_OK;

    broker_records_init(&page);
    err = f->service->ops->page(f->service->store, SV(BROKER_TYPE_USER), &f->last, deadline_ms,
                                &page);
    for (size_t i = 0; i < page.count && err == ERR_OK; i++) {
        err = broker_session_filter_person(f->watch, &page.items[i], &f->texts);
    }
    f->ahead.more = page.more && page.count > 0;
    set_last(f, &page);
    return err;
}

static enum err read_snapshot(struct follower *f, int64_t deadline_ms)
{
    enum err err =
        f->service->ops->page(f->service->store, f->type, &f->last, deadline_ms, &f->ahead);

    if (err != ERR_OK) {
        return err;
    }
    if (f->server_version == 0) {
        f->server_version = f->ahead.server_version;
        f->position = f->ahead.latest_version;
    }
    if (f->server_version != f->ahead.server_version) {
        return ERR_ABORTED;
    }
    set_last(f, &f->ahead);
    return ERR_OK;
}

static enum err read_changes(struct follower *f, int64_t deadline_ms)
{
    enum err err = f->service->ops->changes(f->service->store, f->server_version, f->position,
                                            f->type, deadline_ms, &f->ahead);

    if (err == ERR_OK) {
        f->position = f->ahead.position;
        if (f->tail_until == 0) {
            f->tail_until = f->ahead.latest_version;
        }
    }
    return err;
}

static void read_page(void *arg)
{
    struct follower *f = arg;
    int64_t deadline_ms = clock_mono_ms() + BROKER_READ_MS;

    broker_records_deinit(&f->ahead);
    broker_records_init(&f->ahead);
    switch (f->phase) {
    case PHASE_PEOPLE:
        f->err = read_people(f, deadline_ms);
        break;
    case PHASE_SNAPSHOT:
        f->err = read_snapshot(f, deadline_ms);
        break;
    case PHASE_TAIL:
    case PHASE_CHANGES:
        f->err = read_changes(f, deadline_ms);
        break;
    case PHASE_OPTIONS:
        f->err = f->service->ops->options(f->service->store, f->type, deadline_ms, &f->ahead);
        break;
    case PHASE_END:
    case PHASE_VERSIONS:
    case PHASE_READY:
        f->err = ERR_INTERNAL;
        break;
    }
}

static void page_read(void *arg)
{
    struct follower *f = arg;

    f->job_out = false;
    f->ahead_fresh = true;
    if (f->closed) {
        follower_free(f);
        return;
    }
    if (f->err != ERR_OK) {
        enum err err = f->err == ERR_IO ? ERR_UNAVAILABLE : f->err;

        finish(f, rpc_status_of(err), broker_err_text(err));
        return;
    }
    step(f);
}

static void ask(struct follower *f)
{
    enum err err = ERR_OK;

    f->dirty = false;
    if (f->phase == PHASE_OPTIONS) {
        f->options_seen = f->service->options_generation;
    }
    f->job_out = true;
    err = job_submit(f->service->pool, read_page, page_read, f);
    if (err != ERR_OK) {
        f->job_out = false;
        finish(f, rpc_status_of(err), broker_err_text(err));
    }
}

/* ---- sending --------------------------------------------------------------------------------- */

static void send_message(struct follower *f, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = mem_alloc(size);

    (void)protobuf_c_message_pack(message, bytes);
    rpc_call_send(f->call, sv_of(bytes, size));
    mem_free(&bytes);
}

static void note_sent(struct follower *f, const struct broker_record *change)
{
    f->sent = change->version;
    f->deleted = change->deleted_us != 0 ? change->version : f->deleted;
}

static void send_record(struct follower *f, struct arena *arena, const struct broker_record *record)
{
    Databroker__SyncResponse change = DATABROKER__SYNC_RESPONSE__INIT;
    Databroker__SyncLatestResponse state = DATABROKER__SYNC_LATEST_RESPONSE__INIT;
    Databroker__Record message;

    broker_wire_record(arena, record, &message);
    if (f->latest) {
        state.response_case = DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_RECORD;
        state.record = &message;
        send_message(f, &state.base);
        return;
    }
    change.response_case = DATABROKER__SYNC_RESPONSE__RESPONSE_RECORD;
    change.record = &message;
    send_message(f, &change.base);
    note_sent(f, record);
}

static void send_options(struct follower *f, struct arena *arena,
                         const struct broker_record *record)
{
    Databroker__SyncResponse change = DATABROKER__SYNC_RESPONSE__INIT;
    Databroker__SyncLatestResponse state = DATABROKER__SYNC_LATEST_RESPONSE__INIT;
    Databroker__TypedOptions typed = DATABROKER__TYPED_OPTIONS__INIT;

    typed.type_url = broker_wire_text(arena, record->type);
    typed.options = broker_wire_options(arena, record->data);
    if (f->latest) {
        state.response_case = DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_OPTIONS;
        state.options = &typed;
        send_message(f, &state.base);
        return;
    }
    change.response_case = DATABROKER__SYNC_RESPONSE__RESPONSE_OPTIONS;
    change.options = &typed;
    send_message(f, &change.base);
}

/* As many records of the page as fit a message; one at least. */
static size_t take_batch(struct follower *f, struct arena *arena, Databroker__Record ***records_out)
{
    size_t left = f->page.count - f->next;
    size_t most = f->latest ? left : MIN(left, (size_t)CHANGES_MAX);
    size_t bytes = 0;
    size_t n = 0;

    *records_out = arena_alloc(arena, most * sizeof(Databroker__Record *));
    while (n < most && bytes < BATCH_BYTES) {
        const struct broker_record *record = &f->page.items[f->next];

        (*records_out)[n] = arena_alloc(arena, sizeof(Databroker__Record));
        broker_wire_record(arena, record, (*records_out)[n]);
        n++;
        bytes += record->data.n;
        f->next++;
    }
    return n;
}

static void send_batch(struct follower *f, struct arena *arena)
{
    Databroker__SyncResponse changes = DATABROKER__SYNC_RESPONSE__INIT;
    Databroker__SyncLatestResponse state = DATABROKER__SYNC_LATEST_RESPONSE__INIT;
    size_t first = f->next;

    if (f->latest) {
        state.n_records = take_batch(f, arena, &state.records);
        send_message(f, &state.base);
        return;
    }
    changes.n_records = take_batch(f, arena, &changes.records);
    send_message(f, &changes.base);
    for (size_t i = first; i < f->next; i++) {
        note_sent(f, &f->page.items[i]);
    }
}

/* False: the watcher does not want to know. */
static bool send_event(struct follower *f, struct arena *arena, const struct broker_record *record)
{
    Postern__WatchSessionsResponse response = POSTERN__WATCH_SESSIONS_RESPONSE__INIT;
    const Session__Session *session = NULL;

    if (record->deleted_us != 0) {
        response.event_case = POSTERN__WATCH_SESSIONS_RESPONSE__EVENT_ENDED;
        response.ended = broker_wire_text(arena, record->id);
    } else {
        session = broker_session_fit(f->watch, record, arena);
        if (session == NULL) {
            return false;
        }
        response.event_case = POSTERN__WATCH_SESSIONS_RESPONSE__EVENT_SESSION;
        response.session = broker_session_info(session, record->version, arena);
    }
    send_message(f, &response.base);
    return true;
}

static void send_ready(struct follower *f)
{
    Postern__WatchSessionsResponse response = POSTERN__WATCH_SESSIONS_RESPONSE__INIT;

    response.event_case = POSTERN__WATCH_SESSIONS_RESPONSE__EVENT_READY;
    response.ready = true;
    send_message(f, &response.base);
}

/* The next event of the page. False: nothing of what is left is one. */
static bool send_watched(struct follower *f)
{
    while (f->next < f->page.count) {
        CLEANUP(arena_deinit) struct arena arena = { 0 };
        const struct broker_record *record = &f->page.items[f->next];

        arena_init(&arena);
        f->next++;
        if (send_event(f, &arena, record)) {
            return true;
        }
    }
    return false;
}

static void send_next(struct follower *f)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    const struct broker_record *record = &f->page.items[f->next];

    arena_init(&arena);
    if (f->batches && f->phase != PHASE_OPTIONS) {
        send_batch(f, &arena);
        return;
    }
    f->next++;
    if (f->phase == PHASE_OPTIONS) {
        send_options(f, &arena, record);
    } else {
        send_record(f, &arena, record);
    }
}

static void send_versions(struct follower *f)
{
    Databroker__SyncLatestResponse response = DATABROKER__SYNC_LATEST_RESPONSE__INIT;
    Databroker__Versions versions = DATABROKER__VERSIONS__INIT;

    versions.server_version = f->server_version;
    versions.latest_record_version = f->position;
    response.response_case = DATABROKER__SYNC_LATEST_RESPONSE__RESPONSE_VERSIONS;
    response.versions = &versions;
    send_message(f, &response.base);
}

/* ---- what comes next ------------------------------------------------------------------------- */

/* The page of a phase was sent. Returns whether there is something to read now. */
static bool go_on(struct follower *f)
{
    switch (f->phase) {
    case PHASE_PEOPLE:
        if (!f->page.more) {
            f->phase = PHASE_SNAPSHOT;
            f->last = (struct broker_record){ .id = SV("") };
        }
        return true;
    case PHASE_SNAPSHOT:
        if (!f->page.more) {
            f->phase = PHASE_TAIL;
        }
        return true;
    case PHASE_TAIL:
        if (f->position < f->tail_until) {
            return true;
        }
        f->phase = f->watch != NULL ? PHASE_READY : PHASE_OPTIONS;
        return f->watch == NULL;
    case PHASE_OPTIONS:
        f->phase = f->latest ? PHASE_VERSIONS : PHASE_CHANGES;
        return !f->latest;
    case PHASE_CHANGES:
        if (f->watch == NULL && f->options_seen != f->service->options_generation) {
            f->phase = PHASE_OPTIONS;
            return true;
        }
        return f->page.more || f->dirty;
    case PHASE_VERSIONS:
    case PHASE_READY:
    case PHASE_END:
        break;
    }
    return false;
}

/* Begins the page that was read ahead. */
static void turn_page(struct follower *f)
{
    struct broker_records old = f->page;

    f->page = f->ahead;
    f->ahead = old;
    f->ahead_fresh = false;
    f->next = 0;
    f->begun = true;
}

static void step(struct follower *f)
{
    if (f->closed || f->finished || f->held || !rpc_call_can_send(f->call)) {
        return;
    }
    if (f->next == f->page.count && f->ahead_fresh) {
        turn_page(f);
    }
    if (f->watch != NULL && send_watched(f)) {
        return;
    }
    if (f->next < f->page.count) {
        send_next(f);
        if (f->phase == PHASE_SNAPSHOT && f->page.more && !f->job_out && !f->ahead_fresh) {
            ask(f); /* the next page is read while this one is sent */
        }
        return;
    }
    if (f->job_out) {
        return;
    }
    if (f->begun && f->phase == PHASE_CHANGES) {
        f->sent = f->position;
        broker_confirm_check(f->service);
    }
    if (!f->begun || go_on(f)) {
        ask(f);
        return;
    }
    if (f->phase == PHASE_VERSIONS) {
        f->phase = PHASE_END;
        send_versions(f);
        return;
    }
    if (f->phase == PHASE_READY) {
        f->phase = PHASE_CHANGES;
        send_ready(f);
        return;
    }
    if (f->phase == PHASE_END || !f->wait) {
        finish(f, RPC_OK, NULL);
    }
}

static void on_writable(void *arg)
{
    step(arg);
}

static void on_closed(void *arg)
{
    struct follower *f = arg;

    f->closed = true;
    if (!f->job_out) {
        follower_free(f);
        return;
    }
    broker_confirm_check(f->service);
}

static const struct rpc_stream_ops stream_ops = { .on_writable = on_writable,
                                                  .on_closed = on_closed };

void broker_sync_wake(struct broker_service *service)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &service->followers) {
        struct follower *f = LIST_ENTRY(it, struct follower, in_service);

        f->dirty = true;
        step(f);
    }
}

void broker_sync_drop(struct broker_service *service, struct sv token_id)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &service->followers) {
        struct follower *f = LIST_ENTRY(it, struct follower, in_service);

        if (sv_eq(sv_from(rpc_call_who(f->call)), token_id)) {
            finish(f, RPC_UNAUTHENTICATED, "the token was revoked");
        }
    }
}

void broker_sync_stop(struct broker_service *service)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &service->followers) {
        finish(LIST_ENTRY(it, struct follower, in_service), RPC_UNAVAILABLE,
               "the databroker stops");
    }
}

/* Where nothing is open that it confirms, it has what it was sent. */
static uint64_t has_up_to(const struct follower *f)
{
    return f->confirmed < f->deleted ? f->confirmed : MAX(f->confirmed, f->sent);
}

uint64_t broker_sync_confirmed(struct broker_service *service)
{
    struct list *it = NULL;
    uint64_t least = UINT64_MAX;

    LIST_FOREACH(it, &service->followers) {
        const struct follower *f = LIST_ENTRY(it, struct follower, in_service);

        if (f->confirms.n != 0 && !f->closed && !f->finished) {
            least = MIN(least, has_up_to(f));
        }
    }
    return least;
}

bool broker_sync_confirm(struct broker_service *service, struct sv follower, uint64_t version)
{
    struct list *it = NULL;

    LIST_FOREACH(it, &service->followers) {
        struct follower *f = LIST_ENTRY(it, struct follower, in_service);

        if (follower.n != 0 && sv_eq(f->confirms, follower)) {
            f->confirmed = MAX(f->confirmed, version);
            return true;
        }
    }
    return false;
}

static struct follower *first_held(struct broker_service *service)
{
    struct list *it = NULL;

    LIST_FOREACH(it, &service->followers) {
        struct follower *f = LIST_ENTRY(it, struct follower, in_service);

        if (f->held) {
            return f;
        }
    }
    return NULL;
}

void broker_sync_release(struct broker_service *service)
{
    struct follower *f = NULL;

    for (f = first_held(service); f != NULL; f = first_held(service)) {
        f->held = false;
        step(f); /* others may go meanwhile */
    }
}

void broker_sync_cut(struct broker_service *service)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &service->followers) {
        struct follower *f = LIST_ENTRY(it, struct follower, in_service);

        if (f->confirms.n != 0) {
            finish(f, RPC_UNAVAILABLE, "the store is out of reach, and others may write to it");
        }
    }
}

/* Answers the call and returns NULL where it may not follow. */
static struct follower *follower_new(struct broker_service *service, struct rpc_call *call,
                                     const char *type_text)
{
    struct sv type = sv_from(type_text);
    bool guest = !broker_access_is_daemon(rpc_call_role(call));
    struct diag d = { .text = "" };
    struct follower *f = NULL;
    enum err err = ERR_OK;

    if (service->stopping) {
        err = ERR_UNAVAILABLE;
        diag_set(&d, "the databroker stops");
    } else if (service->n_followers >= BROKER_FOLLOWERS_MAX ||
               (guest && service->n_guests >= BROKER_GUESTS_MAX)) {
        err = ERR_LIMIT;
        diag_set(&d, "too many followers");
    } else if (type.n > 0) {
        err = broker_name_check(type, "type", &d);
    }
    if (err == ERR_OK) {
        err = broker_access_read(rpc_call_role(call), type, &d);
    }
    if (err != ERR_OK) {
        rpc_call_fail(call, rpc_status_of(err), d.text);
        return NULL;
    }
    f = MEM_NEW(struct follower);
    f->service = service;
    f->call = call;
    f->guest = guest;
    arena_init(&f->texts);
    arena_init(&f->after);
    broker_records_init(&f->page);
    broker_records_init(&f->ahead);
    f->type = arena_sv(&f->texts, type);
    list_push_back(&service->followers, &f->in_service);
    service->n_followers++;
    service->n_guests += guest ? 1 : 0;
    service->open_calls++;
    rpc_call_stream(call, &stream_ops, f);
    return f;
}

void broker_on_sync(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__SyncRequest *in = (const Databroker__SyncRequest *)(const void *)request;
    struct follower *f = follower_new(arg, call, in->type);

    if (f == NULL) {
        return;
    }
    f->wait = in->has_wait_case != DATABROKER__SYNC_REQUEST__HAS_WAIT_WAIT || in->wait;
    f->server_version = in->server_version;
    f->position = in->record_version;
    f->batches = in->batches;
    if (rpc_call_role(call) == RPC_AUTHORIZE) { /* nobody else may hold up answers to others */
        f->confirms = arena_sv(&f->texts, sv_from(in->confirms));
        f->confirmed = in->record_version;
    }
    f->phase = PHASE_OPTIONS;
    f->held = f->confirms.n != 0;
    if (f->held && f->service->shared) {
        broker_peers_tell(f->service);
        return;
    }
    f->held = false;
    step(f);
}

void broker_on_sync_latest(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__SyncLatestRequest *in =
        (const Databroker__SyncLatestRequest *)(const void *)request;
    struct follower *f = follower_new(arg, call, in->type);

    if (f == NULL) {
        return;
    }
    f->latest = true;
    f->batches = in->batches;
    f->phase = PHASE_SNAPSHOT;
    step(f);
}

void broker_on_watch_sessions(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__WatchSessionsRequest *in =
        (const Postern__WatchSessionsRequest *)(const void *)request;
    CLEANUP(arena_deinit) struct arena scratch = { 0 };
    struct broker_session_filter filter;
    struct diag d = { .text = "" };
    struct follower *f = NULL;
    enum err err = ERR_OK;

    arena_init(&scratch);
    err = broker_session_filter_read(in->filter, &scratch, &filter, &d);
    if (err != ERR_OK) {
        rpc_call_fail(call, rpc_status_of(err), d.text);
        return;
    }
    f = follower_new(arg, call, BROKER_TYPE_SESSION);
    if (f == NULL) {
        return;
    }
    f->wait = true;
    f->watch = arena_alloc(&f->texts, sizeof(*f->watch));
    CHECK(broker_session_filter_read(in->filter, &f->texts, f->watch, &d) == ERR_OK);
    f->phase = f->watch->user.n > 0 ? PHASE_PEOPLE : PHASE_SNAPSHOT;
    step(f);
}
