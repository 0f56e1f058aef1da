#include <stdio.h>

#include "google/protobuf/empty.pb-c.h"
#include "maintenance.pb-c.h"
#include "registry.pb-c.h"
#include "replica.pb-c.h"
#include "session_service.pb-c.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/external.h"
#include "databroker/service_int.h"

enum { READERS = 3, SEARCHERS = 1, JOBS_WAITING = 1024, SEARCHES_WAITING = 128 };

#define PATH(name)      "/databroker.DataBrokerService/" name
#define SESSIONS(name)  "/postern.SessionService/" name
#define SESSION_READERS (BIT(RPC_CLI) | BIT(RPC_TOKEN_READER) | BIT(RPC_TOKEN_SESSION_ADMIN))
#define WRITERS \
    (BIT(RPC_TOKEN_RECORD_WRITER) | BIT(RPC_TOKEN_DIRECTORY_WRITER) | BIT(RPC_TOKEN_CONFIG_WRITER))
#define LEASERS                                                            \
    (BIT(RPC_AUTHENTICATE) | BIT(RPC_CLI) | BIT(RPC_TOKEN_RECORD_WRITER) | \
     BIT(RPC_TOKEN_DIRECTORY_WRITER))
#define WATCHERS \
    (BIT(RPC_AUTHORIZE) | BIT(RPC_CLI) | BIT(RPC_TOKEN_READER) | BIT(RPC_TOKEN_SESSION_ADMIN))

/* Who may call what. access.c narrows it for tokens. Clear is for a databroker that takes over from
 * another; an operator removes the file. */
static const struct rpc_method methods[] = {
    { .path = PATH("Get"),
      .roles = WATCHERS | BIT(RPC_AUTHENTICATE) | WRITERS,
      .request = &databroker__get_request__descriptor,
      .handler = broker_on_get },
    { .path = PATH("Query"),
      .roles = WATCHERS | BIT(RPC_AUTHENTICATE) | WRITERS,
      .request = &databroker__query_request__descriptor,
      .handler = broker_on_query },
    { .path = PATH("Put"),
      .roles = BIT(RPC_AUTHENTICATE) | BIT(RPC_AUTHORIZE) | BIT(RPC_CLI) |
               BIT(RPC_TOKEN_SESSION_ADMIN) | WRITERS,
      .request = &databroker__put_request__descriptor,
      .handler = broker_on_put },
    { .path = PATH("Patch"),
      .roles = BIT(RPC_AUTHENTICATE) | BIT(RPC_CLI),
      .request = &databroker__patch_request__descriptor,
      .handler = broker_on_patch },
    { .path = PATH("Sync"),
      .roles = WATCHERS | BIT(RPC_AUTHENTICATE),
      .request = &databroker__sync_request__descriptor,
      .handler = broker_on_sync },
    { .path = PATH("SyncLatest"),
      .roles = WATCHERS | BIT(RPC_AUTHENTICATE),
      .request = &databroker__sync_latest_request__descriptor,
      .handler = broker_on_sync_latest },
    { .path = "/postern.Replica/Confirm",
      .roles = BIT(RPC_AUTHORIZE),
      .request = &postern__confirm_request__descriptor,
      .handler = broker_on_confirm },
    { .path = PATH("ServerInfo"),
      .roles = WATCHERS | BIT(RPC_AUTHENTICATE),
      .request = &google__protobuf__empty__descriptor,
      .handler = broker_on_server_info },
    { .path = "/databroker.CheckpointService/GetCheckpoint",
      .roles = WATCHERS | BIT(RPC_AUTHENTICATE),
      .request = &databroker__get_checkpoint_request__descriptor,
      .handler = broker_on_get_checkpoint },
    { .path = "/registry.Registry/Report",
      .roles = BIT(RPC_CLI) | BIT(RPC_TOKEN_CONFIG_WRITER),
      .request = &registry__register_request__descriptor,
      .handler = broker_on_report },
    { .path = "/registry.Registry/List",
      .roles = BIT(RPC_CLI) | BIT(RPC_TOKEN_READER) | BIT(RPC_TOKEN_CONFIG_WRITER),
      .request = &registry__list_request__descriptor,
      .handler = broker_on_list_services },
    { .path = "/registry.Registry/Watch",
      .roles = BIT(RPC_CLI) | BIT(RPC_TOKEN_READER) | BIT(RPC_TOKEN_CONFIG_WRITER),
      .request = &registry__list_request__descriptor,
      .handler = broker_on_watch_services },
    { .path = PATH("ListTypes"),
      .roles = BIT(RPC_CLI) | BIT(RPC_TOKEN_READER),
      .request = &google__protobuf__empty__descriptor,
      .handler = broker_on_list_types },
    { .path = PATH("GetOptions"),
      .roles = BIT(RPC_CLI) | BIT(RPC_TOKEN_READER),
      .request = &databroker__get_options_request__descriptor,
      .handler = broker_on_get_options },
    { .path = PATH("SetOptions"),
      .roles = BIT(RPC_CLI),
      .request = &databroker__set_options_request__descriptor,
      .handler = broker_on_set_options },
    { .path = PATH("AcquireLease"),
      .roles = LEASERS,
      .request = &databroker__acquire_lease_request__descriptor,
      .handler = broker_on_acquire },
    { .path = PATH("RenewLease"),
      .roles = LEASERS,
      .request = &databroker__renew_lease_request__descriptor,
      .handler = broker_on_renew },
    { .path = PATH("ReleaseLease"),
      .roles = LEASERS,
      .request = &databroker__release_lease_request__descriptor,
      .handler = broker_on_release },
    { .path = SESSIONS("List"),
      .roles = SESSION_READERS,
      .request = &postern__list_sessions_request__descriptor,
      .handler = broker_on_list_sessions },
    { .path = SESSIONS("Get"),
      .roles = SESSION_READERS,
      .request = &postern__get_session_request__descriptor,
      .handler = broker_on_get_session },
    { .path = SESSIONS("Revoke"),
      .roles = BIT(RPC_CLI) | BIT(RPC_TOKEN_SESSION_ADMIN),
      .request = &postern__revoke_sessions_request__descriptor,
      .handler = broker_on_revoke_sessions },
    { .path = SESSIONS("Watch"),
      .roles = SESSION_READERS,
      .request = &postern__watch_sessions_request__descriptor,
      .handler = broker_on_watch_sessions },
    { .path = "/postern.Maintenance/RotateKeys",
      .roles = BIT(RPC_CLI),
      .request = &postern__rotate_keys_request__descriptor,
      .handler = broker_on_rotate_keys },
    { .path = PATH("Clear"),
      .roles = BIT(RPC_DATABROKER),
      .request = &google__protobuf__empty__descriptor,
      .handler = broker_on_clear },
};

const struct rpc_method *broker_service_methods(size_t *n_out)
{
    *n_out = ARRAY_LEN(methods);
    return methods;
}

/* ---- one call -------------------------------------------------------------------------------- */

void broker_service_call_over(struct broker_service *service)
{
    service->open_calls--;
    if (service->stopping && service->open_calls == 0 && service->stopped != NULL) {
        void (*stopped)(void *arg) = TAKE(service->stopped);

        stopped(service->stopped_arg);
    }
}

static struct broker_op *op_new(struct broker_service *service, enum rpc_role role, const char *who)
{
    struct broker_op *op = MEM_NEW(struct broker_op);

    op->service = service;
    op->role = role;
    (void)snprintf(op->who, sizeof(op->who), "%s", who);
    arena_init(&op->arena);
    broker_records_init(&op->in);
    broker_records_init(&op->out);
    service->open_calls++;
    return op;
}

struct broker_op *broker_op_new(struct broker_service *service, struct rpc_call *call)
{
    if (service->stopping) {
        rpc_call_fail(call, RPC_UNAVAILABLE, "the databroker stops");
        return NULL;
    }
    struct broker_op *op = op_new(service, rpc_call_role(call), rpc_call_who(call));

    op->call = call;
    return op;
}

struct broker_op *broker_op_own(struct broker_service *service, const char *who,
                                void (*over)(struct broker_op *op), void *arg)
{
    if (service->stopping) {
        return NULL;
    }
    struct broker_op *op = op_new(service, RPC_DATABROKER, who);

    op->over = over;
    op->over_arg = arg;
    return op;
}

void broker_op_over(struct broker_op *op)
{
    op->over(op);
    broker_op_free(&op);
}

void broker_op_free(struct broker_op **op)
{
    struct broker_op *o = TAKE(*op);
    struct broker_service *service = o->service;

    arena_deinit(&o->arena);
    broker_records_deinit(&o->in);
    broker_records_deinit(&o->out);
    mem_free(&o);
    broker_service_call_over(service);
}

void broker_op_reply(struct broker_op *op, const ProtobufCMessage *response)
{
    rpc_call_reply(op->call, response);
    broker_op_free(&op);
}

const char *broker_err_text(enum err err)
{
    static const struct {
        enum err err;
        const char *text;
    } texts[] = {
        { ERR_NOT_FOUND, "no such record" },
        { ERR_EXISTS, "somebody else holds the lease, or it has ended" },
        { ERR_LIMIT, "the store is full or too busy" },
        { ERR_TIMEOUT, "the store took too long" },
        { ERR_ABORTED,
          "another server version, or the change log does not reach back: SyncLatest" },
        { ERR_UNAVAILABLE, "the store does not work now" },
    };

    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].err == err) {
            return texts[i].text;
        }
    }
    return "the databroker failed";
}

void broker_op_fail(struct broker_op *op)
{
    /* a store that cannot be read or written may recover: callers try again */
    enum err err = op->err == ERR_IO ? ERR_UNAVAILABLE : op->err;

    if (op->call == NULL) {
        broker_op_over(op);
        return;
    }
    rpc_call_fail(op->call, rpc_status_of(err),
                  op->d.text[0] != '\0' ? op->d.text : broker_err_text(err));
    broker_op_free(&op);
}

static void run_read(void *arg)
{
    struct broker_op *op = arg;

    op->read(op);
}

static void read_done(void *arg)
{
    struct broker_op *op = arg;

    op->reply(op);
}

static void submit_read(struct broker_op *op, struct job_pool *pool)
{
    enum err err = job_submit(pool, run_read, read_done, op);

    if (err != ERR_OK) { /* or the job has op by now */
        op->err = err;
        broker_op_fail(op);
    }
}

void broker_op_read(struct broker_op *op, void (*read)(struct broker_op *op),
                    void (*reply)(struct broker_op *op))
{
    op->read = read;
    op->reply = reply;
    submit_read(op, op->service->pool);
}

void broker_op_search(struct broker_op *op, void (*read)(struct broker_op *op),
                      void (*reply)(struct broker_op *op))
{
    op->read = read;
    op->reply = reply;
    submit_read(op, op->service->searches);
}

static void write_done(void *arg)
{
    struct broker_op *op = arg;

    op->err = op->write.err;
    if (op->err == ERR_ABORTED) { /* a Patch that lost against another: it tries again */
        op->reply(op);
    } else {
        broker_audit_done(op, op->reply);
    }
}

/* On the writer's thread. */
static void on_written(struct broker_write *w)
{
    struct broker_op *op = w->arg;

    loop_post(op->service->loop, write_done, op);
}

static void submit_write(struct broker_op *op)
{
    if (op->err != ERR_OK) { /* its audit line cannot be written */
        broker_op_fail(op);
        return;
    }
    op->asked_for = true;
    op->write.deadline_ms = clock_mono_ms() + BROKER_WRITE_MS;
    op->write.done = on_written;
    op->write.arg = op;
    op->err = op->service->ops->submit(op->service->store, &op->write);
    if (op->err != ERR_OK) {
        broker_audit_done(op, broker_op_fail);
    }
}

void broker_op_write(struct broker_op *op, enum broker_write_kind kind, const char *action,
                     void (*reply)(struct broker_op *op))
{
    op->reply = reply;
    op->action = action;
    op->write.kind = kind;
    for (size_t i = 0; op->write.records != NULL && i < op->write.records->count; i++) {
        struct broker_record *record = &op->write.records->items[i];

        record->ends_us = broker_record_end_us(record);
    }
    broker_audit_asked(op, submit_write);
}

/* ---- the writer's health --------------------------------------------------------------------- */

static void tell_health(struct broker_service *service, bool ready, const char *why)
{
    bool stuck = service->probe_out && clock_mono_ms() - service->probe_began_ms >= BROKER_STUCK_MS;
    struct broker_health health = { .ready = ready, .stuck = stuck, .why = why };

    if (service->on_health != NULL) {
        service->on_health(service->health_arg, &health);
    }
}

static void probe_over(void *arg)
{
    struct broker_service *service = arg;
    enum err err = service->probe.err;
    const char *why = NULL;

    service->probe_out = false;
    if (err == ERR_OK) {
        service->reached_ms = service->probe_began_ms;
    } else {
        service->peering.is_told = false; /* the store may come back as it was before */
    }
    if (err == ERR_LIMIT) {
        why = "store-full";
    } else if (err == ERR_TIMEOUT) {
        why = "store-slow";
    } else if (err == ERR_UNAVAILABLE) {
        why = "store-unreachable";
    } else if (err != ERR_OK) {
        why = "store-failed";
    }
    tell_health(service, err == ERR_OK, why);
    broker_service_call_over(service);
}

static void probe_read(void *arg)
{
    struct broker_service *service = arg;
    struct broker_info info;

    service->probe.err =
        service->ops->info(service->store, clock_mono_ms() + BROKER_PROBE_LATE_MS, &info);
}

/* What was written is read on the way of every read. */
static void probe_done(void *arg)
{
    struct broker_service *service = arg;
    enum err err = service->probe.err;

    if (err == ERR_OK) {
        err = job_submit(service->pool, probe_read, probe_over, service);
        if (err == ERR_OK) {
            return; /* the job may have set probe.err by now */
        }
    }
    service->probe.err = err;
    probe_over(service);
}

static void on_probed(struct broker_write *w)
{
    struct broker_service *service = w->arg;

    loop_post(service->loop, probe_done, service);
}

static void on_probe_timer(evutil_socket_t fd, short what, void *arg)
{
    struct broker_service *service = arg;
    int64_t now = clock_mono_ms();

    (void)fd;
    (void)what;
    if (service->stopping) {
        return;
    }
    broker_tokens_tick(service);
    broker_peers_tick(service);
    broker_registry_tick(service->registry);
    if (service->probe_out) {
        if (now - service->probe_began_ms >= BROKER_PROBE_LATE_MS - BROKER_PROBE_MS) {
            tell_health(service, false, "store-slow");
        }
        return;
    }
    service->probe = (struct broker_write){ .kind = BROKER_WRITE_PROBE,
                                            .deadline_ms = now + BROKER_PROBE_LATE_MS,
                                            .done = on_probed,
                                            .arg = service };
    service->probe_began_ms = now;
    if (service->ops->submit(service->store, &service->probe) != ERR_OK) {
        tell_health(service, false, "store-busy");
        return;
    }
    service->probe_out = true;
    service->open_calls++;
}

void broker_service_on_health(struct broker_service *service, broker_health_fn on_health, void *arg)
{
    service->on_health = on_health;
    service->health_arg = arg;
    event_active(service->probe_timer, 0, 0);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void wake_followers(void *arg)
{
    struct broker_service *service = arg;

    __atomic_store_n(&service->wake_posted, 0, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&service->options_news, 0, __ATOMIC_SEQ_CST) != 0) {
        service->options_generation++;
    }
    broker_sync_wake(service);
    broker_peers_tell(service);
}

/* On the watcher's thread; on_commit follows. */
static void on_options(void *arg)
{
    struct broker_service *service = arg;

    __atomic_store_n(&service->options_news, 1, __ATOMIC_SEQ_CST);
}

/* Likewise. */
static void on_wanted(void *arg, uint64_t version)
{
    struct broker_service *service = arg;

    __atomic_store_n(&service->peering.wanted, version, __ATOMIC_SEQ_CST);
}

/* On the writer's thread, or the watcher's. */
static void on_commit(void *arg)
{
    struct broker_service *service = arg;

    if (__atomic_exchange_n(&service->wake_posted, 1, __ATOMIC_SEQ_CST) == 0) {
        loop_post(service->loop, wake_followers, service);
    }
}

enum err broker_service_new(struct loop *loop, const struct broker_store_ops *ops,
                            const struct broker_store_opts *opts,
                            struct broker_service **service_out, struct diag *d)
{
    struct broker_service *service = MEM_NEW(struct broker_service);
    struct broker_store_opts own = *opts;
    const struct timeval every = { .tv_sec = BROKER_PROBE_MS / 1000 };
    enum err err = ERR_OK;

    service->loop = loop;
    service->ops = ops;
    service->options_generation = 1;
    list_init(&service->followers);
    service->shared = (opts->beneath != NULL ? opts->beneath : ops)->peers != NULL;
    broker_peers_init(service);
    broker_confirm_init(service);
    broker_audit_init(service);
    own.readers = READERS + SEARCHERS;
    own.on_commit = on_commit;
    own.on_options = on_options;
    own.on_wanted = on_wanted;
    own.arg = service;
    err = ops->open(&own, &service->store, d);
    if (err != ERR_OK) {
        broker_confirm_deinit(service);
        broker_audit_deinit(service);
        mem_free(&service);
        return err;
    }
    err = broker_tokens_init(service, d);
    if (err != ERR_OK) {
        ops->close(&service->store);
        broker_confirm_deinit(service);
        broker_audit_deinit(service);
        mem_free(&service);
        return err;
    }
    service->pool = job_pool_new(loop, READERS, JOBS_WAITING);
    service->searches = job_pool_new(loop, SEARCHERS, SEARCHES_WAITING);
    service->probe_timer = event_new(loop_base(loop), -1, EV_PERSIST, on_probe_timer, service);
    CHECK(service->probe_timer != NULL && event_add(service->probe_timer, &every) == 0);
    service->external = broker_external_new(service);
    service->registry = broker_registry_new(service, BROKER_REGISTRY_TTL_MS);
    *service_out = service;
    return ERR_OK;
}

void broker_service_fetch(struct broker_service *service, const struct config *config)
{
    broker_external_set(service->external, config);
}

void broker_service_stop(struct broker_service *service, void (*stopped)(void *arg), void *arg)
{
    service->stopping = true;
    service->stopped = stopped;
    service->stopped_arg = arg;
    service->open_calls++;
    broker_sync_stop(service);
    broker_registry_stop(service->registry);
    broker_external_stop(service->external);
    broker_service_call_over(service);
}

void broker_service_free(struct broker_service **service)
{
    struct broker_service *s = TAKE(*service);

    if (s == NULL) {
        return;
    }
    if (s->open_calls > 0) {
        /* The store hangs and the grace is over: the process ends with it. */
        log_error("databroker.hangs", KV_U64("calls", s->open_calls));
        return;
    }
    event_free(s->probe_timer);
    broker_external_free(&s->external);
    broker_registry_free(&s->registry);
    broker_confirm_deinit(s);
    broker_audit_deinit(s);
    job_pool_free(&s->searches);
    job_pool_free(&s->pool);
    broker_tokens_deinit(s);
    s->ops->close(&s->store);
    mem_free(&s);
}
