/* Acknowledged deletions: the answer waits until every replica that confirms has taken them in, this
 * databroker's and those of others of the store, so that after a revoke the very next request is refused
 * everywhere. It waits BROKER_CONFIRM_MS at most: a replica that hangs, or a databroker that is gone, decides
 * nothing meanwhile, and must not keep others from revoking. That a databroker is gone is believed only when
 * it has long been silent, however sure its end: what followed it still has what it had (docs/postgresql.md). */
#include "replica.pb-c.h"

#include "common/clock.h"
#include "common/log.h"
#include "databroker/service_int.h"

enum { LOOK_MS = 20 }; /* between two looks at what other databrokers tell */

/* Whether other databrokers' replicas have what op deleted. */
static bool peers_have(const struct broker_op *op)
{
    const struct broker_peering *p = &op->service->peering;

    return !op->service->shared ||
           (p->seen_round >= op->confirm_round && p->seen.confirmed >= op->confirm_version);
}

static void arm(struct broker_service *service)
{
    const struct broker_op *first = NULL;
    struct list *it = NULL;
    int64_t left_ms = 0;
    struct timeval tv;

    if (list_empty(&service->unconfirmed)) {
        (void)event_del(service->confirm_timer);
        return;
    }
    first = LIST_ENTRY(service->unconfirmed.next, struct broker_op, in_unconfirmed);
    left_ms = MAX(first->confirm_until_ms - clock_mono_ms(), (int64_t)0);
    LIST_FOREACH(it, &service->unconfirmed) {
        if (!peers_have(LIST_ENTRY(it, struct broker_op, in_unconfirmed))) {
            left_ms = MIN(left_ms, (int64_t)LOOK_MS);
            break;
        }
    }
    tv = (struct timeval){ .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };
    CHECK(event_add(service->confirm_timer, &tv) == 0);
}

/* True when all replicas have what op deleted, or it has waited long enough. */
static bool is_over(struct broker_op *op, uint64_t confirmed, int64_t now_ms)
{
    const struct broker_peering *p = &op->service->peering;

    op->confirmed = op->confirm_version <= confirmed && peers_have(op);
    if (op->confirmed || now_ms < op->confirm_until_ms) {
        return op->confirmed;
    }
    log_warn("databroker.unconfirmed", KV_U64("version", op->confirm_version),
             KV_U64("confirmed", confirmed), KV_U64("confirmed_elsewhere", p->seen.confirmed),
             KV_STR("databroker", peers_have(op) ? "this one" : p->seen.last));
    return true;
}

static void answer_ready(struct broker_service *service)
{
    uint64_t confirmed = broker_sync_confirmed(service);
    int64_t now = clock_mono_ms();
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &service->unconfirmed) {
        struct broker_op *op = LIST_ENTRY(it, struct broker_op, in_unconfirmed);

        if (is_over(op, confirmed, now)) {
            list_remove(&op->in_unconfirmed);
            op->reply(op);
        }
    }
    arm(service);
}

static void on_confirm_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)broker_peers_look(arg);
    answer_ready(arg);
}

void broker_confirm_init(struct broker_service *service)
{
    list_init(&service->unconfirmed);
    service->confirm_timer = event_new(loop_base(service->loop), -1, 0, on_confirm_timer, service);
    CHECK(service->confirm_timer != NULL);
}

void broker_confirm_deinit(struct broker_service *service)
{
    event_free(service->confirm_timer);
}

static void wait_for(struct broker_op *op, uint64_t version)
{
    op->confirm_version = version;
    op->confirm_round = broker_peers_look(op->service);
    op->confirm_until_ms = clock_mono_ms() + BROKER_CONFIRM_MS;
    list_push_back(&op->service->unconfirmed, &op->in_unconfirmed);
    answer_ready(op->service);
}

void broker_confirm_wait_for(struct broker_op *op, uint64_t version)
{
    broker_peers_want(op->service, version);
    wait_for(op, version);
}

/* The store tells other databrokers of these by itself. */
void broker_confirm_wait(struct broker_op *op)
{
    uint64_t last = 0;
    size_t i = 0;

    for (i = 0; i < op->in.count; i++) {
        if (op->in.items[i].deleted_us != 0) {
            last = MAX(last, op->in.items[i].version);
        }
    }
    if (last == 0) {
        op->confirmed = true;
        op->reply(op);
    } else {
        wait_for(op, last);
    }
}

void broker_confirm_check(struct broker_service *service)
{
    broker_peers_tell(service);
    if (!list_empty(&service->unconfirmed)) {
        answer_ready(service);
    }
}

void broker_on_confirm(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__ConfirmRequest *in = (const Postern__ConfirmRequest *)(const void *)request;
    Postern__ConfirmResponse response = POSTERN__CONFIRM_RESPONSE__INIT;

    if (!broker_sync_confirm(arg, sv_from(in->follower), in->record_version)) {
        rpc_call_fail(call, RPC_NOT_FOUND, "no such follower");
        return;
    }
    rpc_call_reply(call, &response.base);
    broker_confirm_check(arg);
}
