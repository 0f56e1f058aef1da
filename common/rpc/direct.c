#include "common/rpc/direct.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/call.h"
#include "common/rpc/duplex.h"
#include "common/rpc/proof.h"

/* STALL_S: what is written must be taken in by then, though a piece at a time. */
enum { ROOM = 16384, HELLO_S = 5, PARTING_S = 5, STALL_S = 30, PAUSE_MS = 100 };

struct rpc_direct {
    struct loop *loop;
    struct rpc_gate *gate;
    int fd;
    struct event *acceptable;
    struct event *pause; /* out of descriptors: until it is worth trying again */
    struct list conns;
    size_t n_conns;
};

enum conn_state { CONN_HELLO = 0, CONN_OPEN, CONN_ENDING, CONN_PARTING };

struct conn {
    struct rpc_call base;
    struct rpc_direct *direct;
    struct list in_direct;
    enum conn_state state;
    int fd;
    struct event *readable;
    struct event *writable; /* added while the socket is full */
    struct event *limit;    /* HELLO, PARTING: until then */
    struct event *settle;   /* raised: something is to be written, told or closed */
    struct rpc_duplex *duplex;
    bool ended;     /* the peer has said its last: what it said is read to the end */
    bool lost;      /* nothing more comes or goes */
    bool sent;      /* a message is on its way: on_writable follows */
    bool is_full;   /* the socket */
    bool told_done; /* that the client said its last */
    bool reading;   /* settled as soon as that is done */
    const struct rpc_stream_ops *ops;
    void *arg;
};

/* ---- the call -------------------------------------------------------------------------------- */

static struct conn *conn_of(struct rpc_call *call)
{
    return CONTAINER_OF(call, struct conn, base);
}

static void conn_raise(struct conn *c)
{
    if (!c->reading) {
        event_active(c->settle, EV_WRITE, 0);
    }
}

static void conn_stream(struct rpc_call *call, const struct rpc_stream_ops *ops, void *arg)
{
    struct conn *c = conn_of(call);

    c->ops = ops;
    c->arg = arg;
}

static bool conn_can_send(const struct rpc_call *call)
{
    const struct conn *c = conn_of(base_unconst(call));

    return c->state == CONN_OPEN && !c->lost && !c->sent && rpc_duplex_can_send(c->duplex);
}

static void conn_send(struct rpc_call *call, struct sv bytes)
{
    struct conn *c = conn_of(call);

    if (c->state != CONN_OPEN || c->lost) {
        return; /* nobody listens any more; on_closed tells */
    }
    rpc_duplex_send(c->duplex, bytes);
    c->sent = true;
    conn_raise(c);
}

static void conn_finish(struct rpc_call *call, enum rpc_status status, const char *text)
{
    struct conn *c = conn_of(call);

    if (c->state < CONN_ENDING) {
        c->state = CONN_ENDING;
        rpc_duplex_end(c->duplex, status, text);
        conn_raise(c);
    }
}

static void conn_end(struct rpc_call *call, enum rpc_status status, const char *text,
                     const struct sv *response)
{
    if (response != NULL) {
        conn_send(call, *response);
    }
    conn_finish(call, status, text);
}

static const struct rpc_carrier direct_carrier = { .stream = conn_stream,
                                                   .send = conn_send,
                                                   .can_send = conn_can_send,
                                                   .finish = conn_finish,
                                                   .end = conn_end };

/* ---- the connection -------------------------------------------------------------------------- */

/* Nobody is to touch the call any more. */
static void tell_closed(struct conn *c)
{
    const struct rpc_stream_ops *ops = TAKE(c->ops);

    if (ops != NULL && ops->on_closed != NULL) {
        ops->on_closed(c->arg);
    }
}

static void conn_free(struct conn *c)
{
    list_remove(&c->in_direct);
    c->direct->n_conns--;
    tell_closed(c);
    event_free(c->readable);
    event_free(c->writable);
    event_free(c->limit);
    event_free(c->settle);
    rpc_duplex_free(&c->duplex);
    (void)close(c->fd);
    mem_free(&c);
}

static void admit(struct conn *c, struct sv path, struct sv shown)
{
    struct rpc_gate *gate = c->direct->gate;
    const struct rpc_server_opts *opts = gate->opts;
    const struct rpc_method *method = opts->direct;
    enum rpc_status status = RPC_UNIMPLEMENTED;
    const char *text = "no such method";

    (void)event_del(c->limit);
    if (sv_eq(path, sv_from(method->path))) {
        const struct rpc_shown by = { .by = "proof",
                                      .certified = rpc_proof_check(opts->identity, shown),
                                      .authorization = shown };

        rpc_call_identify(&c->base, gate, &by);
        status = rpc_call_permit(&c->base, gate, method, &text);
    }
    if (status != RPC_OK) {
        conn_finish(&c->base, status, text);
        return;
    }
    rpc_duplex_accept(c->duplex);
    c->state = CONN_OPEN;
    conn_raise(c);
    method->handler(&c->base, NULL, opts->arg);
    CHECK(c->state == CONN_ENDING || c->ops != NULL);
}

static void take_messages(struct conn *c)
{
    struct sv message;
    enum err err = ERR_OK;

    while (c->state == CONN_OPEN) {
        err = rpc_duplex_next(c->duplex, &message);
        if (err != ERR_OK) {
            break;
        }
        c->ops->on_message(c->arg, message);
    }
    if (c->state != CONN_OPEN) {
        return;
    }
    if (err != ERR_AGAIN) {
        conn_finish(&c->base, rpc_status_of(err), "the message is too large, or compressed");
    } else if (rpc_duplex_is_drained(c->duplex) && !c->told_done) {
        c->told_done = true;
        if (c->ops->on_client_done != NULL) {
            c->ops->on_client_done(c->arg);
        } else {
            conn_finish(&c->base, RPC_OK, NULL);
        }
    }
}

static void conn_lose(struct conn *c)
{
    c->lost = true;
    conn_raise(c);
}

/* Edge-triggered, which saves a look at the socket before each wait: one tells of what comes, none of
 * what was left. */
static void read_socket(struct conn *c, short what)
{
    char room[ROOM];
    ssize_t n = recv(c->fd, room, sizeof(room), 0);
    struct sv path;
    struct sv shown;

    c->ended = c->ended || (what & EV_CLOSED) != 0;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        conn_lose(c);
        return;
    }
    if (c->ended || n == (ssize_t)sizeof(room) || (n < 0 && errno == EINTR)) {
        loop_raise(c->direct->loop, c->readable);
    }
    if (n < 0) {
        return;
    }
    if (c->state >= CONN_ENDING) {
        return; /* nobody hears it */
    }
    if (rpc_duplex_feed(c->duplex, sv_of(room, (size_t)n)) != ERR_OK) {
        conn_finish(&c->base, RPC_INTERNAL, "this is no HTTP/2");
        return;
    }
    if (rpc_duplex_is_over(c->duplex)) {
        conn_finish(&c->base, RPC_CANCELLED, "the caller left");
        return;
    }
    if (c->state == CONN_HELLO && rpc_duplex_asked(c->duplex, &path, &shown)) {
        admit(c, path, shown);
    }
    take_messages(c);
}

/* Gives the socket what there is, until one of them has enough. False: the connection is lost. */
static bool push(struct conn *c)
{
    for (;;) {
        struct sv bytes = { 0 };
        enum err err = rpc_duplex_out(c->duplex, &bytes);
        ssize_t n = 0;

        if (bytes.n == 0) {
            c->is_full = false;
            return err == ERR_OK || (err == ERR_ABORTED && c->state == CONN_ENDING);
        }
        n = send(c->fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (n < 0) {
            c->is_full = errno == EAGAIN;
            return errno == EAGAIN;
        }
        rpc_duplex_wrote(c->duplex, (size_t)n);
    }
}

/* Who does not read is not read from. */
static void watch(struct conn *c)
{
    static const struct timeval stall = { .tv_sec = STALL_S };

    if (c->is_full) {
        (void)event_del(c->readable);
        (void)event_add(c->writable, &stall);
    } else {
        (void)event_del(c->writable);
        (void)event_add(c->readable, NULL);
    }
}

/* Closing with unread bytes before us would be a reset, which may overtake our last words. */
static void part(struct conn *c)
{
    static const struct timeval limit = { .tv_sec = PARTING_S };

    tell_closed(c);
    c->state = CONN_PARTING;
    c->lost = shutdown(c->fd, SHUT_WR) != 0;
    (void)event_add(c->limit, &limit);
}

/* Writes what there is, tells who may write more, and closes what is over: c may be gone then. */
static void settle(struct conn *c)
{
    bool was_full = c->is_full;
    bool more = true;

    while (more && !c->lost && c->state != CONN_PARTING) {
        c->lost = !push(c);
        more = c->sent && !c->lost && rpc_duplex_can_send(c->duplex);
        if (more) {
            c->sent = false;
            if (c->ops->on_writable != NULL) {
                c->ops->on_writable(c->arg);
            }
        }
    }
    if (!c->lost && (c->is_full || was_full)) {
        watch(c);
    }
    if (!c->lost && c->state == CONN_ENDING && !c->is_full) {
        part(c);
    }
    if (c->lost) {
        conn_free(c);
    }
}

static void on_settle(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    settle(arg);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd;
    c->reading = true;
    read_socket(c, what);
    c->reading = false;
    settle(c); /* answers, acknowledgements and windows */
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd;
    if ((what & EV_TIMEOUT) != 0) {
        log_warn("rpc.stalled", KV_STR("caller", c->base.who),
                 KV_STR("effect", "it reads no answers: closed"));
        conn_lose(c);
        return;
    }
    conn_raise(c);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    conn_lose(arg);
}

static void conn_new(struct rpc_direct *direct, int fd)
{
    static const struct timeval limit = { .tv_sec = HELLO_S };
    struct event_base *base = loop_base(direct->loop);
    struct conn *c = MEM_NEW(struct conn);

    c->base.carrier = &direct_carrier;
    c->direct = direct;
    c->fd = fd;
    c->duplex = rpc_duplex_server_new(RPC_MESSAGE_MAX);
    c->readable = event_new(base, fd, EV_READ | EV_CLOSED | EV_ET | EV_PERSIST, on_readable, c);
    c->writable = event_new(base, fd, EV_WRITE | EV_ET | EV_PERSIST, on_writable, c);
    c->limit = event_new(base, -1, 0, on_limit, c);
    c->settle = event_new(base, -1, 0, on_settle, c);
    CHECK(c->readable != NULL && c->writable != NULL && c->limit != NULL && c->settle != NULL);
    CHECK(event_add(c->readable, NULL) == 0 && event_add(c->limit, &limit) == 0);
    list_push_back(&direct->conns, &c->in_direct);
    direct->n_conns++;
    conn_raise(c); /* our SETTINGS */
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void turn_away(int fd)
{
    static struct log_limit limit;

    (void)close(fd);
    if (log_limit_pass(&limit, 1)) {
        log_warn("rpc.crowded", KV_U64("connections", RPC_DIRECT_MAX));
    }
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval pause = { .tv_usec = PAUSE_MS * 1000L };
    struct rpc_direct *direct = arg;
    int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)what;
    if (got >= 0 && direct->n_conns < RPC_DIRECT_MAX) {
        conn_new(direct, got);
    } else if (got >= 0) {
        turn_away(got);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        (void)event_del(direct->acceptable);
        (void)event_add(direct->pause, &pause);
    }
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    rpc_direct_start(arg);
}

struct rpc_direct *rpc_direct_new(struct loop *loop, int fd, struct rpc_gate *gate)
{
    struct rpc_direct *d = MEM_NEW(struct rpc_direct);
    struct event_base *base = loop_base(loop);

    d->loop = loop;
    d->gate = gate;
    d->fd = fd;
    list_init(&d->conns);
    d->acceptable = event_new(base, fd, EV_READ | EV_PERSIST, on_acceptable, d);
    d->pause = event_new(base, -1, 0, on_pause_over, d);
    CHECK(d->acceptable != NULL && d->pause != NULL);
    return d;
}

void rpc_direct_start(struct rpc_direct *direct)
{
    CHECK(event_add(direct->acceptable, NULL) == 0);
}

void rpc_direct_free(struct rpc_direct **direct)
{
    struct rpc_direct *d = TAKE(*direct);

    if (d == NULL) {
        return;
    }
    event_free(d->acceptable);
    event_free(d->pause);
    (void)close(d->fd);
    while (!list_empty(&d->conns)) {
        struct conn *c = LIST_ENTRY(d->conns.next, struct conn, in_direct);

        conn_finish(&c->base, RPC_UNAVAILABLE, "the server is stopping");
        (void)push(c);
        conn_free(c);
    }
    mem_free(&d);
}
