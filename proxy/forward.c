#include "proxy/forward.h"

#include <string.h>

#include "common/clock.h"
#include "proxy/access.h"
#include "proxy/reply.h"

enum { ANSWER_HEAD_MAX = 65536, ANSWER_FIELDS = 256, READS_MAX = 16, INFORMATIONAL_MAX = 16 };

static void pump_up(struct proxy_conn *conn);
static void pump_down(struct proxy_conn *conn);
static const struct proxy_upstream_hooks hooks;

/* ---- ends ------------------------------------------------------------------------------------ */

/* No usable answer. What was not begun becomes an error page, what was is cut off. */
static void fail(struct proxy_conn *conn, unsigned status, const char *code)
{
    conn->fault = code;
    proxy_upstream_close(&conn->up);
    if (conn->answer_begun || conn->phase == PROXY_TUNNEL) {
        proxy_conn_close(conn);
        return;
    }
    if (!conn->request_done) {
        conn->close_after = true;
    }
    proxy_reply_fault(conn, status, code);
}

/* A pooled connection may have been closed by the upstream just as we took it. Nothing came back,
 * and what was sent may be sent twice: ask again on a new one. */
static bool retry(struct proxy_conn *conn)
{
    struct proxy_target *target = NULL;

    if (conn->up == NULL || !conn->up->reused || conn->retried || conn->answer_begun ||
        conn->head.framing != HTTP_BODY_NONE || !http_method_is_safe(conn->head.method) ||
        conn->up->in.end != 0) {
        return false;
    }
    target = conn->service == PROXY_FOR_ROUTE ? proxy_route_target(conn->route)
                                              : conn->snapshot->authenticate.targets;
    conn->retried = true;
    conn->target = target;
    conn->request_done = false;
    conn->up_eof = false;
    conn->up_lost = false;
    conn->informational = 0;
    conn->total_ms = INT64_MAX;
    conn->deadline_ms = clock_mono_ms() + PROXY_CONNECT_MS + 1000;
    proxy_upstream_close(&conn->up);
    conn->phase = PROXY_CONNECT;
    conn->up = proxy_upstream_get(conn->worker, conn->snapshot, target, true, &hooks, conn);
    return true;
}

static void finish(struct proxy_conn *conn)
{
    bool clean = conn->answer.keep_alive && conn->request_done && !conn->up_eof && !conn->up_lost;

    if (clean) {
        proxy_upstream_put(&conn->up);
    } else {
        proxy_upstream_close(&conn->up);
    }
    if (!conn->request_done) {
        conn->close_after = true; /* the rest of the body has nowhere to go */
    }
    proxy_conn_finish(conn);
}

/* ---- to the upstream ------------------------------------------------------------------------- */

static void request_is_out(struct proxy_conn *conn)
{
    int64_t timeout = conn->service == PROXY_FOR_ROUTE
                          ? conn->route->config->timeout_ms
                          : conn->snapshot->config->default_upstream_timeout_ms;

    conn->request_done = true;
    /* The upstream's time counts from here: a slow upload is not its fault. */
    if (timeout != 0 && conn->phase == PROXY_FORWARD) {
        conn->total_ms = clock_mono_ms() + timeout;
    }
}

static void pump_up(struct proxy_conn *conn)
{
    if (conn->request_done || conn->up_lost || conn->up == NULL) {
        return;
    }
    switch (proxy_pipe_pump(&conn->up_pipe, conn->worker->scratch)) {
    case PROXY_PIPE_HUNGRY:
        proxy_upstream_want(conn->up, conn->up->rd_on, false);
        if (conn->eof) {
            if (conn->phase == PROXY_TUNNEL) {
                conn->body.done = true; /* half-closed: end this direction */
                proxy_conn_close(conn);
            } else {
                conn->close_after = true;
                fail(conn, 400, "request-cut-off");
            }
            return;
        }
        proxy_conn_want(conn, true, conn->wr_on);
        break;
    case PROXY_PIPE_FULL:
        proxy_upstream_want(conn->up, conn->up->rd_on, true);
        proxy_conn_want(conn, conn->in.end < conn->in.cap, conn->wr_on);
        break;
    case PROXY_PIPE_DONE:
        proxy_upstream_want(conn->up, conn->up->rd_on, false);
        request_is_out(conn);
        break;
    case PROXY_PIPE_LOST:
        /* It may have answered before it closed: read on. */
        conn->up_lost = true;
        proxy_upstream_want(conn->up, true, false);
        break;
    case PROXY_PIPE_BAD:
        conn->close_after = true;
        fail(conn, 400, "bad-body");
        break;
    }
}

static void on_ready(void *owner)
{
    struct proxy_conn *conn = owner;
    struct proxy_upstream *up = conn->up;

    conn->phase = PROXY_FORWARD;
    proxy_head_request(conn, conn->target, &up->out.head);
    if (conn->head.expect_continue && !conn->body.done && conn->in.start == conn->in.end) {
        buf_add_str(&conn->out.head, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    conn->up_pipe = (struct proxy_pipe){ .from = &conn->in,
                                         .body = &conn->body,
                                         .to = &up->out,
                                         .io = &up->io,
                                         .chunk = conn->head.framing == HTTP_BODY_CHUNKED };
    http_head_init_response(&conn->answer, NULL, conn->head.method, conn->answer_fields,
                            ANSWER_FIELDS);
    proxy_conn_progress(conn);
    proxy_upstream_want(up, true, false);
    if (conn->out.head.n != 0) {
        uint64_t sent = 0;

        if (proxy_out_flush(&conn->out, &conn->io, conn->worker->scratch, &sent) ==
            PROXY_IO_AGAIN) {
            proxy_conn_want(conn, conn->rd_on, true);
        }
    }
    pump_up(conn);
}

static void on_failed(void *owner, const char *why)
{
    struct proxy_conn *conn = owner;

    conn->up = NULL;
    fail(conn, 502, why);
}

/* ---- from the upstream ----------------------------------------------------------------------- */

static void enter_tunnel(struct proxy_conn *conn)
{
    conn->phase = PROXY_TUNNEL;
    conn->total_ms = INT64_MAX;
    conn->idle_ms = conn->route->config->idle_timeout_ms; /* none: it may be silent for days */
    proxy_conn_progress(conn);
    conn->close_after = true;
    conn->request_done = false;
    proxy_body_init_raw(&conn->body);
    proxy_body_init_raw(&conn->answer_body);
    conn->up_pipe.chunk = false;
    conn->up_pipe.ended = false;
    proxy_conn_want(conn, true, conn->wr_on);
}

/* The answer's head is whole. False: nothing more to do with this connection now. */
static bool begin_answer(struct proxy_conn *conn)
{
    bool chunk = false;

    conn->status = conn->answer.status;
    conn->upstream_us = clock_mono_us() - conn->began_us;
    if (conn->answer.status == 101 && !conn->upgrade) {
        fail(conn, 502, "upgrade-without-request");
        return false;
    }
    proxy_head_answer(conn, &conn->out.head, &chunk);
    proxy_window_drop(&conn->up->in, conn->answer.size);
    proxy_body_init(&conn->answer_body, &conn->answer, NULL);
    conn->answer_begun = true;
    conn->down_pipe = (struct proxy_pipe){ .from = &conn->up->in,
                                           .body = &conn->answer_body,
                                           .to = &conn->out,
                                           .io = &conn->io,
                                           .chunk = chunk };
    if (conn->answer.status == 101) {
        enter_tunnel(conn);
        pump_up(conn);
    }
    return conn->up != NULL;
}

/* 1xx other than 101: passed on, but for the 100 that we say ourselves. */
static bool pass_informational(struct proxy_conn *conn)
{
    uint32_t i = 0;

    if (++conn->informational > INFORMATIONAL_MAX) {
        fail(conn, 502, "too-many-1xx");
        return false;
    }
    if (conn->answer.status != 100 && conn->head.minor >= 1) {
        struct buf *out = &conn->out.head;

        buf_printf(out, "HTTP/1.1 %u ", conn->answer.status);
        buf_add_sv(out, conn->answer.reason);
        buf_add_str(out, "\r\n");
        for (i = 0; i < conn->answer.n; i++) {
            const struct http_field *f = &conn->answer.fields[i];

            if ((f->flags & HTTP_F_NOT_FORWARDED) == 0) {
                buf_add_sv(out, f->name);
                buf_add_str(out, ": ");
                buf_add_sv(out, f->value);
                buf_add_str(out, "\r\n");
            }
        }
        buf_add_str(out, "\r\n");
    }
    proxy_window_drop(&conn->up->in, conn->answer.size);
    http_head_init_response(&conn->answer, NULL, conn->head.method, conn->answer_fields,
                            ANSWER_FIELDS);
    return true;
}

/* True: the final head has been passed on. */
static bool parse_answer(struct proxy_conn *conn)
{
    for (;;) {
        struct sv bytes = proxy_window_sv(&conn->up->in);

        if (bytes.n == 0) {
            return false;
        }
        switch (http_head_parse(&conn->answer, bytes)) {
        case HTTP_DONE:
            if (conn->answer.status >= 200 || conn->answer.status == 101) {
                return begin_answer(conn);
            }
            if (!pass_informational(conn)) {
                return false;
            }
            break;
        case HTTP_ERROR:
            fail(conn, 502, "bad-answer");
            return false;
        case HTTP_MORE:
        case HTTP_DATA:
            return false;
        }
    }
}

static void answer_ended_early(struct proxy_conn *conn)
{
    if (!conn->answer_begun) {
        if (!retry(conn)) {
            fail(conn, 502, conn->up->in.end == 0 ? "no-answer" : "answer-cut-off");
        }
        return;
    }
    if (conn->answer_body.framing == HTTP_BODY_UNTIL_CLOSE && !conn->up_broke) {
        conn->answer_body.done = true;
        pump_down(conn);
        return;
    }
    fail(conn, 502, "answer-cut-off");
}

static void pump_down(struct proxy_conn *conn)
{
    if (conn->up == NULL || !conn->answer_begun) {
        return;
    }
    switch (proxy_pipe_pump(&conn->down_pipe, conn->worker->scratch)) {
    case PROXY_PIPE_HUNGRY:
        proxy_conn_want(conn, conn->rd_on, false);
        if (conn->up_eof) {
            answer_ended_early(conn);
            return;
        }
        proxy_upstream_want(conn->up, true, conn->up->wr_on);
        break;
    case PROXY_PIPE_FULL:
        proxy_conn_want(conn, conn->rd_on, true);
        proxy_upstream_want(conn->up, !conn->up_eof && conn->up->in.end < conn->up->in.cap,
                            conn->up->wr_on);
        break;
    case PROXY_PIPE_DONE:
        if (conn->phase == PROXY_TUNNEL) {
            proxy_conn_close(conn);
        } else {
            finish(conn);
        }
        break;
    case PROXY_PIPE_LOST:
        conn->fault = "client-left";
        proxy_conn_close(conn);
        break;
    case PROXY_PIPE_BAD:
        fail(conn, 502, "bad-answer-body");
        break;
    }
}

/* One read. False: enough for now. */
static bool read_upstream(struct proxy_conn *conn)
{
    struct proxy_upstream *up = conn->up;
    bool drained = false;
    bool pinned = conn->answer_begun && !proxy_out_empty(&conn->out);
    enum proxy_io_result result = PROXY_IO_AGAIN;

    if (!proxy_window_room(&up->in, conn->answer_begun ? PROXY_WINDOW : ANSWER_HEAD_MAX, pinned)) {
        if (conn->answer_begun) {
            proxy_upstream_want(up, false, up->wr_on);
        } else {
            fail(conn, 502, "answer-head-too-large");
        }
        return false;
    }
    result = proxy_window_fill(&up->in, &up->io, &drained);
    if (result == PROXY_IO_AGAIN) {
        return false;
    }
    proxy_conn_progress(conn);
    if (result != PROXY_IO_DONE) {
        conn->up_eof = true;
        conn->up_broke = result != PROXY_IO_END; /* a cut is no end */
        proxy_upstream_want(up, false, up->wr_on);
        if (!conn->answer_begun || proxy_out_empty(&conn->out)) {
            answer_ended_early(conn);
        }
        return false;
    }
    if (conn->answer_begun || parse_answer(conn)) {
        pump_down(conn);
    }
    return !drained;
}

static void on_readable(void *owner)
{
    struct proxy_conn *conn = owner;
    int i = 0;

    while (i < READS_MAX && conn->up != NULL && read_upstream(conn)) {
        i++;
    }
    if (i == READS_MAX && conn->up != NULL) {
        event_active(conn->up->rd, EV_READ, 0); /* TLS may hold bytes that raise no event */
    }
}

static void on_writable(void *owner)
{
    struct proxy_conn *conn = owner;

    proxy_conn_progress(conn);
    pump_up(conn);
}

static const struct proxy_upstream_hooks hooks = {
    .ready = on_ready,
    .failed = on_failed,
    .readable = on_readable,
    .writable = on_writable,
};

/* ---- the client's side ----------------------------------------------------------------------- */

static void read_client(struct proxy_conn *conn)
{
    int i = 0;

    for (i = 0; i < READS_MAX; i++) {
        bool drained = false;
        bool pinned = conn->up != NULL && conn->up_pipe.taken != 0;
        enum proxy_io_result result = PROXY_IO_AGAIN;

        if ((conn->request_done && conn->phase != PROXY_TUNNEL) ||
            !proxy_window_room(&conn->in, PROXY_WINDOW, pinned)) {
            proxy_conn_want(conn, false, conn->wr_on); /* a next request waits, or it is full */
            return;
        }
        result = proxy_window_fill(&conn->in, &conn->io, &drained);
        if (result == PROXY_IO_AGAIN) {
            return;
        }
        proxy_conn_progress(conn);
        if (result == PROXY_IO_FAILED) {
            conn->fault = "client-left";
            proxy_conn_close(conn);
            return;
        }
        if (result == PROXY_IO_END) {
            conn->eof = true;
            proxy_conn_want(conn, false, conn->wr_on);
        }
        pump_up(conn);
        if (conn->eof || drained || (conn->phase != PROXY_FORWARD && conn->phase != PROXY_TUNNEL)) {
            return;
        }
    }
}

static void write_client(struct proxy_conn *conn)
{
    uint64_t sent = 0;

    proxy_conn_progress(conn);
    if (conn->answer_begun) {
        pump_down(conn);
    } else if (proxy_out_flush(&conn->out, &conn->io, conn->worker->scratch, &sent) ==
               PROXY_IO_DONE) {
        proxy_conn_want(conn, conn->rd_on, false);
    }
}

void proxy_forward_client(struct proxy_conn *conn, short what)
{
    if ((what & EV_WRITE) != 0) {
        write_client(conn);
    }
    if ((what & EV_READ) != 0 && (conn->phase == PROXY_FORWARD || conn->phase == PROXY_TUNNEL)) {
        read_client(conn);
    }
}

void proxy_forward_timeout(struct proxy_conn *conn)
{
    if (!conn->request_done && !conn->up_lost) {
        conn->close_after = true;
        fail(conn, 408, "request-body-timeout");
    } else {
        fail(conn, 504, "upstream-timeout");
    }
}

void proxy_forward_start(struct proxy_conn *conn, struct proxy_target *target)
{
    const struct config *c = conn->snapshot->config;

    conn->phase = PROXY_CONNECT;
    conn->idle_ms = conn->service == PROXY_FOR_ROUTE && conn->route->config->idle_timeout_ms != 0
                        ? conn->route->config->idle_timeout_ms
                        : c->timeout_idle_ms;
    conn->deadline_ms = clock_mono_ms() + PROXY_CONNECT_MS + 1000;
    conn->total_ms = INT64_MAX;
    conn->retried = false;
    conn->request_done = false;
    conn->up_lost = false;
    conn->up_eof = false;
    conn->up_broke = false;
    conn->answer_begun = false;
    conn->informational = 0;
    conn->answer_fields = arena_alloc(&conn->arena, ANSWER_FIELDS * sizeof(*conn->answer_fields));
    conn->target = target;
    conn->up = proxy_upstream_get(conn->worker, conn->snapshot, target, false, &hooks, conn);
}
