#include "proxy/forward.h"

#include <string.h>

#include "common/clock.h"
#include "proxy/access.h"
#include "proxy/reply.h"

enum { ANSWER_HEAD_MAX = 65536, ANSWER_FIELDS = 256, READS_MAX = 16, INFORMATIONAL_MAX = 16 };

static void pump_up(struct proxy_exchange *x);
static void pump_down(struct proxy_exchange *x);
static const struct proxy_upstream_hooks hooks;

/* ---- ends ------------------------------------------------------------------------------------ */

/* No usable answer. What was not begun becomes an error page, what was is cut off. */
static void fail(struct proxy_exchange *x, unsigned status, const char *code)
{
    x->fault = code;
    proxy_upstream_close(&x->up);
    if (x->answer_begun || x->phase == PROXY_TUNNEL) {
        proxy_exchange_abort(x);
        return;
    }
    if (!x->request_done) {
        x->close_after = true;
    }
    proxy_reply_fault(x, status, code);
}

/* A pooled connection may have been closed by the upstream just as we took it. Nothing came back,
 * and what was sent may be sent twice: ask again on a new one. */
static bool retry(struct proxy_exchange *x)
{
    struct proxy_target *target = NULL;

    if (x->up == NULL || !x->up->reused || x->retried || x->answer_begun ||
        x->head.framing != HTTP_BODY_NONE || !http_method_is_safe(x->head.method) ||
        x->up->in.end != 0) {
        return false;
    }
    target = x->service == PROXY_FOR_ROUTE ? proxy_route_target(x->route)
                                           : x->snapshot->authenticate.targets;
    x->retried = true;
    x->target = target;
    x->request_done = false;
    x->up_eof = false;
    x->up_lost = false;
    x->informational = 0;
    x->total_ms = INT64_MAX;
    x->deadline_ms = clock_mono_ms() + PROXY_CONNECT_MS + 1000;
    proxy_upstream_close(&x->up);
    x->phase = PROXY_CONNECT;
    x->up = proxy_upstream_get(x->worker, x->snapshot, target, true, &hooks, x);
    return true;
}

static void finish(struct proxy_exchange *x)
{
    bool clean = x->answer.keep_alive && x->request_done && !x->up_eof && !x->up_lost;

    if (clean) {
        proxy_upstream_put(&x->up);
    } else {
        proxy_upstream_close(&x->up);
    }
    if (!x->request_done) {
        x->close_after = true; /* the rest of the body has nowhere to go */
    }
    proxy_exchange_finish(x);
}

/* ---- to the upstream ------------------------------------------------------------------------- */

/* How long the upstream may take from now on; 0: no limit. */
static int64_t patience_ms(const struct proxy_exchange *x)
{
    const struct config_route *route = NULL;

    if (x->service != PROXY_FOR_ROUTE) {
        return x->snapshot->config->default_upstream_timeout_ms;
    }
    route = x->route->config;
    return route->timeout_ms != 0 || x->answer_begun ? route->timeout_ms : route->begin_timeout_ms;
}

static void request_is_out(struct proxy_exchange *x)
{
    int64_t timeout = patience_ms(x);

    x->request_done = true;
    /* The upstream's time counts from here: a slow upload is not its fault. */
    if (timeout != 0 && x->phase == PROXY_FORWARD) {
        x->total_ms = clock_mono_ms() + timeout;
    }
}

/* A tunnel's source said no more and all of that is delivered: its reader hears so, and the other
 * direction goes on. Both ends wait no longer than timeout_idle for a next byte then. */
static void end_direction(struct proxy_exchange *x, bool up)
{
    enum proxy_io_result result = proxy_io_end(up ? x->up_pipe.io : x->down_pipe.io);

    if (result == PROXY_IO_DONE) {
        x->request_done = x->request_done || up;
        x->answer_done = x->answer_done || !up;
    }
    if ((result != PROXY_IO_DONE && result != PROXY_IO_AGAIN) ||
        (x->answer_done && (x->request_done || x->up_lost))) {
        proxy_exchange_abort(x);
        return;
    }
    if (up) {
        proxy_upstream_want(x->up, x->up->rd_on, result == PROXY_IO_AGAIN);
    } else {
        proxy_conn_want(x->conn, x->conn->rd_on, result == PROXY_IO_AGAIN);
    }
    if (x->idle_ms == 0) {
        x->idle_ms = x->snapshot->config->timeout_idle_ms;
    }
    proxy_exchange_progress(x);
}

static void pump_up(struct proxy_exchange *x)
{
    if (x->request_done || x->up_lost || x->up == NULL) {
        return;
    }
    switch (proxy_pipe_pump(&x->up_pipe, x->worker->scratch)) {
    case PROXY_PIPE_HUNGRY:
        proxy_upstream_want(x->up, x->up->rd_on, false);
        if (x->conn->eof) {
            if (x->phase == PROXY_TUNNEL) {
                end_direction(x, true);
            } else {
                x->close_after = true;
                fail(x, 400, "request-cut-off");
            }
            return;
        }
        proxy_conn_want(x->conn, true, x->conn->wr_on);
        break;
    case PROXY_PIPE_FULL:
        proxy_upstream_want(x->up, x->up->rd_on, true);
        proxy_conn_want(x->conn, !x->conn->eof && x->conn->in.end < x->conn->in.cap,
                        x->conn->wr_on);
        break;
    case PROXY_PIPE_DONE:
        proxy_upstream_want(x->up, x->up->rd_on, false);
        request_is_out(x);
        break;
    case PROXY_PIPE_LOST:
        /* It may have answered before it closed: read on. */
        x->up_lost = true;
        if (x->answer_done) {
            proxy_exchange_abort(x);
            return;
        }
        proxy_upstream_want(x->up, true, false);
        break;
    case PROXY_PIPE_BAD:
        x->close_after = true;
        fail(x, 400, "bad-body");
        break;
    }
}

static void on_ready(void *owner)
{
    struct proxy_exchange *x = owner;
    struct proxy_upstream *up = x->up;

    x->phase = PROXY_FORWARD;
    proxy_head_request(x, x->target, &up->out.head);
    if (x->head.expect_continue && !x->body.done && x->conn->in.start == x->conn->in.end) {
        buf_add_str(&x->conn->out.head, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    x->up_pipe = (struct proxy_pipe){ .from = &x->conn->in,
                                      .body = &x->body,
                                      .to = &up->out,
                                      .io = &up->io,
                                      .chunk = x->head.framing == HTTP_BODY_CHUNKED };
    http_head_init_response(&x->answer, NULL, x->head.method, x->answer_fields, ANSWER_FIELDS);
    proxy_exchange_progress(x);
    proxy_upstream_want(up, true, false);
    if (x->conn->out.head.n != 0) {
        uint64_t sent = 0;

        if (proxy_out_flush(&x->conn->out, &x->conn->io, x->worker->scratch, &sent) ==
            PROXY_IO_AGAIN) {
            proxy_conn_want(x->conn, x->conn->rd_on, true);
        }
    }
    pump_up(x);
}

static void on_failed(void *owner, const char *why)
{
    struct proxy_exchange *x = owner;

    x->up = NULL;
    fail(x, 502, why);
}

/* ---- from the upstream ----------------------------------------------------------------------- */

static void enter_tunnel(struct proxy_exchange *x)
{
    x->phase = PROXY_TUNNEL;
    x->total_ms = INT64_MAX;
    x->idle_ms = x->route->config->idle_timeout_ms; /* none: it may be silent for days */
    proxy_exchange_progress(x);
    x->close_after = true;
    x->request_done = false;
    proxy_body_init_raw(&x->body);
    proxy_body_init_raw(&x->answer_body);
    x->up_pipe.chunk = false;
    x->up_pipe.ended = false;
    proxy_conn_want(x->conn, true, x->conn->wr_on);
}

/* The answer's head is whole. False: nothing more to do with this connection now. */
static bool begin_answer(struct proxy_exchange *x)
{
    bool chunk = false;

    x->status = x->answer.status;
    x->upstream_us = clock_mono_us() - x->began_us;
    if (x->answer.status == 101 && !x->upgrade) {
        fail(x, 502, "upgrade-without-request");
        return false;
    }
    proxy_head_answer(x, &x->conn->out.head, &chunk);
    proxy_window_drop(&x->up->in, x->answer.size);
    proxy_body_init(&x->answer_body, &x->answer, NULL);
    x->answer_begun = true;
    x->down_pipe = (struct proxy_pipe){ .from = &x->up->in,
                                        .body = &x->answer_body,
                                        .to = &x->conn->out,
                                        .io = &x->conn->io,
                                        .chunk = chunk };
    if (x->answer.status == 101) {
        enter_tunnel(x);
        pump_up(x);
    } else if (x->request_done) {
        int64_t timeout = patience_ms(x);

        /* The default is for the answer's beginning: a stream may go on for days. */
        x->total_ms = timeout == 0 ? INT64_MAX : x->total_ms;
    }
    return x->up != NULL;
}

/* 1xx other than 101: passed on, but for the 100 that we say ourselves. */
static bool pass_informational(struct proxy_exchange *x)
{
    uint32_t i = 0;

    if (++x->informational > INFORMATIONAL_MAX) {
        fail(x, 502, "too-many-1xx");
        return false;
    }
    if (x->answer.status != 100 && x->head.minor >= 1) {
        struct buf *out = &x->conn->out.head;

        buf_printf(out, "HTTP/1.1 %u ", x->answer.status);
        buf_add_sv(out, x->answer.reason);
        buf_add_str(out, "\r\n");
        for (i = 0; i < x->answer.n; i++) {
            const struct http_field *f = &x->answer.fields[i];

            if ((f->flags & HTTP_F_NOT_FORWARDED) == 0) {
                buf_add_sv(out, f->name);
                buf_add_str(out, ": ");
                buf_add_sv(out, f->value);
                buf_add_str(out, "\r\n");
            }
        }
        buf_add_str(out, "\r\n");
    }
    proxy_window_drop(&x->up->in, x->answer.size);
    http_head_init_response(&x->answer, NULL, x->head.method, x->answer_fields, ANSWER_FIELDS);
    return true;
}

/* True: the final head has been passed on. */
static bool parse_answer(struct proxy_exchange *x)
{
    for (;;) {
        struct sv bytes = proxy_window_sv(&x->up->in);

        if (bytes.n == 0) {
            return false;
        }
        switch (http_head_parse(&x->answer, bytes)) {
        case HTTP_DONE:
            if (x->answer.status >= 200 || x->answer.status == 101) {
                return begin_answer(x);
            }
            if (!pass_informational(x)) {
                return false;
            }
            break;
        case HTTP_ERROR:
            fail(x, 502, "bad-answer");
            return false;
        case HTTP_MORE:
        case HTTP_DATA:
            return false;
        }
    }
}

static void answer_ended_early(struct proxy_exchange *x)
{
    if (!x->answer_begun) {
        if (!retry(x)) {
            fail(x, 502, x->up->in.end == 0 ? "no-answer" : "answer-cut-off");
        }
        return;
    }
    if (x->answer_body.framing == HTTP_BODY_UNTIL_CLOSE && !x->up_broke) {
        x->answer_body.done = true;
        pump_down(x);
        return;
    }
    fail(x, 502, "answer-cut-off");
}

static void pump_down(struct proxy_exchange *x)
{
    if (x->up == NULL || !x->answer_begun || x->answer_done) {
        return;
    }
    switch (proxy_pipe_pump(&x->down_pipe, x->worker->scratch)) {
    case PROXY_PIPE_HUNGRY:
        proxy_conn_want(x->conn, x->conn->rd_on, false);
        if (x->up_eof) {
            answer_ended_early(x);
            return;
        }
        proxy_upstream_want(x->up, true, x->up->wr_on);
        break;
    case PROXY_PIPE_FULL:
        proxy_conn_want(x->conn, x->conn->rd_on, true);
        proxy_upstream_want(x->up, !x->up_eof && x->up->in.end < x->up->in.cap, x->up->wr_on);
        break;
    case PROXY_PIPE_DONE:
        if (x->phase == PROXY_TUNNEL) {
            end_direction(x, false);
        } else {
            finish(x);
        }
        break;
    case PROXY_PIPE_LOST:
        x->fault = "client-left";
        proxy_exchange_abort(x);
        break;
    case PROXY_PIPE_BAD:
        fail(x, 502, "bad-answer-body");
        break;
    }
}

/* One read. False: enough for now. */
static bool read_upstream(struct proxy_exchange *x)
{
    struct proxy_upstream *up = x->up;
    bool drained = false;
    bool pinned = x->answer_begun && !proxy_out_empty(&x->conn->out);
    enum proxy_io_result result = PROXY_IO_AGAIN;

    if (!proxy_window_room(&up->in, x->answer_begun ? PROXY_WINDOW : ANSWER_HEAD_MAX, pinned)) {
        if (x->answer_begun) {
            proxy_upstream_want(up, false, up->wr_on);
        } else {
            fail(x, 502, "answer-head-too-large");
        }
        return false;
    }
    result = proxy_window_fill(&up->in, &up->io, &drained);
    if (result == PROXY_IO_AGAIN) {
        return false;
    }
    proxy_exchange_progress(x);
    if (result != PROXY_IO_DONE) {
        x->up_eof = true;
        x->up_broke = result != PROXY_IO_END; /* a cut is no end */
        proxy_upstream_want(up, false, up->wr_on);
        if (!x->answer_begun || proxy_out_empty(&x->conn->out)) {
            answer_ended_early(x);
        }
        return false;
    }
    if (x->answer_begun || parse_answer(x)) {
        pump_down(x);
    }
    return !drained;
}

static void on_readable(void *owner)
{
    struct proxy_exchange *x = owner;
    int i = 0;

    while (i < READS_MAX && x->up != NULL && read_upstream(x)) {
        i++;
    }
    if (i == READS_MAX && x->up != NULL) {
        event_active(x->up->rd, EV_READ, 0); /* TLS may hold bytes that raise no event */
    }
}

static void on_writable(void *owner)
{
    struct proxy_exchange *x = owner;

    proxy_exchange_progress(x);
    pump_up(x);
}

static const struct proxy_upstream_hooks hooks = {
    .ready = on_ready,
    .failed = on_failed,
    .readable = on_readable,
    .writable = on_writable,
};

/* ---- the client's side ----------------------------------------------------------------------- */

static void read_client(struct proxy_exchange *x)
{
    int i = 0;

    for (i = 0; i < READS_MAX; i++) {
        bool drained = false;
        bool pinned = x->up != NULL && x->up_pipe.taken != 0;
        enum proxy_io_result result = PROXY_IO_AGAIN;

        if ((x->request_done && x->phase != PROXY_TUNNEL) ||
            !proxy_window_room(&x->conn->in, PROXY_WINDOW, pinned)) {
            proxy_conn_want(x->conn, false,
                            x->conn->wr_on); /* a next request waits, or it is full */
            return;
        }
        result = proxy_window_fill(&x->conn->in, &x->conn->io, &drained);
        if (result == PROXY_IO_AGAIN) {
            return;
        }
        proxy_exchange_progress(x);
        if (result == PROXY_IO_FAILED) {
            x->fault = "client-left";
            proxy_exchange_abort(x);
            return;
        }
        if (result == PROXY_IO_END) {
            x->conn->eof = true;
            proxy_conn_want(x->conn, false, x->conn->wr_on);
        }
        pump_up(x);
        if (x->conn->eof || drained || (x->phase != PROXY_FORWARD && x->phase != PROXY_TUNNEL)) {
            return;
        }
    }
}

static void write_client(struct proxy_exchange *x)
{
    uint64_t sent = 0;

    proxy_exchange_progress(x);
    if (x->answer_begun) {
        pump_down(x);
    } else if (proxy_out_flush(&x->conn->out, &x->conn->io, x->worker->scratch, &sent) ==
               PROXY_IO_DONE) {
        proxy_conn_want(x->conn, x->conn->rd_on, false);
    }
}

void proxy_forward_client(struct proxy_exchange *x, short what)
{
    if ((what & EV_WRITE) != 0) {
        write_client(x);
    }
    if ((what & EV_READ) != 0 && (x->phase == PROXY_FORWARD || x->phase == PROXY_TUNNEL)) {
        read_client(x);
    }
}

void proxy_forward_timeout(struct proxy_exchange *x)
{
    if (!x->request_done && !x->up_lost) {
        x->close_after = true;
        fail(x, 408, "request-body-timeout");
    } else {
        fail(x, 504, "upstream-timeout");
    }
}

bool proxy_forward_stop(struct proxy_exchange *x)
{
    if (x->answer_begun || (x->phase != PROXY_CONNECT && x->phase != PROXY_FORWARD)) {
        return false;
    }
    proxy_upstream_close(&x->up);
    x->close_after = x->close_after || !x->request_done;
    return true;
}

void proxy_forward_start(struct proxy_exchange *x, struct proxy_target *target)
{
    const struct config *c = x->snapshot->config;

    x->phase = PROXY_CONNECT;
    x->idle_ms = x->service == PROXY_FOR_ROUTE && x->route->config->idle_timeout_ms != 0
                     ? x->route->config->idle_timeout_ms
                     : c->timeout_idle_ms;
    x->deadline_ms = clock_mono_ms() + PROXY_CONNECT_MS + 1000;
    x->total_ms = INT64_MAX;
    x->retried = false;
    x->request_done = false;
    x->up_lost = false;
    x->up_eof = false;
    x->up_broke = false;
    x->answer_begun = false;
    x->answer_done = false;
    x->informational = 0;
    x->answer_fields = arena_alloc(&x->arena, ANSWER_FIELDS * sizeof(*x->answer_fields));
    x->target = target;
    x->up = proxy_upstream_get(x->worker, x->snapshot, target, false, &hooks, x);
}
