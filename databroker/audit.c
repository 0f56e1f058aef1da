/* The audit of changes. What somebody does (the command line, a token) has a line before it is done,
 * "asked", and one before it is acknowledged, "done" or "failed": no change of theirs is in the store
 * without the first, however we end. What daemons write (sessions of logins) has the second, for which
 * nobody waits but with audit.required: all. Renewed leases of daemons and notes of when
 * sessions were used have none: they say nothing. */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/access.h"
#include "databroker/service_int.h"

enum { TICK_MS = 100 };

static bool needs_line(const struct broker_op *op)
{
    switch (op->service->audit_required) {
    case CONFIG_AUDIT_DENIALS:
        return !broker_access_is_daemon(op->role);
    case CONFIG_AUDIT_ALL:
        return !broker_access_is_daemon(op->role) || op->write.kind == BROKER_WRITE_PUT;
    case CONFIG_AUDIT_NONE:
        break;
    }
    return false;
}

/* --- lines ------------------------------------------------------------------------------------ */

static void add_line(const struct broker_op *op, const char *outcome, const char *action,
                     const struct broker_record *record)
{
    struct buf *line = audit_line(op->service->audit);

    log_open(line, clock_wall_ms(), SV("databroker.write"));
    log_add_str(line, LOG_KEY("outcome"), outcome);
    log_add_str(line, LOG_KEY("action"), action);
    log_add_str(line, LOG_KEY("role"), rpc_role_name(op->role));
    log_add_str(line, LOG_KEY("caller"), op->who);
    log_add_sv(line, LOG_KEY("type"), record->type);
    log_add_sv(line, LOG_KEY("id"), record->id);
    if (record->version != 0) {
        log_add_u64(line, LOG_KEY("version"), record->version);
    }
    if (op->err != ERR_OK) {
        log_add_str(line, LOG_KEY("error"), err_name(op->err));
    }
    log_close(line);
    (void)audit_added(op->service->audit);
}

/* One line a record; their versions are those that a write gave them. */
static void add_lines(const struct broker_op *op, const char *outcome,
                      const struct broker_records *records)
{
    bool has_version = op->err == ERR_OK && outcome[0] == 'd';
    struct broker_record one = { .type = op->type, .id = op->write.lease_name };

    if (records == NULL) {
        add_line(op, outcome, op->action, &one);
        return;
    }
    for (size_t i = 0; i < records->count; i++) {
        one = records->items[i];
        one.version = has_version ? one.version : 0;
        add_line(op, outcome, one.deleted_us != 0 ? "delete" : op->action, &one);
    }
}

static bool is_worth_a_line(const struct broker_op *op)
{
    /* All that an authorize may write is when sessions were used; its own lines tell that better. */
    bool says_nothing = broker_access_is_daemon(op->role) &&
                        (op->write.kind == BROKER_WRITE_LEASE_RENEW || op->role == RPC_AUTHORIZE);

    return op->service->audit != NULL && op->action != NULL && !says_nothing;
}

/* --- waiting ---------------------------------------------------------------------------------- */

static void arm(struct broker_service *service)
{
    const struct timeval tick = { .tv_usec = TICK_MS * 1000L };

    if (!list_empty(&service->unaudited)) {
        CHECK(event_add(service->audit_timer, &tick) == 0);
    }
}

static void refuse(struct broker_op *op)
{
    if (op->err == ERR_OK) {
        op->err = ERR_LIMIT; /* of room for lines */
        diag_set(&op->d, op->asked_for ? "audit-unavailable: it is done, but its audit line is "
                                         "not written yet"
                                       : "audit-unavailable: nothing was done, because its audit "
                                         "line cannot be written");
    }
}

static void go_on(struct broker_op *op, bool is_written)
{
    void (*audited)(struct broker_op * op) = op->audited;

    list_remove(&op->in_unaudited);
    if (!is_written) {
        refuse(op);
    }
    audited(op);
}

static void look(struct broker_service *service)
{
    uint64_t written = audit_written(service->audit);
    bool works = audit_works(service->audit);
    int64_t now = clock_mono_ms();
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &service->unaudited) {
        struct broker_op *op = LIST_ENTRY(it, struct broker_op, in_unaudited);

        if (op->audit_number <= written) {
            go_on(op, true);
        } else if (!works || now >= op->audit_until_ms) {
            go_on(op, false);
        }
    }
    arm(service);
}

static void on_audit_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg);
}

static void take_news(void *arg)
{
    struct broker_service *service = arg;

    __atomic_store_n(&service->audit_news, 0, __ATOMIC_RELEASE);
    if (service->audit != NULL) {
        look(service);
    }
}

/* On the audit's thread. */
static void on_news(void *arg)
{
    struct broker_service *service = arg;

    if (__atomic_exchange_n(&service->audit_news, 1, __ATOMIC_ACQ_REL) == 0) {
        loop_post(service->loop, take_news, service);
    }
}

/* Hands the lines over, and calls audited now or when they are written. */
static void wait_for_lines(struct broker_op *op, const struct broker_records *records,
                           const char *outcome, void (*audited)(struct broker_op *op))
{
    struct broker_service *service = op->service;
    bool needed = needs_line(op);
    bool works = audit_works(service->audit);
    bool handed = false;

    if (!needed || works) {
        add_lines(op, outcome, records);
        op->audit_number = audit_made(service->audit);
        handed = audit_flush(service->audit, needed);
    }
    op->audited = audited;
    if (needed && !handed) {
        refuse(op);
    }
    if (!needed || !handed || !audit_confirms(service->audit)) {
        audited(op);
        return;
    }
    op->audit_until_ms = clock_mono_ms() + BROKER_AUDIT_MS;
    list_push_back(&service->unaudited, &op->in_unaudited);
    arm(service);
}

/* --- what the others call ------------------------------------------------------------------------ */

void broker_audit_asked(struct broker_op *op, void (*audited)(struct broker_op *op))
{
    if (!is_worth_a_line(op) || !needs_line(op) || op->asked_for) {
        audited(op);
        return;
    }
    wait_for_lines(op, op->write.records, "asked", audited);
}

void broker_audit_done(struct broker_op *op, void (*audited)(struct broker_op *op))
{
    op->asked_for = true;
    if (!is_worth_a_line(op)) {
        audited(op);
        return;
    }
    wait_for_lines(op, op->write.records, op->err == ERR_OK ? "done" : "failed", audited);
}

void broker_audit_refused(struct broker_op *op, const char *action,
                          const struct broker_records *records)
{
    op->action = action;
    if (op->service->audit != NULL) {
        add_lines(op, "refused", records);
        (void)audit_flush(op->service->audit, false);
    }
}

void broker_service_refused(void *arg, const struct rpc_refusal *refusal)
{
    struct broker_service *service = arg;

    if (service->audit != NULL) {
        rpc_refusal_line(refusal, clock_wall_ms(), audit_line(service->audit));
        (void)audit_added(service->audit);
        (void)audit_flush(service->audit, false);
    }
}

enum err broker_service_audit(struct broker_service *service, const struct config *config,
                              struct audit_ready *ready, struct diag *d)
{
    const struct audit_opts opts = { .config = config,
                                     .on_news = on_news,
                                     .arg = service,
                                     .on_works = ready == NULL ? NULL : audit_ready_works,
                                     .works_arg = ready };
    enum err err = service->audit == NULL ? audit_new(&opts, &service->audit, d)
                                          : audit_set(service->audit, config, d);

    if (err == ERR_OK) {
        service->audit_required = config->audit.required;
    }
    return err;
}

void broker_audit_init(struct broker_service *service)
{
    list_init(&service->unaudited);
    service->audit_timer = event_new(loop_base(service->loop), -1, 0, on_audit_timer, service);
    CHECK(service->audit_timer != NULL);
}

void broker_audit_deinit(struct broker_service *service)
{
    audit_free(&service->audit);
    event_free(service->audit_timer);
}
