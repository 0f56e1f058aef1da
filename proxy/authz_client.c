#include "proxy/authz_client.h"

#include <string.h>

#include <event2/event.h>

#include "common/authz_block.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/policy/reason.h"
#include "common/rpc/wire.h"
#include "proxy/authz_link.h"

enum {
    OPEN_MAX = 8192, /* checks that wait for an answer */
    QUEUE_MAX = 8 * 1024 * 1024,
    MESSAGE_MAX = AUTHZ_MESSAGE_MAX - 65536,
    TICK_MS = 50,
    HOLD_US = 2000,      /* for an answer, before the next message leaves without it */
    SUSPECT_US = 100000, /* silent for longer: others are asked first */
    BEHIND_US = 1000000, /* so are they after an answer that the store is not known */
    FIELD_CHECKS = 1,    /* CheckBatch.checks */
    FIELD_PLACE = 2      /* CheckBatch.place */
};

/* One authorize: its link, and the checks it was asked. */
struct peer {
    struct proxy_authz *client;
    struct proxy_sockaddr address;
    struct proxy_authz_link *link;
    struct list asked; /* slots, oldest first */
    bool wanted;       /* still among the addresses */
    int64_t behind_until_us;
};

/* A check. It waits in the queue or for a peer; never for both. */
struct slot {
    struct list by_age;  /* of all open ones, in the order of their deadlines */
    struct list in_line; /* queue, or what its peer was asked */
    struct peer *peer;   /* NULL: in the queue */
    uint32_t index;
    uint32_t generation; /* in the id: a late answer to an older check is dropped */
    bool used;
    int64_t deadline_ms;
    proxy_answer_fn fn;
    void *arg;
    struct buf packed; /* the check, to be sent again on another stream */
};

struct proxy_authz {
    struct proxy_authz_opts opts;
    struct loop_tick *tick;
    struct event *hold;
    struct peer *peers[PROXY_AUTHZ_PEERS_MAX];
    size_t n_peers;
    size_t n_up;
    size_t turn; /* of the peers: who is asked next */
    unsigned place;
    struct slot *slots[OPEN_MAX];
    uint32_t n_slots;
    struct list spare;
    struct list by_age;
    struct list queue;
    size_t queue_bytes;
    struct buf batch; /* the message that is being made */
};

/* ---- open checks ----------------------------------------------------------------------------- */

static uint64_t slot_id(const struct slot *s)
{
    return (uint64_t)s->generation << 32U | s->index;
}

static struct slot *slot_of(struct proxy_authz *a, uint64_t id)
{
    uint32_t i = (uint32_t)(id & UINT32_MAX);

    if (i >= a->n_slots || !a->slots[i]->used || a->slots[i]->generation != id >> 32U) {
        return NULL;
    }
    return a->slots[i];
}

static struct slot *slot_take(struct proxy_authz *a)
{
    struct slot *s = NULL;

    if (!list_empty(&a->spare)) {
        s = LIST_ENTRY(a->spare.next, struct slot, by_age);
        list_remove(&s->by_age);
    } else if (a->n_slots < OPEN_MAX) {
        s = MEM_NEW(struct slot);
        s->index = a->n_slots;
        list_init(&s->by_age);
        list_init(&s->in_line);
        buf_init(&s->packed, AUTHZ_MESSAGE_MAX);
        a->slots[a->n_slots++] = s;
    } else {
        return NULL;
    }
    s->generation++;
    s->used = true;
    return s;
}

static void leave_queue(struct proxy_authz *a, struct slot *s)
{
    list_remove(&s->in_line);
    if (s->peer == NULL) {
        a->queue_bytes -= s->packed.n;
    }
}

static void slot_release(struct proxy_authz *a, struct slot *s)
{
    leave_queue(a, s);
    list_remove(&s->by_age);
    list_push_front(&a->spare, &s->by_age);
    s->used = false;
    s->peer = NULL;
}

static void slot_answer(struct proxy_authz *a, struct slot *s, const struct proxy_answer *answer)
{
    proxy_answer_fn fn = s->fn;
    void *arg = s->arg;

    slot_release(a, s);
    fn(arg, answer);
}

static void expire(struct proxy_authz *a, int64_t now_ms)
{
    static const struct proxy_answer nobody = { .verdict = PROXY_VERDICT_NONE };

    while (!list_empty(&a->by_age)) {
        struct slot *oldest = LIST_ENTRY(a->by_age.next, struct slot, by_age);

        if (oldest->deadline_ms > now_ms) {
            return;
        }
        slot_answer(a, oldest, &nobody);
    }
}

uint64_t proxy_authz_check(struct proxy_authz *authz, Postern__CheckRequest *check,
                           proxy_answer_fn fn, void *arg)
{
    struct slot *s = slot_take(authz);

    if (s == NULL) {
        return 0;
    }
    check->id = slot_id(s);
    buf_reset(&s->packed);
    proxy_authz_wire_check(&s->packed, check);
    s->fn = fn;
    s->arg = arg;
    s->deadline_ms = clock_coarse_ms() + authz->opts.timeout_ms;
    list_push_back(&authz->by_age, &s->by_age);
    list_push_back(&authz->queue, &s->in_line);
    authz->queue_bytes += s->packed.n;
    if (s->packed.err != ERR_OK || s->packed.n + 16 > MESSAGE_MAX ||
        authz->queue_bytes > QUEUE_MAX) {
        slot_release(authz, s);
        return 0;
    }
    loop_gather(authz->opts.loop);
    return check->id;
}

void proxy_authz_cancel(struct proxy_authz *authz, uint64_t handle)
{
    struct slot *s = slot_of(authz, handle);

    if (s != NULL) {
        slot_release(authz, s);
    }
}

/* ---- sending --------------------------------------------------------------------------------- */

static bool is_silent(const struct peer *p, int64_t now_us, int64_t us)
{
    int64_t since = proxy_authz_link_silent_since_us(p->link);

    return since != 0 && now_us - since > us;
}

/* Whether another one is up that answers and, as far as it has said, knows the store. */
static bool is_outdone(const struct proxy_authz *a, const struct peer *p, int64_t now_us)
{
    for (size_t i = 0; i < a->n_peers; i++) {
        const struct peer *other = a->peers[i];

        if (other != p && proxy_authz_link_is_up(other->link) && now_us >= other->behind_until_us &&
            !is_silent(other, now_us, SUSPECT_US)) {
            return true;
        }
    }
    return false;
}

static bool is_free(const struct proxy_authz *a, const struct peer *p, int64_t now_us)
{
    if (!proxy_authz_link_can_send(p->link) || (a->n_up > 1 && is_silent(p, now_us, SUSPECT_US)) ||
        (now_us < p->behind_until_us && is_outdone(a, p, now_us))) {
        return false;
    }
    /* While an answer is on its way checks gather: they cost far less together. */
    return proxy_authz_link_silent_since_us(p->link) == 0 ||
           now_us - proxy_authz_link_sent_at_us(p->link) >= HOLD_US;
}

/* The next in turn that can take a message; NULL: nobody now. */
static struct peer *next_peer(struct proxy_authz *a)
{
    int64_t now_us = clock_mono_us();

    for (size_t i = 0; i < a->n_peers; i++) {
        struct peer *p = a->peers[(a->turn + i) % a->n_peers];

        if (is_free(a, p, now_us)) {
            a->turn = (a->turn + i + 1) % a->n_peers;
            return p;
        }
    }
    return NULL;
}

/* As many of the queue as fit into one message; authorize ends the stream over a bigger one. */
static void ask(struct proxy_authz *a, struct peer *p)
{
    char place[RPC_WIRE_FIELD_MAX];
    bool near = proxy_authz_is_near(a);
    size_t n = 0;

    buf_reset(&a->batch);
    while (!list_empty(&a->queue) && n < AUTHZ_BATCH_MAX) {
        struct slot *s = LIST_ENTRY(a->queue.next, struct slot, in_line);

        if (a->batch.n + s->packed.n + 16 > MESSAGE_MAX && n > 0) {
            break;
        }
        leave_queue(a, s);
        s->peer = p;
        list_push_back(&p->asked, &s->in_line);
        rpc_wire_add_head(&a->batch, FIELD_CHECKS, s->packed.n);
        buf_add_sv(&a->batch, buf_sv(&s->packed));
        n++;
    }
    buf_add(&a->batch, place,
            (size_t)(rpc_wire_put_number(place, FIELD_PLACE, near ? a->place : 0) - place));
    CHECK(a->batch.err == ERR_OK);
    proxy_authz_link_send(p->link, buf_sv(&a->batch));
}

bool proxy_authz_is_near(const struct proxy_authz *authz)
{
    return authz->n_peers == 1 && authz->peers[0]->address.at.ss_family == AF_UNIX;
}

void proxy_authz_place(struct proxy_authz *authz, unsigned place)
{
    authz->place = place;
}

void proxy_authz_flush(struct proxy_authz *authz)
{
    static const struct timeval hold = { .tv_usec = HOLD_US };

    while (!list_empty(&authz->queue)) {
        struct peer *p = next_peer(authz);

        if (p == NULL) {
            if (authz->n_up > 0) {
                (void)event_add(authz->hold, &hold); /* rarely fires: an answer comes first */
            }
            return;
        }
        ask(authz, p);
    }
}

bool proxy_authz_is_awaited(const struct proxy_authz *authz)
{
    return proxy_authz_is_near(authz) && proxy_authz_link_is_up(authz->peers[0]->link) &&
           proxy_authz_link_silent_since_us(authz->peers[0]->link) != 0;
}

void proxy_authz_look(struct proxy_authz *authz)
{
    if (proxy_authz_is_awaited(authz)) {
        proxy_authz_link_look(authz->peers[0]->link);
    }
}

static void on_hold(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    proxy_authz_flush(arg);
}

/* ---- from the links -------------------------------------------------------------------------- */

/* What it was asked and has not answered goes to the front of the queue, in its order. */
static void queue_again(struct proxy_authz *a, struct slot *s)
{
    list_remove(&s->in_line);
    s->peer = NULL;
    list_push_front(&a->queue, &s->in_line);
    a->queue_bytes += s->packed.n;
    loop_gather(a->opts.loop);
}

static void take_back(struct proxy_authz *a, struct peer *p)
{
    while (!list_empty(&p->asked)) {
        queue_again(a, LIST_ENTRY(p->asked.prev, struct slot, in_line));
    }
}

static bool knows_no_store(const struct proxy_authz_reply *reply)
{
    for (size_t i = 0; i < reply->n_reasons; i++) {
        if (reply->reasons[i] == POLICY_REASON_STORE_UNAVAILABLE ||
            reply->reasons[i] == POLICY_REASON_STORE_BEHIND) {
            return reply->decision == POSTERN__DECISION__UNAVAILABLE;
        }
    }
    return false;
}

/* The check goes to one that may know more. False: there is none. */
static bool pass_on(struct peer *p, struct slot *s)
{
    int64_t now_us = clock_mono_us();

    p->behind_until_us = now_us + BEHIND_US;
    if (!is_outdone(p->client, p, now_us)) {
        return false;
    }
    queue_again(p->client, s);
    return true;
}

static void on_up(void *arg, bool up)
{
    struct peer *p = arg;
    struct proxy_authz *a = p->client;

    if (up) {
        a->n_up++;
    } else {
        a->n_up--;
        take_back(a, p);
    }
    if (a->n_up == (up ? 1 : 0)) {
        a->opts.on_link(a->opts.arg, up);
    }
    loop_gather(a->opts.loop);
}

static void on_answered(void *arg)
{
    struct peer *p = arg;

    if (!list_empty(&p->client->queue)) {
        loop_gather(p->client->opts.loop);
    }
}

static void on_changed(void *arg, const struct sv *sessions, size_t n, bool all)
{
    struct peer *p = arg;

    p->client->opts.on_changed(p->client->opts.arg, sessions, n, all);
}

static void on_reply(void *arg, const struct proxy_authz_reply *reply)
{
    static const enum proxy_verdict verdicts[] = {
        [POSTERN__DECISION__DENY] = PROXY_VERDICT_DENY,
        [POSTERN__DECISION__ALLOW] = PROXY_VERDICT_ALLOW,
        [POSTERN__DECISION__LOGIN] = PROXY_VERDICT_LOGIN,
        [POSTERN__DECISION__UNAVAILABLE] = PROXY_VERDICT_UNAVAILABLE,
    };
    struct peer *p = arg;
    struct slot *s = slot_of(p->client, reply->id);
    struct proxy_answer answer = { .verdict = PROXY_VERDICT_NONE };

    if (s == NULL || s->peer != p) {
        return; /* cancelled, too late, or not its to answer */
    }
    if (knows_no_store(reply) && pass_on(p, s)) {
        return;
    }
    if (reply->decision < ARRAY_LEN(verdicts)) {
        answer.verdict = verdicts[reply->decision];
    }
    answer.status = reply->status >= 400 && reply->status <= 599 ? (unsigned)reply->status : 0;
    answer.reasons = reply->reasons;
    answer.n_reasons = reply->n_reasons;
    answer.valid_until_s = reply->valid_until_s;
    answer.user = reply->user;
    answer.email = reply->email;
    if (answer.verdict == PROXY_VERDICT_ALLOW && reply->block != 0) {
        answer.identity = proxy_authz_link_identity(p->link, reply->block);
        if (answer.identity == NULL) { /* it must not become another one */
            answer.verdict = PROXY_VERDICT_NONE;
        }
    }
    slot_answer(p->client, s, &answer);
}

/* ---- who there is ---------------------------------------------------------------------------- */

static void peer_free(struct peer **peer)
{
    struct peer *p = TAKE(*peer);

    if (proxy_authz_link_is_up(p->link)) {
        on_up(p, false);
    }
    proxy_authz_link_free(&p->link);
    CHECK(list_empty(&p->asked));
    mem_free(&p);
}

static void peer_add(struct proxy_authz *a, const struct proxy_sockaddr *address)
{
    struct peer *p = MEM_NEW(struct peer);

    p->client = a;
    p->address = *address;
    p->wanted = true;
    list_init(&p->asked);
    a->peers[a->n_peers++] = p;
    p->link = proxy_authz_link_new(&(struct proxy_authz_link_opts){ .loop = a->opts.loop,
                                                                    .identity = a->opts.identity,
                                                                    .address = address,
                                                                    .on_up = on_up,
                                                                    .on_reply = on_reply,
                                                                    .on_changed = on_changed,
                                                                    .on_answered = on_answered,
                                                                    .arg = p });
}

static struct peer *peer_at(struct proxy_authz *a, const struct proxy_sockaddr *address)
{
    for (size_t i = 0; i < a->n_peers; i++) {
        if (proxy_sockaddr_same(&a->peers[i]->address, address)) {
            return a->peers[i];
        }
    }
    return NULL;
}

void proxy_authz_set(struct proxy_authz *authz, const struct proxy_sockaddr *v, size_t n)
{
    struct proxy_authz *a = authz;
    size_t kept = 0;

    n = MIN(n, (size_t)PROXY_AUTHZ_PEERS_MAX);
    for (size_t i = 0; i < a->n_peers; i++) {
        a->peers[i]->wanted = false;
    }
    for (size_t i = 0; i < n; i++) {
        struct peer *p = peer_at(a, &v[i]);

        if (p != NULL) {
            p->wanted = true;
        }
    }
    for (size_t i = 0; i < a->n_peers; i++) {
        if (a->peers[i]->wanted) {
            a->peers[kept++] = a->peers[i];
        } else {
            peer_free(&a->peers[i]);
        }
    }
    a->n_peers = kept;
    for (size_t i = 0; i < n; i++) {
        if (peer_at(a, &v[i]) == NULL) {
            peer_add(a, &v[i]);
        }
    }
    a->turn = 0;
}

/* ---- time ------------------------------------------------------------------------------------ */

static void on_tick(void *arg)
{
    struct proxy_authz *a = arg;
    int64_t now_us = clock_mono_us();
    int64_t stalled_us = a->opts.timeout_ms * 1000 / 4 * 3;

    expire(a, now_us / 1000);
    for (size_t i = 0; i < a->n_peers; i++) {
        struct peer *p = a->peers[i];

        /* It may hang: where there is another, that one still has time to answer. */
        if (a->n_up > 1 && !list_empty(&p->asked) && is_silent(p, now_us, stalled_us)) {
            proxy_authz_link_drop(p->link, "no answer");
        }
        proxy_authz_link_tick(p->link, now_us / 1000);
    }
}

int64_t proxy_authz_heard_ms(const struct proxy_authz *authz)
{
    int64_t heard_ms = 0;

    for (size_t i = 0; i < authz->n_peers; i++) {
        const struct peer *p = authz->peers[i]; /* NULL: it is just being dropped */

        heard_ms = p == NULL ? heard_ms : MAX(heard_ms, proxy_authz_link_heard_ms(p->link));
    }
    return heard_ms;
}

/* ---- life ------------------------------------------------------------------------------------ */

struct proxy_authz *proxy_authz_new(const struct proxy_authz_opts *opts)
{
    struct proxy_authz *a = MEM_NEW(struct proxy_authz);

    a->opts = *opts;
    list_init(&a->spare);
    list_init(&a->by_age);
    list_init(&a->queue);
    buf_init(&a->batch, AUTHZ_MESSAGE_MAX);
    a->tick = loop_tick_new(opts->loop, TICK_MS, on_tick, a);
    a->hold = event_new(loop_base(opts->loop), -1, 0, on_hold, a);
    CHECK(a->hold != NULL);
    return a;
}

void proxy_authz_free(struct proxy_authz **authz)
{
    struct proxy_authz *a = TAKE(*authz);

    if (a == NULL) {
        return;
    }
    for (size_t i = 0; i < a->n_peers; i++) {
        proxy_authz_link_free(&a->peers[i]->link);
        mem_free(&a->peers[i]);
    }
    loop_tick_free(&a->tick);
    event_free(a->hold);
    for (uint32_t i = 0; i < a->n_slots; i++) {
        buf_deinit(&a->slots[i]->packed);
        mem_free(&a->slots[i]);
    }
    buf_deinit(&a->batch);
    mem_free(&a);
}
