#include "proxy/conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "proxy/acme.h"
#include "proxy/app.h"
#include "proxy/client.h"
#include "proxy/client_cert.h"
#include "proxy/exchange.h"
#include "proxy/forward.h"
#include "proxy/reply.h"
#include "proxy/tls.h"

enum {
    PROXY_HEADER_MS = 5000,
    DRAIN_IDLE_MS = 1000,
    HANDSHAKE_MS = 10000,
    LINGER_MS = 2000,
    READS_MAX = 16,
    PIPELINED_MAX = 8 /* in one turn */
};

static void on_event(evutil_socket_t fd, short what, void *arg);

/* Bytes that OpenSSL has read already raise no event of the socket: raise it for them. */
static void wake_for_pending(struct proxy_conn *conn)
{
    if (conn->rd_on && list_empty(&conn->in_late) && proxy_io_pending(&conn->io)) {
        loop_raise(conn->worker->loop, conn->rd);
    }
}

/* Most clients take everything at once and never need it. */
static struct event *write_event(struct proxy_conn *conn)
{
    if (conn->wr == NULL) {
        conn->wr = event_new(loop_base(conn->worker->loop), conn->io.fd, EV_WRITE | EV_PERSIST,
                             on_event, conn);
        CHECK(conn->wr != NULL);
    }
    return conn->wr;
}

void proxy_conn_want(struct proxy_conn *conn, bool read, bool write)
{
    read = read && !conn->eof && !conn->rd_held;
    if (read != conn->rd_on) {
        (void)(read ? event_add(conn->rd, NULL) : event_del(conn->rd));
        conn->rd_on = read;
    }
    if (write != conn->wr_on) {
        (void)(write ? event_add(write_event(conn), NULL) : event_del(conn->wr));
        conn->wr_on = write;
    }
    wake_for_pending(conn);
}

void proxy_conn_quiet(struct proxy_conn *conn)
{
    int64_t idle_ms = conn->worker->snapshot->config->timeout_idle_ms;

    if (conn->draining) {
        idle_ms = DRAIN_IDLE_MS;
    }
    conn->deadline_ms = idle_ms == 0 ? INT64_MAX : clock_coarse_ms() + idle_ms;
}

static void come_late(struct proxy_conn *conn)
{
    list_remove(&conn->in_late);
    list_push_back(&conn->worker->late, &conn->in_late);
    loop_late(conn->worker->loop);
}

/* True: others are first. Its socket is not watched then, or the loop would see nothing else. */
static bool must_wait(struct proxy_conn *conn)
{
    if (list_empty(&conn->in_late)) {
        return false;
    }
    conn->rd_held = true;
    proxy_conn_want(conn, false, conn->wr_on);
    return true;
}

static void enter_idle(struct proxy_conn *conn)
{
    conn->phase = PROXY_CONN_IDLE;
    proxy_conn_quiet(conn);
    proxy_spares_give(&conn->worker->spares, &conn->in, &conn->out);
    proxy_conn_want(conn, true, false);
}

/* False: its address has as many connections as one may have. A trusted proxy brings those of others,
 * and who comes by a unix socket has no address. */
static bool find_place(struct proxy_conn *conn)
{
    static _Thread_local struct log_limit limit;
    const struct config *c = conn->worker->snapshot->config;

    if (!conn->peer.connection.known || proxy_peer_is_trusted(&conn->peer, c) ||
        proxy_crowd_enter(conn->worker->app->crowd, &conn->peer.connection,
                          c->max_connections_per_address, &conn->place)) {
        return true;
    }
    if (log_limit_pass(&limit, 1)) {
        log_warn("connections.full-for-address", KV_STR("peer", conn->peer.text),
                 KV_U64("max", c->max_connections_per_address));
    }
    return false;
}

/* The client's own bytes are next. */
static void begin(struct proxy_conn *conn)
{
    struct proxy_worker *worker = conn->worker;

    if (!find_place(conn)) {
        proxy_conn_close(conn);
        return;
    }
    if (worker->snapshot->tls == NULL || conn->to_https) {
        enter_idle(conn);
        return;
    }
    conn->snapshot = proxy_snapshot_ref(worker->snapshot);
    conn->io.ssl = SSL_new(conn->snapshot->tls);
    CHECK(conn->io.ssl != NULL && SSL_set_fd(conn->io.ssl, conn->io.fd) == 1);
    SSL_set_accept_state(conn->io.ssl);
    proxy_acme_attach(conn->io.ssl, &worker->acme);
    conn->phase = PROXY_CONN_HANDSHAKE;
    conn->deadline_ms = clock_mono_ms() + HANDSHAKE_MS;
    proxy_conn_want(conn, true, false);
}

void proxy_conn_open(struct proxy_worker *worker, int fd, const struct sockaddr *address,
                     bool to_https)
{
    struct proxy_conn *conn = MEM_NEW(struct proxy_conn);
    struct event_base *base = loop_base(worker->loop);
    int on = 1;

    conn->worker = worker;
    conn->draining = worker->stopping;
    proxy_peer_init(&conn->peer, address);
    if (address->sa_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    proxy_io_init(&conn->io, fd);
    proxy_window_init(&conn->in);
    proxy_out_init(&conn->out);
    conn->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_event, conn);
    CHECK(conn->rd != NULL);
    list_push_back(&worker->conns, &conn->in_worker);
    list_init(&conn->in_late);
    worker->n_conns++;
    conn->to_https = to_https;
    conn->phase = PROXY_CONN_IDLE;
    if (proxy_peer_owes_header(&conn->peer, worker->snapshot->config)) {
        conn->phase = PROXY_CONN_PROXY_HEADER;
        conn->deadline_ms = clock_mono_ms() + PROXY_HEADER_MS;
        proxy_conn_want(conn, true, false);
    } else {
        begin(conn);
    }
}

static void free_later(void *arg)
{
    struct proxy_conn *conn = arg;

    proxy_window_deinit(&conn->in);
    proxy_out_deinit(&conn->out);
    mem_free(&conn);
}

static void end_exchange(struct proxy_conn *conn)
{
    if (conn->x != NULL) {
        proxy_exchange_end(conn->x);
        conn->x = NULL;
    }
}

void proxy_conn_close(struct proxy_conn *conn)
{
    if (conn->phase == PROXY_CONN_CLOSED) {
        return;
    }
    conn->phase = PROXY_CONN_CLOSED;
    if (conn->x != NULL && proxy_exchange_is_raw(conn->x) && !conn->x->answer_done) {
        proxy_io_cut(&conn->io);
    }
    end_exchange(conn);
    proxy_h2_free(&conn->h2);
    proxy_snapshot_unref(&conn->snapshot);
    proxy_client_cert_free(&conn->client_cert);
    list_remove(&conn->in_worker);
    list_remove(&conn->in_late);
    proxy_crowd_leave(conn->worker->app->crowd, &conn->place);
    proxy_worker_gone(conn->worker, conn);
    event_free(conn->rd);
    if (conn->wr != NULL) {
        event_free(conn->wr);
    }
    proxy_io_close(&conn->io);
    loop_defer(conn->worker->loop, free_later, conn);
}

/* ---- heads ----------------------------------------------------------------------------------- */

/* The head's texts move into the arena: the window goes on with the body. */
static void keep_head(struct proxy_conn *conn, struct proxy_exchange *x)
{
    struct http_head *head = &x->head;
    const char *from = conn->in.bytes + conn->in.start;
    char *to = arena_alloc(&x->arena, head->size);
    uint32_t i = 0;

    memcpy(to, from, head->size);
    for (i = 0; i < head->n; i++) {
        head->fields[i].name.p = to + (head->fields[i].name.p - from);
        head->fields[i].value.p = to + (head->fields[i].value.p - from);
    }
    head->method_text.p = to + (head->method_text.p - from);
    head->target.p = to + (head->target.p - from);
    if (head->host.n != 0) {
        head->host.p = to + (head->host.p - from);
    }
    proxy_window_drop(&conn->in, head->size);
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

/* What came with the preface, as much as a turn may cost. False: the connection is over. */
static bool feed_window(struct proxy_conn *conn)
{
    struct sv bytes = proxy_window_sv(&conn->in);
    size_t had = bytes.n;
    bool goes_on = proxy_h2_feed(conn->h2, &bytes);

    proxy_window_drop(&conn->in, had - bytes.n);
    if (bytes.n == 0) {
        proxy_window_deinit(&conn->in);
    } else {
        come_late(conn);
    }
    return goes_on;
}

static void start_h2(struct proxy_conn *conn)
{
    conn->phase = PROXY_CONN_H2;
    conn->h2 = proxy_h2_server_new(conn->worker, &conn->io, &proxy_client_h2_hooks, conn);
    proxy_conn_quiet(conn);
    proxy_conn_want(conn, true, false);
    /* Our SETTINGS need not wait for theirs. */
    if (!proxy_h2_flush(conn->h2) || !feed_window(conn)) {
        proxy_conn_close(conn);
    }
}

/* Prior knowledge (RFC 9113 §3.3): true while the bytes are, or may become, its preface. */
static bool is_preface(struct proxy_conn *conn)
{
    static const struct sv preface = { NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN };
    struct sv bytes = proxy_window_sv(&conn->in);

    if (conn->spoke || conn->to_https || conn->io.ssl != NULL || conn->phase != PROXY_CONN_IDLE ||
        conn->worker->snapshot->config->http_versions == CONFIG_VERSIONS_HTTP1 ||
        !sv_starts(preface, sv_head(bytes, MIN(bytes.n, preface.n)))) {
        return false;
    }
    if (bytes.n >= preface.n) {
        start_h2(conn);
    }
    return true;
}

static void on_h2_event(struct proxy_conn *conn, short what)
{
    bool reads = (what & EV_READ) != 0 || conn->io.want_write;
    bool fed = conn->in.start != conn->in.end;

    if (reads && !(fed ? feed_window(conn) : proxy_h2_read(conn->h2))) {
        /* Why it ends (GOAWAY) is still worth a try. */
        (void)!proxy_h2_flush(conn->h2);
        proxy_conn_close(conn);
        return;
    }
    if (!proxy_h2_flush(conn->h2)) {
        proxy_conn_close(conn);
        return;
    }
    if (reads && proxy_h2_had_its_share(conn->h2)) {
        come_late(conn);
    } else {
        wake_for_pending(conn);
    }
}

/* ---- HTTP/1 ---------------------------------------------------------------------------------- */

static bool refuses_h1(const struct proxy_conn *conn)
{
    return !conn->to_https &&
           conn->worker->snapshot->config->http_versions == CONFIG_VERSIONS_HTTP2;
}

/* Looks at what the window holds; true: a request has begun or the connection is on its way out. */
static bool parse_head(struct proxy_conn *conn)
{
    struct proxy_exchange *x = NULL;

    if (conn->in.start == conn->in.end) {
        return false;
    }
    if (is_preface(conn)) {
        return conn->phase != PROXY_CONN_IDLE;
    }
    if (conn->x == NULL) {
        conn->spoke = true;
        conn->x = proxy_exchange_new(conn);
        conn->phase = PROXY_CONN_BUSY;
    }
    x = conn->x;
    if (refuses_h1(conn)) {
        rand_uuid(x->request_id);
        x->close_after = true;
        proxy_reply_fault(x, 505, "http-2-only");
        return true;
    }
    switch (http_head_parse(&x->head, proxy_window_sv(&conn->in))) {
    case HTTP_DONE:
        keep_head(conn, x);
        proxy_request_start(x);
        if (conn->phase != PROXY_CONN_CLOSED) {
            wake_for_pending(conn);
        }
        return true;
    case HTTP_ERROR:
        rand_uuid(x->request_id);
        x->close_after = true;
        proxy_reply_fault(x, http_fault_status(x->head.fault), http_fault_name(x->head.fault));
        return true;
    case HTTP_MORE:
    case HTTP_DATA:
        break;
    }
    return false;
}

/* Whether the next bytes belong to a head. */
static bool between_heads(const struct proxy_conn *conn)
{
    return conn->phase == PROXY_CONN_IDLE ||
           (conn->phase == PROXY_CONN_BUSY && conn->x->phase == PROXY_HEAD);
}

static void read_heads(struct proxy_conn *conn)
{
    int i = 0;

    proxy_spares_take(&conn->worker->spares, &conn->in, &conn->out);
    for (i = 0; i < READS_MAX && between_heads(conn); i++) {
        bool drained = false;
        enum proxy_io_result result = PROXY_IO_FAILED;

        if (!proxy_window_room(&conn->in, PROXY_REQUEST_HEAD_MAX + 1024, false)) {
            proxy_conn_close(conn);
            return;
        }
        result = proxy_window_fill(&conn->in, &conn->io, &drained);
        if (result == PROXY_IO_FAILED || result == PROXY_IO_END) {
            proxy_conn_close(conn);
            return;
        }
        if (result == PROXY_IO_AGAIN || parse_head(conn) || drained) {
            break;
        }
    }
    if (conn->phase == PROXY_CONN_IDLE) {
        proxy_spares_give(&conn->worker->spares, &conn->in, &conn->out);
    }
}

/* ---- the end of an exchange ------------------------------------------------------------------- */

static void enter_linger(struct proxy_conn *conn)
{
    /* The answer must not be lost to a reset: say we are done, then hear the rest out. */
    conn->phase = PROXY_CONN_LINGER;
    conn->deadline_ms = clock_mono_ms() + LINGER_MS;
    if (conn->io.ssl != NULL) {
        (void)SSL_shutdown(conn->io.ssl);
    }
    (void)shutdown(conn->io.fd, SHUT_WR);
    proxy_conn_want(conn, true, false);
}

/* What is already here of a body that nobody wants. */
static bool discard_body(struct proxy_conn *conn, struct proxy_exchange *x)
{
    while (!x->body.done) {
        struct sv in = proxy_window_sv(&conn->in);
        struct sv data = { 0 };
        size_t had = in.n;
        enum http_step step = proxy_body_next(&x->body, &in, &data);

        proxy_window_drop(&conn->in, had - in.n);
        if (step != HTTP_DATA && step != HTTP_DONE) {
            return false;
        }
    }
    return true;
}

static void next_request(void *arg)
{
    struct proxy_conn *conn = arg;

    if (conn->phase == PROXY_CONN_IDLE && !parse_head(conn) && conn->eof) {
        proxy_conn_close(conn); /* the rest of that head will never come */
    }
}

void proxy_conn_finish(struct proxy_conn *conn, struct proxy_exchange *x)
{
    bool last = x->close_after || conn->draining;

    if (x->service != PROXY_FOR_NONE) {
        last = !discard_body(conn, x) || last;
    }
    end_exchange(conn);
    if (last) {
        enter_linger(conn);
        return;
    }
    enter_idle(conn);
    if (conn->eof && conn->in.start == conn->in.end) {
        proxy_conn_close(conn);
    } else if (conn->in.start != conn->in.end) {
        if (++conn->pipelined < PIPELINED_MAX) {
            loop_defer(conn->worker->loop, next_request, conn); /* not deeper in the stack */
        } else {
            come_late(conn);
        }
    }
}

void proxy_conn_send(struct proxy_conn *conn, struct proxy_exchange *x)
{
    uint64_t sent = 0;

    switch (proxy_out_flush(&conn->out, &conn->io, conn->worker->scratch, &sent)) {
    case PROXY_IO_DONE:
        proxy_conn_want(conn, true, false);
        proxy_conn_finish(conn, x);
        break;
    case PROXY_IO_AGAIN:
        proxy_conn_want(conn, false, true);
        break;
    case PROXY_IO_FAILED:
    case PROXY_IO_END:
        proxy_conn_close(conn);
        break;
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void refuse_header(struct proxy_conn *conn, const char *why)
{
    static _Thread_local struct log_limit limit;

    if (log_limit_pass(&limit, 1)) {
        log_warn("proxy-header.refused", KV_STR("peer", conn->peer.text), KV_STR("reason", why));
    }
    proxy_conn_close(conn);
}

/* Takes from the socket what belongs to the PROXY header and not a byte more: TLS reads the rest. */
static void read_proxy_header(struct proxy_conn *conn)
{
    struct http_proxy_header header = { 0 };
    struct proxy_window *in = &conn->in;
    enum http_step step = HTTP_ERROR;
    size_t take = 0;
    ssize_t n = 0;

    if (!proxy_window_room(in, HTTP_PROXY_HEADER_MAX, false)) {
        proxy_conn_close(conn);
        return;
    }
    n = recv(conn->io.fd, in->bytes + in->end, in->cap - in->end, MSG_PEEK);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        refuse_header(conn, "it closed the connection before the header was whole");
        return;
    }
    step = http_proxy_header_parse(sv_of(in->bytes, in->end + (size_t)n), &header);
    if (step == HTTP_ERROR) {
        refuse_header(conn, "a trusted proxy sent no PROXY header, or one that is wrong");
        return;
    }
    take = step == HTTP_DONE ? header.size - in->end : (size_t)n;
    if (recv(conn->io.fd, in->bytes + in->end, take, 0) != (ssize_t)take) {
        proxy_conn_close(conn);
        return;
    }
    in->end += take;
    if (step == HTTP_DONE) {
        proxy_window_drop(in, in->end);
        proxy_peer_take_header(&conn->peer, &header);
        begin(conn);
    }
}

static void go_on_with_handshake(struct proxy_conn *conn)
{
    switch (proxy_io_handshake(&conn->io)) {
    case PROXY_IO_DONE:
        if (proxy_acme_was_challenge(conn->io.ssl)) {
            proxy_conn_close(conn);
            break;
        }
        if (conn->snapshot->n_trusts != 0) {
            conn->client_cert = proxy_client_cert_new(conn->io.ssl);
        }
        proxy_snapshot_unref(&conn->snapshot);
        if (proxy_io_speaks_h2(&conn->io)) {
            start_h2(conn);
            if (conn->phase == PROXY_CONN_H2) {
                on_h2_event(conn, EV_READ);
            }
        } else {
            enter_idle(conn);
            read_heads(conn);
        }
        break;
    case PROXY_IO_AGAIN:
        proxy_conn_want(conn, true, conn->io.want_write);
        break;
    case PROXY_IO_FAILED:
    case PROXY_IO_END:
        proxy_tls_failed(conn->snapshot, conn->io.ssl, conn->peer.text);
        proxy_conn_close(conn);
        break;
    }
}

/* An answer of ours still goes out to who says no more, and a tunnel has a direction left; for anything
 * else there is nobody. */
static void said_no_more(struct proxy_conn *conn, bool failed)
{
    bool waits = conn->x->phase == PROXY_REPLY || conn->x->head.method == HTTP_CONNECT;

    if (waits && !failed) {
        conn->eof = true;
        proxy_conn_want(conn, false, conn->wr_on);
        return;
    }
    if (conn->x->fault == NULL) {
        conn->x->fault = "client-left";
    }
    proxy_conn_close(conn);
}

void proxy_conn_read_ahead(struct proxy_conn *conn)
{
    int i = 0;

    for (i = 0; i < READS_MAX; i++) {
        bool drained = false;
        enum proxy_io_result result = PROXY_IO_FAILED;

        if (!proxy_window_room(&conn->in, PROXY_WINDOW, false)) {
            proxy_conn_want(conn, false, conn->wr_on);
            return;
        }
        result = proxy_window_fill(&conn->in, &conn->io, &drained);
        if (result == PROXY_IO_FAILED || result == PROXY_IO_END) {
            said_no_more(conn, result == PROXY_IO_FAILED);
            return;
        }
        if (result == PROXY_IO_AGAIN || drained) {
            return;
        }
    }
    wake_for_pending(conn);
}

static void hear_out(struct proxy_conn *conn)
{
    char room[4096];
    size_t n = 0;
    int i = 0;

    for (i = 0; i < READS_MAX; i++) {
        enum proxy_io_result result = PROXY_IO_FAILED;

        if (conn->io.ssl != NULL) { /* the peer's TLS is of no interest any more */
            ssize_t got = recv(conn->io.fd, room, sizeof(room), 0);

            result = got > 0 ? PROXY_IO_DONE
                             : (got < 0 && errno == EAGAIN ? PROXY_IO_AGAIN : PROXY_IO_END);
        } else {
            result = proxy_io_read(&conn->io, room, sizeof(room), &n);
        }
        if (result == PROXY_IO_AGAIN) {
            return;
        }
        if (result != PROXY_IO_DONE) {
            proxy_conn_close(conn);
            return;
        }
    }
}

static void on_exchange_event(struct proxy_conn *conn, struct proxy_exchange *x, short what)
{
    switch (x->phase) {
    case PROXY_HEAD:
        read_heads(conn);
        break;
    case PROXY_CHECK:
    case PROXY_CONNECT:
        proxy_conn_read_ahead(conn);
        break;
    case PROXY_FORWARD:
    case PROXY_TUNNEL:
        proxy_forward_client(x, what);
        break;
    case PROXY_REPLY:
        if ((what & EV_WRITE) != 0) {
            proxy_exchange_progress(x);
            proxy_exchange_send(x);
        } else {
            proxy_conn_read_ahead(conn);
        }
        break;
    case PROXY_ENDED:
        break;
    }
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_conn *conn = arg;

    (void)fd;
    if ((what & EV_READ) != 0 && must_wait(conn)) {
        return;
    }
    conn->pipelined = 0;
    switch (conn->phase) {
    case PROXY_CONN_PROXY_HEADER:
        read_proxy_header(conn);
        break;
    case PROXY_CONN_HANDSHAKE:
        if ((what & EV_READ) != 0) {
            come_late(conn);
        } else {
            go_on_with_handshake(conn);
        }
        break;
    case PROXY_CONN_IDLE:
        read_heads(conn);
        break;
    case PROXY_CONN_BUSY:
        on_exchange_event(conn, conn->x, what);
        break;
    case PROXY_CONN_H2:
        on_h2_event(conn, what);
        break;
    case PROXY_CONN_LINGER:
        hear_out(conn);
        break;
    case PROXY_CONN_CLOSED:
        break;
    }
}

void proxy_conn_go_on(struct proxy_conn *conn)
{
    list_remove(&conn->in_late);
    if (conn->rd_held) {
        conn->rd_held = false;
        proxy_conn_want(conn, true, conn->wr_on);
    }
    conn->pipelined = 0;
    if (conn->phase == PROXY_CONN_HANDSHAKE) {
        go_on_with_handshake(conn);
    } else if (conn->phase == PROXY_CONN_H2) {
        on_h2_event(conn, EV_READ);
    } else {
        next_request(conn);
    }
}

void proxy_conn_tick(struct proxy_conn *conn, int64_t now_ms)
{
    if (conn->phase == PROXY_CONN_BUSY || now_ms < conn->deadline_ms) {
        return;
    }
    if (conn->phase == PROXY_CONN_PROXY_HEADER) {
        refuse_header(conn, "no PROXY header came in time");
    } else if (conn->phase != PROXY_CONN_H2) {
        proxy_conn_close(conn);
    } else if (proxy_h2_streams(conn->h2) == 0) {
        proxy_h2_shutdown(conn->h2);
        (void)!proxy_h2_flush(conn->h2); /* says so, if the socket takes it */
        proxy_conn_close(conn);
    }
}

void proxy_conn_drain(struct proxy_conn *conn)
{
    conn->draining = true;
    conn->old = true;
    if (conn->phase == PROXY_CONN_H2) {
        proxy_h2_shutdown(conn->h2);
    } else if (conn->phase != PROXY_CONN_BUSY) {
        conn->deadline_ms = MIN(conn->deadline_ms, clock_mono_ms() + DRAIN_IDLE_MS);
    }
}
