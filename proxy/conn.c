#include "proxy/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proxy/access.h"
#include "proxy/app.h"
#include "proxy/forward.h"
#include "proxy/reply.h"

enum { HANDSHAKE_MS = 10000, LINGER_MS = 2000, REPLY_MS = 30000, READS_MAX = 16 };

static void on_event(evutil_socket_t fd, short what, void *arg);

/* Bytes that OpenSSL has read already raise no event of the socket: raise it for them. */
static void wake_for_pending(struct proxy_conn *conn)
{
    if (conn->io.ssl != NULL && conn->rd_on && SSL_has_pending(conn->io.ssl) == 1) {
        event_active(conn->rd, EV_READ, 0);
    }
}

void proxy_conn_want(struct proxy_conn *conn, bool read, bool write)
{
    read = read && !conn->eof;
    if (read != conn->rd_on) {
        (void)(read ? event_add(conn->rd, NULL) : event_del(conn->rd));
        conn->rd_on = read;
    }
    if (write != conn->wr_on) {
        (void)(write ? event_add(conn->wr, NULL) : event_del(conn->wr));
        conn->wr_on = write;
    }
    wake_for_pending(conn);
}

void proxy_conn_progress(struct proxy_conn *conn)
{
    conn->deadline_ms = conn->idle_ms == 0 ? INT64_MAX : clock_mono_ms() + conn->idle_ms;
}

static void enter_idle(struct proxy_conn *conn)
{
    const struct config *c = conn->worker->snapshot->config;

    conn->phase = PROXY_IDLE;
    conn->idle_ms = c->timeout_idle_ms;
    conn->total_ms = INT64_MAX;
    proxy_conn_progress(conn);
    proxy_conn_want(conn, true, false);
}

static void set_peer(struct proxy_conn *conn, const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)(const void *)address;

        memcpy(conn->peer_address, &a->sin_addr, 4);
        conn->peer_address_n = 4;
        (void)inet_ntop(AF_INET, &a->sin_addr, conn->peer, sizeof(conn->peer));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)(const void *)address;

        if (IN6_IS_ADDR_V4MAPPED(&a->sin6_addr)) {
            memcpy(conn->peer_address, a->sin6_addr.s6_addr + 12, 4);
            conn->peer_address_n = 4;
            (void)inet_ntop(AF_INET, conn->peer_address, conn->peer, sizeof(conn->peer));
        } else {
            memcpy(conn->peer_address, &a->sin6_addr, 16);
            conn->peer_address_n = 16;
            (void)inet_ntop(AF_INET6, &a->sin6_addr, conn->peer, sizeof(conn->peer));
        }
    }
}

void proxy_conn_open(struct proxy_worker *worker, int fd, const struct sockaddr *address)
{
    struct proxy_conn *conn = MEM_NEW(struct proxy_conn);
    struct event_base *base = loop_base(worker->loop);
    int on = 1;

    conn->worker = worker;
    set_peer(conn, address);
    if (address->sa_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    proxy_io_init(&conn->io, fd);
    proxy_window_init(&conn->in);
    proxy_out_init(&conn->out);
    arena_init(&conn->arena);
    conn->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_event, conn);
    conn->wr = event_new(base, fd, EV_WRITE | EV_PERSIST, on_event, conn);
    CHECK(conn->rd != NULL && conn->wr != NULL);
    list_push_back(&worker->conns, &conn->in_worker);
    worker->n_conns++;
    if (worker->snapshot->tls == NULL) {
        enter_idle(conn);
        return;
    }
    conn->snapshot = proxy_snapshot_ref(worker->snapshot);
    conn->io.ssl = SSL_new(conn->snapshot->tls);
    CHECK(conn->io.ssl != NULL && SSL_set_fd(conn->io.ssl, fd) == 1);
    SSL_set_accept_state(conn->io.ssl);
    conn->phase = PROXY_HANDSHAKE;
    conn->deadline_ms = clock_mono_ms() + HANDSHAKE_MS;
    conn->total_ms = INT64_MAX;
    proxy_conn_want(conn, true, false);
}

static void drop_exchange(struct proxy_conn *conn)
{
    proxy_authz_cancel(conn->worker->authz, conn->check);
    proxy_authz_cancel(conn->worker->authz, conn->recheck);
    if (conn->redeem != NULL) {
        conn->redeem->conn = NULL;
        conn->redeem = NULL;
    }
    proxy_upstream_close(&conn->up);
    proxy_identity_unref(&conn->identity);
    proxy_snapshot_unref(&conn->snapshot);
}

static void free_later(void *arg)
{
    struct proxy_conn *conn = arg;

    proxy_window_deinit(&conn->in);
    proxy_out_deinit(&conn->out);
    arena_deinit(&conn->arena);
    mem_free(&conn);
}

void proxy_conn_close(struct proxy_conn *conn)
{
    if (conn->phase == PROXY_CLOSED) {
        return;
    }
    if (conn->head_begun && conn->service != PROXY_FOR_NONE) {
        proxy_access_line(conn);
    }
    conn->phase = PROXY_CLOSED;
    drop_exchange(conn);
    list_remove(&conn->in_worker);
    conn->worker->n_conns--;
    event_free(conn->rd);
    event_free(conn->wr);
    proxy_io_close(&conn->io);
    loop_defer(conn->worker->loop, free_later, conn);
}

/* ---- heads ----------------------------------------------------------------------------------- */

/* The head's texts move into the arena: the window goes on with the body. */
static void keep_head(struct proxy_conn *conn)
{
    const char *from = conn->in.bytes + conn->in.start;
    char *to = arena_alloc(&conn->arena, conn->head.size);
    uint32_t i = 0;

    memcpy(to, from, conn->head.size);
    for (i = 0; i < conn->head.n; i++) {
        conn->head.fields[i].name.p = to + (conn->head.fields[i].name.p - from);
        conn->head.fields[i].value.p = to + (conn->head.fields[i].value.p - from);
    }
    conn->head.method_text.p = to + (conn->head.method_text.p - from);
    conn->head.target.p = to + (conn->head.target.p - from);
    if (conn->head.host.n != 0) {
        conn->head.host.p = to + (conn->head.host.p - from);
    }
    proxy_window_drop(&conn->in, conn->head.size);
}

/* What the last exchange left: its texts lay in the arena, its route in the snapshot it held. A head
 * that never becomes a request must not find them either. */
static void forget_exchange(struct proxy_conn *conn)
{
    conn->route = NULL;
    conn->handle_valid = false;
    conn->verdict = PROXY_VERDICT_NONE;
    conn->n_reasons = 0;
    conn->user = (struct sv){ 0 };
    conn->email = (struct sv){ 0 };
    conn->fault = NULL;
    conn->status = 0;
    conn->upstream_us = 0;
    conn->recheck_at_ms = INT64_MAX;
    conn->again = false;
    conn->undecided_since_ms = 0;
    conn->up_pipe = (struct proxy_pipe){ .bytes = 0 };
    conn->down_pipe = (struct proxy_pipe){ .bytes = 0 };
    conn->req = (struct http_request){ .method = HTTP_UNKNOWN };
}

static void begin_head(struct proxy_conn *conn)
{
    const struct config *c = NULL;

    forget_exchange(conn);
    conn->snapshot = proxy_snapshot_ref(conn->worker->snapshot);
    c = conn->snapshot->config;
    conn->fields = arena_alloc(&conn->arena, HTTP_FIELDS_DEFAULT * sizeof(*conn->fields));
    http_head_init(&conn->head, HTTP_REQUEST, &conn->snapshot->head, conn->fields,
                   HTTP_FIELDS_DEFAULT);
    conn->head_begun = true;
    conn->service = PROXY_FOR_NONE;
    conn->began_us = clock_mono_us();
    conn->idle_ms = 0;
    conn->deadline_ms = c->timeout_read_ms == 0 ? INT64_MAX : clock_mono_ms() + c->timeout_read_ms;
}

/* Looks at what the window holds; true: a request has begun or the connection is on its way out. */
static bool parse_head(struct proxy_conn *conn)
{
    if (conn->in.start == conn->in.end) {
        return false;
    }
    if (!conn->head_begun) {
        begin_head(conn);
    }
    switch (http_head_parse(&conn->head, proxy_window_sv(&conn->in))) {
    case HTTP_DONE:
        keep_head(conn);
        proxy_request_start(conn);
        if (conn->phase != PROXY_CLOSED) {
            wake_for_pending(conn);
        }
        return true;
    case HTTP_ERROR:
        rand_uuid(conn->request_id);
        conn->close_after = true;
        proxy_reply_fault(conn, http_fault_status(conn->head.fault),
                          http_fault_name(conn->head.fault));
        return true;
    case HTTP_MORE:
    case HTTP_DATA:
        break;
    }
    return false;
}

static void read_heads(struct proxy_conn *conn)
{
    int i = 0;

    for (i = 0; i < READS_MAX && conn->phase == PROXY_IDLE; i++) {
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
            return;
        }
    }
}

/* ---- the end of an exchange ------------------------------------------------------------------- */

static void enter_linger(struct proxy_conn *conn)
{
    /* The answer must not be lost to a reset: say we are done, then hear the rest out. */
    conn->phase = PROXY_LINGER;
    conn->deadline_ms = clock_mono_ms() + LINGER_MS;
    conn->total_ms = INT64_MAX;
    if (conn->io.ssl != NULL) {
        (void)SSL_shutdown(conn->io.ssl);
    }
    (void)shutdown(conn->io.fd, SHUT_WR);
    proxy_conn_want(conn, true, false);
}

/* What is already here of a body that nobody wants. */
static bool discard_body(struct proxy_conn *conn)
{
    while (!conn->body.done) {
        struct sv in = proxy_window_sv(&conn->in);
        struct sv data = { 0 };
        size_t had = in.n;
        enum http_step step = proxy_body_next(&conn->body, &in, &data);

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

    if (conn->phase == PROXY_IDLE) {
        (void)parse_head(conn);
    }
}

void proxy_conn_finish(struct proxy_conn *conn)
{
    bool whole = conn->service == PROXY_FOR_NONE ? !conn->close_after : discard_body(conn);

    proxy_access_line(conn);
    drop_exchange(conn);
    conn->check = 0;
    conn->recheck = 0;
    conn->head_begun = false;
    conn->service = PROXY_FOR_NONE;
    arena_reset(&conn->arena);
    if (conn->close_after || !whole || conn->worker->stopping) {
        enter_linger(conn);
        return;
    }
    enter_idle(conn);
    if (conn->eof && conn->in.start == conn->in.end) {
        proxy_conn_close(conn);
    } else if (conn->in.start != conn->in.end) {
        loop_defer(conn->worker->loop, next_request, conn); /* pipelined: not deeper in the stack */
    }
}

void proxy_conn_send(struct proxy_conn *conn)
{
    uint64_t sent = 0;

    if (conn->phase != PROXY_REPLY) {
        conn->phase = PROXY_REPLY;
        conn->idle_ms = REPLY_MS;
        conn->total_ms = INT64_MAX;
        proxy_conn_progress(conn);
    }
    switch (proxy_out_flush(&conn->out, &conn->io, conn->worker->scratch, &sent)) {
    case PROXY_IO_DONE:
        proxy_conn_want(conn, true, false);
        proxy_conn_finish(conn);
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

static void go_on_with_handshake(struct proxy_conn *conn)
{
    switch (proxy_io_handshake(&conn->io)) {
    case PROXY_IO_DONE:
        proxy_snapshot_unref(&conn->snapshot);
        enter_idle(conn);
        read_heads(conn);
        break;
    case PROXY_IO_AGAIN:
        proxy_conn_want(conn, true, conn->io.want_write);
        break;
    case PROXY_IO_FAILED:
    case PROXY_IO_END:
        proxy_conn_close(conn);
        break;
    }
}

/* While something else is waited for: take what comes, as far as there is room. */
static void read_ahead(struct proxy_conn *conn)
{
    bool drained = false;

    if (!proxy_window_room(&conn->in, PROXY_WINDOW, false)) {
        proxy_conn_want(conn, false, false);
        return;
    }
    switch (proxy_window_fill(&conn->in, &conn->io, &drained)) {
    case PROXY_IO_FAILED:
        proxy_conn_close(conn);
        break;
    case PROXY_IO_END:
        conn->eof = true;
        proxy_conn_want(conn, false, false);
        break;
    case PROXY_IO_DONE:
    case PROXY_IO_AGAIN:
        break;
    }
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

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_conn *conn = arg;

    (void)fd;
    switch (conn->phase) {
    case PROXY_HANDSHAKE:
        go_on_with_handshake(conn);
        break;
    case PROXY_IDLE:
        read_heads(conn);
        break;
    case PROXY_CHECK:
    case PROXY_CONNECT:
        read_ahead(conn);
        break;
    case PROXY_FORWARD:
    case PROXY_TUNNEL:
        proxy_forward_client(conn, what);
        break;
    case PROXY_REPLY:
        if ((what & EV_WRITE) != 0) {
            proxy_conn_progress(conn);
            proxy_conn_send(conn);
        } else {
            read_ahead(conn);
        }
        break;
    case PROXY_LINGER:
        hear_out(conn);
        break;
    case PROXY_CLOSED:
        break;
    }
}

void proxy_conn_tick(struct proxy_conn *conn, int64_t now_ms)
{
    if (conn->recheck_at_ms <= now_ms && conn->recheck == 0 &&
        (conn->phase == PROXY_FORWARD || conn->phase == PROXY_TUNNEL)) {
        conn->recheck_at_ms = INT64_MAX;
        proxy_request_recheck(conn);
    }
    if (now_ms < conn->deadline_ms && now_ms < conn->total_ms) {
        return;
    }
    if (conn->phase == PROXY_IDLE && conn->head_begun) {
        rand_uuid(conn->request_id);
        conn->close_after = true;
        proxy_reply_fault(conn, 408, "request-timeout");
    } else if (conn->phase == PROXY_FORWARD) {
        proxy_forward_timeout(conn);
    } else {
        proxy_conn_close(conn);
    }
}

void proxy_conn_drain(struct proxy_conn *conn)
{
    conn->close_after = true;
    if ((conn->phase == PROXY_IDLE && !conn->head_begun) || conn->phase == PROXY_HANDSHAKE) {
        proxy_conn_close(conn);
    }
}
