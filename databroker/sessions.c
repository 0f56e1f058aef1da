/* SessionService: List, Get and Revoke; Watch is a follower (sync.c). A look goes from page to page of the
 * store, each a job of its own: others have their turn between. */
#include "access.pb-c.h"
#include "session_service.pb-c.h"
#include "user.pb-c.h"

#include "common/clock.h"
#include "common/rpc/scan.h"
#include "databroker/access.h"
#include "databroker/service_int.h"
#include "databroker/session_filter.h"

enum {
    LIST_DEFAULT = 100,
    LIST_MAX = 500,
    REVOKE_BATCH = 500, /* of one write */
    LOOK_MS = 2000      /* a page is answered by then, even if it holds nothing yet */
};

/* In the op's arena. */
struct sessions_call {
    struct broker_session_filter filter;
    struct sv person; /* the last user that was looked at */
    bool resolved;    /* filter knows whom it means */
    struct sv after;  /* the last session that was looked at */
    bool more;        /* there are sessions behind it */
    int64_t until_ms; /* of this look; 0: it has not come to sessions */
    size_t limit;
    Postern__SessionInfo **infos; /* List, Get */
    size_t n_infos;
    uint64_t revoked;
    bool unconfirmed; /* some of these */
    uint64_t seen;    /* Revoke: a version of the store when nothing was left */
};

static struct sessions_call *call_of(struct broker_op *op)
{
    return op->own;
}

static struct broker_op *begin(struct rpc_call *call, void *arg,
                               const Postern__SessionFilter *filter)
{
    struct broker_op *op = broker_op_new(arg, call);
    struct sessions_call *own = NULL;

    if (op == NULL) {
        return NULL;
    }
    own = arena_alloc(&op->arena, sizeof(*own));
    *own = (struct sessions_call){ .after = SV(""), .more = true };
    op->own = own;
    op->type = SV(BROKER_TYPE_SESSION);
    op->err = broker_session_filter_read(filter, &op->arena, &own->filter, &op->d);
    own->resolved = own->filter.user.n == 0;
    return op;
}

/* ---- looking: on a job's thread --------------------------------------------------------------- */

/* Copies the texts of whose the session is; a session without a user record has none. */
static void add_person(struct broker_op *op, Postern__SessionInfo *info)
{
    CLEANUP(broker_records_deinit) struct broker_records found = { .items = NULL };
    ProtobufCMessage *m = NULL;

    broker_records_init(&found);
    if (op->service->ops->get(op->service->store, SV(BROKER_TYPE_USER), sv_from(info->user_id),
                              clock_mono_ms() + BROKER_READ_MS, &found) == ERR_OK &&
        rpc_unpack(&user__user__descriptor, found.items[0].data, &op->arena, &m) == ERR_OK) {
        info->email = ((User__User *)(void *)m)->email;
        info->name = ((User__User *)(void *)m)->name;
    }
}

/* When it was last used; not told of yet: not long after it began. */
static void add_access(struct broker_op *op, Postern__SessionInfo *info)
{
    CLEANUP(broker_records_deinit) struct broker_records found = { .items = NULL };
    ProtobufCMessage *m = NULL;

    broker_records_init(&found);
    info->accessed_at = info->issued_at;
    if (op->service->ops->get(op->service->store, SV(BROKER_TYPE_ACCESS), sv_from(info->id),
                              clock_mono_ms() + BROKER_READ_MS, &found) == ERR_OK &&
        rpc_unpack(&postern__session_access__descriptor, found.items[0].data, &op->arena, &m) ==
            ERR_OK) {
        info->accessed_at = ((Postern__SessionAccess *)(void *)m)->accessed_at;
    }
}

static void take_info(struct broker_op *op, const struct broker_record *record)
{
    CLEANUP(arena_deinit) struct arena scratch = { 0 };
    struct sessions_call *own = call_of(op);
    const Session__Session *session = NULL;

    arena_init(&scratch); /* what does not fit leaves nothing behind */
    if (broker_session_fit(&own->filter, record, &scratch) != NULL) {
        session = broker_session_fit(&own->filter, record, &op->arena);
    }
    if (session != NULL) { /* its end may have come between the two */
        own->infos[own->n_infos] = broker_session_info(session, record->version, &op->arena);
        add_person(op, own->infos[own->n_infos]);
        add_access(op, own->infos[own->n_infos]);
        own->n_infos++;
    }
}

static void take_victim(struct broker_op *op, const struct broker_record *record)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };

    arena_init(&arena);
    if (broker_session_fit(&call_of(op)->filter, record, &arena) != NULL) {
        const struct broker_record victim = { .type = record->type,
                                              .id = record->id,
                                              .deleted_us = 1 };

        broker_records_add(&op->in, &victim);
    }
}

typedef void (*take_fn)(struct broker_op *op, const struct broker_record *record);

static enum err read_page(struct broker_op *op, struct sv type, struct sv id,
                          struct broker_records *page)
{
    const struct broker_record after = { .type = type, .id = id };

    return op->service->ops->page(op->service->store, type, &after,
                                  clock_mono_ms() + BROKER_READ_MS, page);
}

/* A page of users: whom does the filter mean? */
static enum err look_at_users(struct broker_op *op)
{
    CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };
    struct sessions_call *own = call_of(op);
    enum err err = ERR_OK;

    broker_records_init(&page);
    err = read_page(op, SV(BROKER_TYPE_USER), own->person, &page);
    for (size_t i = 0; i < page.count && err == ERR_OK; i++) {
        err = broker_session_filter_person(&own->filter, &page.items[i], &op->arena);
        if (err != ERR_OK) {
            diag_set(&op->d, "filter.user: more than %d users have that e-mail address",
                     BROKER_FILTER_USERS);
        }
    }
    own->resolved = !page.more || page.count == 0;
    if (!own->resolved) {
        own->person = arena_sv(&op->arena, page.items[page.count - 1].id);
    }
    return err;
}

/* A page of sessions behind own->after, until limit of them were taken. */
static enum err look_at_sessions(struct broker_op *op, take_fn take)
{
    CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };
    struct sessions_call *own = call_of(op);
    size_t i = 0;
    enum err err = ERR_OK;

    if (own->until_ms == 0) {
        own->until_ms = clock_mono_ms() + LOOK_MS;
    }
    broker_records_init(&page);
    err = read_page(op, op->type, own->after, &page);
    if (err != ERR_OK) {
        return err;
    }
    while (i < page.count && own->n_infos + op->in.count < own->limit) {
        take(op, &page.items[i]);
        i++;
    }
    own->more = page.more || i < page.count;
    if (i > 0) {
        own->after = arena_sv(&op->arena, page.items[i - 1].id);
    }
    return ERR_OK;
}

/* One session is read, not looked for. */
static enum err look_at_one(struct broker_op *op, take_fn take)
{
    CLEANUP(broker_records_deinit) struct broker_records found = { .items = NULL };
    enum err err = ERR_OK;

    broker_records_init(&found);
    call_of(op)->more = false;
    err = op->service->ops->get(op->service->store, op->type, call_of(op)->filter.session_id,
                                clock_mono_ms() + BROKER_READ_MS, &found);
    if (err == ERR_OK) {
        take(op, &found.items[0]);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* The next page of a look. */
static enum err look(struct broker_op *op, take_fn take)
{
    if (!call_of(op)->resolved) {
        return look_at_users(op);
    }
    return call_of(op)->filter.session_id.n > 0 ? look_at_one(op, take)
                                                : look_at_sessions(op, take);
}

/* Whether it goes on: there is more to look at, room for it and time. */
static bool goes_on(struct broker_op *op)
{
    const struct sessions_call *own = call_of(op);

    return op->err == ERR_OK &&
           (!own->resolved || (own->more && own->n_infos + op->in.count < own->limit &&
                               (own->until_ms == 0 || clock_mono_ms() < own->until_ms)));
}

/* ---- List, Get -------------------------------------------------------------------------------- */

static void read_infos(struct broker_op *op)
{
    op->err = look(op, take_info);
}

static void reply_list(struct broker_op *op)
{
    Postern__ListSessionsResponse response = POSTERN__LIST_SESSIONS_RESPONSE__INIT;
    struct sessions_call *own = call_of(op);

    if (goes_on(op)) {
        broker_op_search(op, read_infos, reply_list);
        return;
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.n_sessions = own->n_infos;
    response.sessions = own->infos;
    response.next_page_token = own->more ? arena_str(&op->arena, own->after) : base_unconst("");
    broker_op_reply(op, &response.base);
}

void broker_on_list_sessions(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__ListSessionsRequest *in =
        (const Postern__ListSessionsRequest *)(const void *)request;
    struct broker_op *op = begin(call, arg, in->filter);
    struct sessions_call *own = op == NULL ? NULL : call_of(op);

    if (op == NULL) {
        return;
    }
    if (op->err == ERR_OK && (in->page_size < 0 || in->page_size > LIST_MAX)) {
        diag_set(&op->d, "page_size: 1 to %d", LIST_MAX);
        op->err = ERR_INVALID;
    }
    if (op->err == ERR_OK && in->page_token[0] != '\0') {
        own->after = arena_sv(&op->arena, sv_from(in->page_token));
        op->err = broker_name_check(own->after, "page_token", &op->d);
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    own->limit = in->page_size == 0 ? LIST_DEFAULT : (size_t)in->page_size;
    own->infos = arena_alloc(&op->arena, own->limit * sizeof(Postern__SessionInfo *));
    broker_op_search(op, read_infos, reply_list);
}

static void reply_session(struct broker_op *op)
{
    Postern__GetSessionResponse response = POSTERN__GET_SESSION_RESPONSE__INIT;

    if (op->err == ERR_OK && call_of(op)->n_infos == 0) {
        diag_set(&op->d, "there is no such session, or it has ended");
        op->err = ERR_NOT_FOUND;
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.session = call_of(op)->infos[0];
    broker_op_reply(op, &response.base);
}

void broker_on_get_session(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__GetSessionRequest *in =
        (const Postern__GetSessionRequest *)(const void *)request;
    struct broker_op *op = begin(call, arg, NULL);

    if (op == NULL) {
        return;
    }
    call_of(op)->filter.session_id = arena_sv(&op->arena, sv_from(in->session_id));
    op->err = broker_name_check(call_of(op)->filter.session_id, "session_id", &op->d);
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    call_of(op)->infos = arena_alloc(&op->arena, sizeof(Postern__SessionInfo *));
    broker_op_read(op, read_infos, reply_session);
}

/* ---- Revoke: look for some, delete them, wait until every replica knows, look for more ---------- */

static void write_revoke(struct broker_op *op);

/* Where nothing is left, somebody else may have revoked it a moment ago: seen is not before that. */
static void read_revoke(struct broker_op *op)
{
    struct broker_info info = { .latest_version = 0 };

    op->err = look(op, take_victim);
    if (op->err == ERR_OK && call_of(op)->resolved && op->in.count == 0 && !call_of(op)->more) {
        op->err =
            op->service->ops->info(op->service->store, clock_mono_ms() + BROKER_READ_MS, &info);
        call_of(op)->seen = info.latest_version;
    }
}

static void reply_revoke(struct broker_op *op)
{
    Postern__RevokeSessionsResponse response = POSTERN__REVOKE_SESSIONS_RESPONSE__INIT;
    struct sessions_call *own = call_of(op);

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.revoked = own->revoked;
    response.user_known = own->filter.n_user_ids > 0;
    response.confirmed = !own->unconfirmed;
    broker_op_reply(op, &response.base);
}

static void go_on(struct broker_op *op)
{
    call_of(op)->unconfirmed = call_of(op)->unconfirmed || !op->confirmed;
    if (op->err == ERR_OK && call_of(op)->more) {
        broker_records_deinit(&op->in);
        broker_records_init(&op->in);
        call_of(op)->until_ms = 0;
        broker_op_read(op, read_revoke, write_revoke);
    } else {
        reply_revoke(op);
    }
}

static void revoked(struct broker_op *op)
{
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    call_of(op)->revoked += op->in.count;
    op->reply = go_on;
    broker_confirm_wait(op);
}

static void write_revoke(struct broker_op *op)
{
    if (goes_on(op)) {
        broker_op_read(op, read_revoke, write_revoke);
        return;
    }
    if (op->err == ERR_OK && call_of(op)->seen != 0) {
        op->reply = go_on;
        broker_confirm_wait_for(op, call_of(op)->seen);
        return;
    }
    if (op->err != ERR_OK || op->in.count == 0) {
        op->confirmed = true;
        go_on(op);
        return;
    }
    op->asked_for = false; /* each batch has its lines */
    op->write.records = &op->in;
    broker_op_write(op, BROKER_WRITE_PUT, "revoke", revoked);
}

void broker_on_revoke_sessions(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__RevokeSessionsRequest *in =
        (const Postern__RevokeSessionsRequest *)(const void *)request;
    struct broker_op *op = begin(call, arg, in->filter);

    if (op == NULL) {
        return;
    }
    if (op->err == ERR_OK && !broker_session_filter_is_set(&call_of(op)->filter)) {
        diag_set(&op->d, "filter: say which sessions; issued_before the present time means all");
        op->err = ERR_INVALID;
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    call_of(op)->limit = REVOKE_BATCH;
    broker_op_read(op, read_revoke, write_revoke);
}
