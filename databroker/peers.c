/* Other databrokers of the same store: each tells, in the store, how far the replicas are that follow it, and
 * reads what the others tell. A replica counts from before it is sent anything: until its databroker has told
 * of it, it waits. That they have come further is told only where somebody waits for that: a deletion leaves
 * its version in the store, and so does who looks for one that somebody else made. */
#include "common/clock.h"
#include "common/log.h"
#include "databroker/service_int.h"

static void read_peers(void *arg)
{
    struct broker_service *service = arg;
    struct broker_peering *p = &service->peering;

    p->read_err = service->ops->peers(service->store, clock_mono_ms() + BROKER_READ_MS, &p->read);
}

static void peers_read(void *arg)
{
    struct broker_service *service = arg;
    struct broker_peering *p = &service->peering;

    p->read_out = false;
    if (p->read_err == ERR_OK) {
        p->seen = p->read;
        p->seen_round = p->round;
    }
    broker_confirm_check(service);
    broker_service_call_over(service);
}

uint64_t broker_peers_look(struct broker_service *service)
{
    struct broker_peering *p = &service->peering;

    if (!service->shared || p->read_out) {
        return service->shared ? p->round + 1 : 0;
    }
    if (job_submit(service->pool, read_peers, peers_read, service) != ERR_OK) {
        return p->round + 1;
    }
    p->read_out = true;
    p->round++;
    service->open_calls++;
    return p->round;
}

static void told(void *arg)
{
    struct broker_service *service = arg;
    struct broker_peering *p = &service->peering;

    p->tell_out = false;
    p->is_told = p->tell.err == ERR_OK;
    p->told = p->tell.confirmed;
    if (!p->is_told) { /* what reads the store waits for it as well; the next tick tells again */
        log_debug("databroker.peers-not-told", KV_ERR(p->tell.err));
        broker_sync_release(service);
    } else {
        p->own_told = p->tell.wanted;
        broker_peers_tell(service);
    }
    broker_service_call_over(service);
}

/* On the writer's thread. */
static void on_told(struct broker_write *w)
{
    struct broker_service *service = w->arg;

    loop_post(service->loop, told, service);
}

/* Whether what the others read of this one needs to change. */
static bool is_due(const struct broker_peering *p, uint64_t now)
{
    uint64_t wanted = __atomic_load_n(&p->wanted, __ATOMIC_SEQ_CST);

    return !p->is_told || now < p->told || (p->told < wanted && now >= wanted) ||
           p->own > p->own_told;
}

void broker_peers_tell(struct broker_service *service)
{
    struct broker_peering *p = &service->peering;
    uint64_t now = broker_sync_confirmed(service);

    if (!service->shared || p->tell_out) {
        return;
    }
    if (p->is_told && now >= p->told) { /* nobody can take a replica here for further than it is */
        broker_sync_release(service);
    }
    if (!is_due(p, now)) {
        return;
    }
    p->tell = (struct broker_write){ .kind = BROKER_WRITE_CONFIRMED,
                                     .confirmed = now,
                                     .wanted = p->own,
                                     .deadline_ms = clock_mono_ms() + BROKER_WRITE_MS,
                                     .done = on_told,
                                     .arg = service };
    if (service->ops->submit(service->store, &p->tell) == ERR_OK) {
        p->tell_out = true;
        service->open_calls++;
    } else {
        broker_sync_release(service);
    }
}

void broker_peers_want(struct broker_service *service, uint64_t version)
{
    struct broker_peering *p = &service->peering;

    if (p->seen.count > 0) {
        p->own = MAX(p->own, version);
        broker_peers_tell(service);
    }
}

void broker_peers_tick(struct broker_service *service)
{
    struct broker_peering *p = &service->peering;

    (void)broker_peers_look(service);
    broker_peers_tell(service);
    if (service->shared && p->seen.count > 0 &&
        clock_mono_ms() - service->reached_ms >= BROKER_ALONE_MS) {
        broker_sync_cut(service);
    }
}

void broker_peers_init(struct broker_service *service)
{
    service->peering = (struct broker_peering){ .is_told = true,
                                                .told = UINT64_MAX,
                                                .seen.confirmed = UINT64_MAX };
    service->reached_ms = clock_mono_ms();
}
