#include "proxy/upstream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proxy/h2.h"
#include "proxy/upstream_tls.h"
#include "proxy/worker.h"

static void begin(void *arg);

static struct proxy_view *view_of(const struct proxy_upstream *up)
{
    return &up->cluster->views[up->worker->index];
}

static struct proxy_endpoint_slot *slot_of(const struct proxy_upstream *up)
{
    return &up->endpoint->slots[up->worker->index];
}

void proxy_upstream_want(struct proxy_upstream *up, bool read, bool write)
{
    if (up->rd == NULL) {
        return;
    }
    if (read != up->rd_on) {
        (void)(read ? event_add(up->rd, NULL) : event_del(up->rd));
        up->rd_on = read;
    }
    if (write != up->wr_on) {
        (void)(write ? event_add(up->wr, NULL) : event_del(up->wr));
        up->wr_on = write;
    }
    if (read && proxy_io_pending(&up->io)) {
        loop_raise(up->worker->loop, up->rd); /* OpenSSL's bytes raise no event of the socket */
    }
}

/* ---- counting -------------------------------------------------------------------------------- */

/* A place among max_connections. A worker without any connection to the cluster always gets one: the
 * places of other workers are not given back to it. */
static bool count(struct proxy_upstream *up)
{
    uint32_t max = up->cluster->conf.limits.max_connections;
    struct proxy_view *view = view_of(up);

    if (__atomic_add_fetch(&up->cluster->n_connections, 1, __ATOMIC_RELAXED) > max &&
        view->n_connections != 0) {
        (void)__atomic_sub_fetch(&up->cluster->n_connections, 1, __ATOMIC_RELAXED);
        return false;
    }
    view->n_connections++;
    up->counted = true;
    return true;
}

/* Whoever waits longest looks again. */
static void wake_one(struct proxy_view *view)
{
    if (!list_empty(&view->waiting)) {
        struct proxy_upstream *next =
            LIST_ENTRY(view->waiting.next, struct proxy_upstream, in_view);

        list_remove(&next->in_view);
        loop_defer(next->worker->loop, begin, next);
    }
}

static void wake_all(struct proxy_view *view)
{
    while (!list_empty(&view->waiting)) {
        wake_one(view);
    }
}

static void uncount(struct proxy_upstream *up)
{
    struct proxy_view *view = view_of(up);

    if (up->counted) {
        up->counted = false;
        view->n_connections--;
        (void)__atomic_sub_fetch(&up->cluster->n_connections, 1, __ATOMIC_RELAXED);
        wake_one(view);
    }
}

/* ---- one for many ---------------------------------------------------------------------------- */

/* What became of the first connection is known: who waited for it looks again. */
static void settle(struct proxy_upstream *up, bool alone)
{
    struct proxy_endpoint_slot *slot = slot_of(up);

    if (slot->first == up) {
        slot->first = NULL;
        slot->alone = alone;
        wake_all(view_of(up));
    }
}

/* Unless it is known better: HTTP/2 is agreed on in TLS. */
static bool may_share(const struct proxy_upstream *up, const struct proxy_endpoint_slot *slot)
{
    const struct proxy_target *target = up->claim->endpoint->target;

    return up->flags == 0 && !slot->alone && (target->tls != NULL || target->url.h2c);
}

/* Whether a connection to the claim's endpoint is on its way that may serve this one, too. */
static bool follow(struct proxy_upstream *up)
{
    const struct proxy_endpoint_slot *slot = &up->claim->endpoint->slots[up->worker->index];

    up->follows = slot->first != NULL && may_share(up, slot);
    return up->follows;
}

/* It connects, and may be for all. */
static void lead(struct proxy_upstream *up)
{
    struct proxy_endpoint_slot *slot = slot_of(up);

    if (may_share(up, slot)) {
        slot->first = up;
    }
}

static bool enter_pending(struct proxy_upstream *up)
{
    uint32_t *n = &up->cluster->n_pending;

    up->pending =
        __atomic_add_fetch(n, 1, __ATOMIC_RELAXED) <= up->cluster->conf.limits.max_pending_requests;
    if (!up->pending) {
        (void)__atomic_sub_fetch(n, 1, __ATOMIC_RELAXED);
    }
    return up->pending;
}

static void leave_pending(struct proxy_upstream *up)
{
    if (up->pending) {
        up->pending = false;
        (void)__atomic_sub_fetch(&up->cluster->n_pending, 1, __ATOMIC_RELAXED);
    }
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void unpool(struct proxy_upstream *up)
{
    if (!list_empty(&up->in_slot)) {
        list_remove(&up->in_slot);
        slot_of(up)->n_idle -= up->h2 == NULL ? 1 : 0;
    }
    list_remove(&up->in_view);
}

static void free_later(void *arg)
{
    struct proxy_upstream *up = arg;

    proxy_window_deinit(&up->in);
    proxy_out_deinit(&up->out);
    proxy_endpoint_unref(&up->endpoint);
    proxy_cluster_unref(&up->cluster);
    mem_free(&up);
}

static void drop_socket(struct proxy_upstream *up)
{
    if (up->rd != NULL) {
        event_free(TAKE(up->rd));
        event_free(TAKE(up->wr));
    }
    up->rd_on = false;
    up->wr_on = false;
    up->handshaking = false;
    if (up->endpoint != NULL) {
        settle(up, slot_of(up)->alone);
    }
    proxy_io_close(&up->io);
    uncount(up);
}

void proxy_upstream_close(struct proxy_upstream **up)
{
    struct proxy_upstream *u = TAKE(*up);

    if (u == NULL) {
        return;
    }
    unpool(u);
    leave_pending(u);
    list_remove(&u->in_worker);
    u->owner = NULL;
    proxy_h2_free(&u->h2);
    drop_socket(u);
    loop_defer(u->worker->loop, free_later, u); /* a callback up the stack may still look at it */
}

static void fail(struct proxy_upstream *up, unsigned status, const char *why)
{
    const struct proxy_upstream_hooks *hooks = up->hooks;
    void *owner = up->owner;

    proxy_upstream_close(&up);
    if (owner != NULL) {
        hooks->failed(owner, status, why);
    }
}

/* No connection came about, so nothing of the request was sent: the next endpoint may have it. */
static void fail_attempt(struct proxy_upstream *up, const char *why)
{
    struct proxy_endpoint *failed = up->endpoint;

    settle(up, true);
    proxy_claim_note(up->claim, 503);
    if (up->attempts < PROXY_ATTEMPTS_MAX && clock_mono_ms() < up->deadline_ms &&
        proxy_claim_choose(up->claim, view_of(up)) && up->claim->endpoint != failed) {
        drop_socket(up);
        loop_defer(up->worker->loop, begin, up);
        return;
    }
    fail(up, 502, why);
}

static void tell_ready(void *arg)
{
    struct proxy_upstream *up = arg;

    if (up->owner != NULL) {
        up->hooks->ready(up->owner);
    }
}

static void ready(struct proxy_upstream *up)
{
    bool h2 = up->endpoint->target->url.h2c || proxy_io_speaks_h2(&up->io);

    up->connected = true;
    leave_pending(up);
    proxy_upstream_want(up, true, false);
    if (h2 && (up->flags & PROXY_UPSTREAM_H1) != 0) {
        fail(up, 502, "the upstream speaks HTTP/2 only, which has no upgrades");
        return;
    }
    if (h2) {
        up->h2 = proxy_h2_client_new(up->worker, &up->io, up->hooks->h2, up);
        up->deadline_ms = INT64_MAX;
        slot_of(up)->alone = false;
    } else {
        settle(up, true);
    }
    tell_ready(up);
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void go_on_with_handshake(struct proxy_upstream *up)
{
    enum proxy_io_result result = proxy_io_handshake(&up->io);

    if (result == PROXY_IO_AGAIN) {
        proxy_upstream_want(up, true, up->io.want_write);
    } else if (result != PROXY_IO_DONE) {
        fail_attempt(up, SSL_get_verify_result(up->io.ssl) == X509_V_OK
                             ? "the upstream's TLS handshake failed"
                             : "the upstream's certificate is not trusted");
    } else {
        up->handshaking = false;
        proxy_upstream_tls_look(up->endpoint->target, up->io.ssl);
        ready(up);
    }
}

static void begin_tls(struct proxy_upstream *up)
{
    up->io.ssl = proxy_upstream_tls_open(up->endpoint->target, up->io.fd);
    if (up->io.ssl == NULL) {
        fail(up, 502, "the upstream's name cannot be asked for in TLS");
        return;
    }
    if ((up->flags & PROXY_UPSTREAM_H1) != 0) {
        static const unsigned char h1[] = "\x08http/1.1";

        CHECK(SSL_set_alpn_protos(up->io.ssl, h1, sizeof(h1) - 1) == 0);
    }
    up->handshaking = true;
    go_on_with_handshake(up);
}

static void on_connected(struct proxy_upstream *up)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (getsockopt(up->io.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        fail_attempt(up, "the upstream refused the connection");
    } else if (up->endpoint->target->tls != NULL) {
        begin_tls(up);
    } else {
        ready(up);
    }
}

/* Kept under an earlier configuration of the same endpoint: it counts for the one in force. */
static void move_to(struct proxy_upstream *up, struct proxy_cluster *cluster)
{
    if (up->cluster == cluster) {
        return;
    }
    uncount(up);
    proxy_cluster_unref(&up->cluster);
    up->cluster = proxy_cluster_ref(cluster);
    up->counted = true;
    view_of(up)->n_connections++;
    (void)__atomic_add_fetch(&cluster->n_connections, 1, __ATOMIC_RELAXED);
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

void proxy_upstream_h2_want(void *up, bool write)
{
    proxy_upstream_want(up, true, write);
}

void proxy_upstream_h2_settled(void *up)
{
    struct proxy_upstream *u = up;

    settle(u, false);
    wake_all(view_of(u)); /* it has room for many */
}

void proxy_upstream_h2_quiet(void *up)
{
    struct proxy_upstream *u = up;
    bool useless =
        !list_empty(&view_of(u)->waiting) || __atomic_load_n(&u->endpoint->gone, __ATOMIC_RELAXED);

    u->deadline_ms = clock_mono_ms() + (useless ? 0 : PROXY_IDLE_MS);
    list_remove(&u->in_view);
    list_push_front(&view_of(u)->idle, &u->in_view);
}

void proxy_upstream_h2_freed(void *up)
{
    wake_one(view_of(up));
}

void proxy_upstream_h2_broken(void *up)
{
    struct proxy_upstream *u = up;

    proxy_upstream_close(&u);
}

static void on_h2_event(struct proxy_upstream *up, short what)
{
    if (((what & EV_READ) != 0 || up->io.want_write) && !proxy_h2_read(up->h2)) {
        (void)!proxy_h2_flush(up->h2); /* why it ends may still be told */
        proxy_upstream_close(&up);
        return;
    }
    if (!proxy_h2_flush(up->h2)) {
        proxy_upstream_close(&up);
        return;
    }
    proxy_upstream_want(up, true, up->wr_on); /* OpenSSL may hold more */
}

struct proxy_h2 *proxy_upstream_shared(struct proxy_worker *worker, const struct proxy_claim *claim)
{
    struct list *it = NULL;

    if (claim->endpoint == NULL) {
        return NULL;
    }
    LIST_FOREACH(it, &claim->endpoint->slots[worker->index].shared) {
        struct proxy_upstream *up = LIST_ENTRY(it, struct proxy_upstream, in_slot);

        if (proxy_h2_has_room(up->h2)) {
            up->deadline_ms = INT64_MAX;
            list_remove(&up->in_view); /* no longer idle */
            move_to(up, claim->cluster);
            return up->h2;
        }
    }
    return NULL;
}

struct proxy_h2 *proxy_upstream_share(struct proxy_upstream **up)
{
    struct proxy_upstream *u = TAKE(*up);

    u->owner = NULL;
    u->claim = NULL;
    list_push_front(&slot_of(u)->shared, &u->in_slot);
    return u->h2;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_upstream *up = arg;

    (void)fd;
    if (!up->connected) {
        if (up->handshaking) {
            go_on_with_handshake(up);
        } else {
            on_connected(up);
        }
        return;
    }
    if (up->h2 != NULL) {
        on_h2_event(up, what);
        return;
    }
    if (up->owner == NULL) {
        proxy_upstream_close(&up); /* idle: whatever it says, it is no answer to anything */
        return;
    }
    if ((what & EV_WRITE) != 0 || up->io.want_write) {
        up->hooks->writable(up->owner);
        if ((what & EV_READ) == 0 || up->owner == NULL) {
            return; /* the exchange may be over now */
        }
    }
    if ((what & EV_READ) != 0) {
        up->hooks->readable(up->owner);
    }
}

static void connect_to(struct proxy_upstream *up)
{
    const struct sockaddr *address = (const struct sockaddr *)&up->endpoint->address.at;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct event_base *base = loop_base(up->worker->loop);
    int on = 1;

    if (fd < 0) {
        fail(up, 502, "no socket is to be had");
        return;
    }
    if (address->sa_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    proxy_io_init(&up->io, fd);
    up->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_event, up);
    up->wr = event_new(base, fd, EV_WRITE | EV_PERSIST, on_event, up);
    CHECK(up->rd != NULL && up->wr != NULL);
    if (connect(fd, address, up->endpoint->address.size) != 0 && errno != EINPROGRESS) {
        fail_attempt(up, "the upstream refused the connection");
        return;
    }
    proxy_upstream_want(up, false, true);
}

/* An idle connection to another endpoint gives its place to one that is needed. */
static bool evict(struct proxy_view *view)
{
    struct proxy_upstream *oldest = NULL;

    if (list_empty(&view->idle)) {
        return false;
    }
    oldest = LIST_ENTRY(view->idle.prev, struct proxy_upstream, in_view);
    proxy_upstream_close(&oldest);
    return true;
}

/* While it waited, somebody else's connection turned out to take many. */
static bool use_shared(struct proxy_upstream *up)
{
    struct proxy_h2 *h2 = up->flags == 0 ? proxy_upstream_shared(up->worker, up->claim) : NULL;
    const struct proxy_upstream_hooks *hooks = up->hooks;
    void *owner = up->owner;

    if (h2 != NULL) {
        proxy_upstream_close(&up);
        hooks->shared(owner, h2);
    }
    return h2 != NULL;
}

/* Addresses may have changed while it waited. */
static bool has_endpoint(const struct proxy_claim *claim)
{
    return claim->endpoint != NULL && !__atomic_load_n(&claim->endpoint->gone, __ATOMIC_RELAXED);
}

static void begin(void *arg)
{
    struct proxy_upstream *up = arg;
    struct proxy_view *view = view_of(up);
    const struct proxy_table *table = view->table;

    if (up->owner == NULL) {
        return; /* given up within the same turn */
    }
    if (!has_endpoint(up->claim) && !proxy_claim_choose(up->claim, view)) {
        if (!table->settled) {
            list_push_back(&view->waiting, &up->in_view);
        } else if (table->n_all == 0) {
            fail(up, 502, "the upstream's name has no address");
        } else {
            fail(up, 503, "no-healthy-upstream");
        }
        return;
    }
    if (use_shared(up)) {
        return;
    }
    if (follow(up) || (!count(up) && !(evict(view) && count(up)))) {
        list_push_back(&view->waiting, &up->in_view);
        return;
    }
    proxy_endpoint_unref(&up->endpoint);
    up->endpoint = proxy_endpoint_ref(up->claim->endpoint);
    lead(up);
    up->attempts++;
    up->attempt_ms = table->n > 1 && up->attempts < PROXY_ATTEMPTS_MAX
                         ? clock_mono_ms() + PROXY_ATTEMPT_MS
                         : up->deadline_ms;
    connect_to(up);
}

/* ---- getting and giving back ----------------------------------------------------------------- */

static void tell_overflow(void *arg)
{
    struct proxy_upstream *up = arg;

    if (up->owner != NULL) {
        fail(up, 503, "upstream-max-pending-requests");
    }
}

static struct proxy_upstream *take_idle(struct proxy_worker *worker, struct proxy_claim *claim)
{
    struct proxy_endpoint_slot *slot = NULL;
    struct proxy_upstream *up = NULL;

    if (claim->endpoint == NULL) {
        return NULL;
    }
    slot = &claim->endpoint->slots[worker->index];
    if (list_empty(&slot->idle)) {
        return NULL;
    }
    up = LIST_ENTRY(slot->idle.next, struct proxy_upstream, in_slot);
    unpool(up);
    move_to(up, claim->cluster);
    up->reused = true;
    return up;
}

struct proxy_upstream *proxy_upstream_get(struct proxy_worker *worker, struct proxy_claim *claim,
                                          unsigned flags, const struct proxy_upstream_hooks *hooks,
                                          void *owner)
{
    struct proxy_upstream *up =
        (flags & PROXY_UPSTREAM_FRESH) != 0 ? NULL : take_idle(worker, claim);

    if (up != NULL) {
        up->hooks = hooks;
        up->owner = owner;
        loop_defer(worker->loop, tell_ready, up);
        return up;
    }
    up = MEM_NEW(struct proxy_upstream);
    up->worker = worker;
    up->cluster = proxy_cluster_ref(claim->cluster);
    up->claim = claim;
    up->flags = flags;
    up->hooks = hooks;
    up->owner = owner;
    up->deadline_ms = clock_mono_ms() + PROXY_CONNECT_MS;
    up->attempt_ms = up->deadline_ms;
    proxy_io_init(&up->io, -1);
    proxy_window_init(&up->in);
    proxy_out_init(&up->out);
    list_init(&up->in_slot);
    list_init(&up->in_view);
    list_push_back(&worker->upstreams, &up->in_worker);
    loop_defer(worker->loop, enter_pending(up) ? begin : tell_overflow, up);
    return up;
}

/* Who may have a connection to endpoint: the first in line, but where a hash chose, only who was sent
 * there. */
static struct proxy_upstream *next_for(struct proxy_view *view,
                                       const struct proxy_endpoint *endpoint)
{
    bool by_hash = view->table->policy == CONFIG_BALANCE_RING_HASH ||
                   view->table->policy == CONFIG_BALANCE_MAGLEV;
    struct list *it = NULL;

    LIST_FOREACH(it, &view->waiting) {
        struct proxy_upstream *up = LIST_ENTRY(it, struct proxy_upstream, in_view);

        if (!by_hash || up->claim->endpoint == endpoint) {
            return up;
        }
    }
    return NULL;
}

/* Everything of the connection from moves over to the one who waits; from is left empty. */
static void hand_over(struct proxy_upstream *from, struct proxy_upstream *to)
{
    struct event_base *base = loop_base(to->worker->loop);
    struct proxy_window in = to->in;

    list_remove(&to->in_view);
    proxy_claim_use(to->claim, from->endpoint);
    proxy_endpoint_unref(&to->endpoint);
    to->endpoint = proxy_endpoint_ref(from->endpoint);
    to->io = from->io;
    proxy_io_init(&from->io, -1);
    to->in = from->in;
    from->in = in;
    to->counted = from->counted;
    from->counted = false;
    to->reused = true;
    to->rd = event_new(base, to->io.fd, EV_READ | EV_PERSIST, on_event, to);
    to->wr = event_new(base, to->io.fd, EV_WRITE | EV_PERSIST, on_event, to);
    CHECK(to->rd != NULL && to->wr != NULL);
    to->connected = true;
    leave_pending(to);
    loop_defer(to->worker->loop, tell_ready, to);
}

static bool is_clean(const struct proxy_upstream *up)
{
    return up->connected && up->in.start == up->in.end && proxy_out_empty(&up->out) &&
           !up->worker->stopping && !__atomic_load_n(&up->endpoint->gone, __ATOMIC_RELAXED);
}

void proxy_upstream_put(struct proxy_upstream **up)
{
    struct proxy_upstream *u = *up;
    struct proxy_endpoint_slot *slot = NULL;
    struct proxy_upstream *next = NULL;

    if (u == NULL) {
        return;
    }
    slot = slot_of(u);
    next = is_clean(u) ? next_for(view_of(u), u->endpoint) : NULL;
    if (next != NULL) {
        hand_over(u, next);
        proxy_upstream_close(up);
        return;
    }
    /* With somebody in line for another endpoint, the place is worth more than the connection. */
    if (!is_clean(u) || slot->n_idle >= PROXY_IDLE_MAX || !list_empty(&view_of(u)->waiting)) {
        proxy_upstream_close(up);
        return;
    }
    *up = NULL;
    u->owner = NULL;
    u->claim = NULL;
    u->deadline_ms = clock_coarse_ms() + PROXY_IDLE_MS;
    proxy_upstream_want(u, true, false);
    list_push_front(&slot->idle, &u->in_slot);
    slot->n_idle++;
    list_push_front(&view_of(u)->idle, &u->in_view);
}

void proxy_upstream_changed(struct proxy_view *view)
{
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &view->idle) {
        struct proxy_upstream *up = LIST_ENTRY(it, struct proxy_upstream, in_view);

        if (__atomic_load_n(&up->endpoint->gone, __ATOMIC_RELAXED)) {
            proxy_upstream_close(&up);
        }
    }
    wake_all(view);
}

/* The first one hangs, or its server does not say how many streams it takes: nobody else waits. */
static void give_up_following(struct proxy_upstream *up)
{
    struct proxy_endpoint_slot *slot = &up->claim->endpoint->slots[up->worker->index];

    if (slot->first != NULL) {
        settle(slot->first, true);
    }
    fail(up, 502, "connecting to the upstream took too long");
}

static void give_up(struct proxy_upstream *up)
{
    if (up->connected) {
        proxy_upstream_close(&up);
    } else if (up->counted) {
        fail_attempt(up, "connecting to the upstream took too long");
    } else if (up->follows) {
        give_up_following(up);
    } else {
        fail(up, 503,
             up->claim->endpoint == NULL ? "the upstream's name is still looked up"
                                         : "upstream-max-connections");
    }
}

void proxy_upstream_tick(struct proxy_worker *worker, int64_t now_ms)
{
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &worker->upstreams) {
        struct proxy_upstream *up = LIST_ENTRY(it, struct proxy_upstream, in_worker);

        if (up->connected ? up->owner == NULL && now_ms >= up->deadline_ms
                          : now_ms >= MIN(up->deadline_ms, up->attempt_ms)) {
            give_up(up);
        }
    }
}
