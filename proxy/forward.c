#include "proxy/forward.h"

#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proxy/client.h"
#include "proxy/h2.h"
#include "proxy/reply.h"
#include "proxy/tunnel.h"

enum { ANSWER_HEAD_MAX = 65536, ANSWER_FIELDS = 256, READS_MAX = 16, INFORMATIONAL_MAX = 16 };

static void pump_up(struct proxy_exchange *x);
static void pump_down(struct proxy_exchange *x);
static const struct proxy_upstream_hooks hooks;

/* ---- the upstream's side ---------------------------------------------------------------------- */

static bool has_server(const struct proxy_exchange *x)
{
    return x->up != NULL || x->server != NULL;
}

static void leave_server(struct proxy_exchange *x)
{
    if (x->up != NULL && proxy_exchange_is_raw(x) && !x->request_done) {
        proxy_io_cut(&x->up->io);
    }
    proxy_upstream_close(&x->up);
    if (x->server != NULL) {
        proxy_h2_release(&x->server, NGHTTP2_CANCEL);
    }
}

/* Streams need no events: their session reads on, and pulls. */
static void server_read(struct proxy_exchange *x, bool on)
{
    if (x->up != NULL) {
        proxy_upstream_want(x->up, on, x->up->wr_on);
    }
}

static void server_write(struct proxy_exchange *x, bool on)
{
    if (x->up != NULL) {
        proxy_upstream_want(x->up, x->up->rd_on, on);
    }
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* No usable answer. What was not begun becomes an error page, what was is cut off. */
static void fail(struct proxy_exchange *x, unsigned status, const char *code)
{
    x->fault = code;
    if (status >= 500 && has_server(x) && !x->answer_begun) {
        proxy_claim_note(&x->claim, status == 504 ? 504 : 503);
    }
    leave_server(x);
    proxy_claim_end(&x->claim);
    if (x->answer_begun || x->phase == PROXY_TUNNEL) {
        proxy_exchange_abort(x);
        return;
    }
    if (!x->request_done) {
        x->close_after = true;
    }
    proxy_reply_fault(x, status, code);
}

static void forward(struct proxy_exchange *x, unsigned flags);

/* Nothing came back, and what was sent may be sent twice (or was not looked at): ask once more, on a new
 * connection, at another endpoint where there is one. False: that must not be. */
static bool retry(struct proxy_exchange *x, bool untouched)
{
    if (x->retried || x->answer_begun || x->head.framing != HTTP_BODY_NONE || x->upgrade ||
        (!untouched && !http_method_is_safe(x->head.method))) {
        return false;
    }
    if (!proxy_claim_retry(&x->claim)) {
        fail(x, 503, "upstream-max-retries");
        return true;
    }
    leave_server(x);
    forward(x, PROXY_UPSTREAM_FRESH);
    x->retried = true;
    return true;
}

/* A kept connection may have been closed by the upstream just as we took it; a new one that breaks is the
 * endpoint's fault, and another may do better. */
static bool died_without_a_word(struct proxy_exchange *x)
{
    if (x->up == NULL || x->up->in.end != 0) {
        return false;
    }
    if (!x->up->reused) {
        proxy_claim_note(&x->claim, 503);
    }
    return x->up->reused || x->claim.cluster->views[x->worker->index].table->n > 1;
}

static void finish(struct proxy_exchange *x)
{
    if (x->up != NULL && x->answer.keep_alive && x->request_done && !x->up_eof && !x->up_lost) {
        proxy_upstream_put(&x->up);
    } else {
        leave_server(x);
    }
    proxy_claim_end(&x->claim);
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
        x->total_ms = clock_coarse_ms() + timeout;
    }
}

static void end_tunnel(struct proxy_exchange *x)
{
    if (x->stream == NULL) {
        proxy_exchange_abort(x);
    } else {
        leave_server(x);
        proxy_exchange_finish(x);
    }
}

/* A tunnel's source said no more and all of that is delivered: its reader hears so, and the other
 * direction goes on. Both ends wait no longer than timeout_idle for a next byte then. */
static void end_direction(struct proxy_exchange *x, bool up)
{
    const struct proxy_pipe *pipe = up ? &x->up_pipe : &x->down_pipe;
    /* A stream has said so with its last frame. */
    enum proxy_io_result result = pipe->to_stream != NULL ? PROXY_IO_DONE : proxy_io_end(pipe->io);

    if (result == PROXY_IO_DONE) {
        x->request_done = x->request_done || up;
        x->answer_done = x->answer_done || !up;
    }
    if ((result != PROXY_IO_DONE && result != PROXY_IO_AGAIN) ||
        (x->answer_done && (x->request_done || x->up_lost))) {
        end_tunnel(x);
        return;
    }
    if (up) {
        server_write(x, result == PROXY_IO_AGAIN);
    } else {
        proxy_client_write(x, result == PROXY_IO_AGAIN);
    }
    if (x->idle_ms == 0) {
        x->idle_ms = x->snapshot->config->timeout_idle_ms;
    }
    proxy_exchange_progress(x);
}

static void request_cut_off(struct proxy_exchange *x)
{
    if (x->phase == PROXY_TUNNEL) {
        end_direction(x, true);
    } else {
        x->close_after = true;
        fail(x, 400, "request-cut-off");
    }
}

static void client_left(struct proxy_exchange *x)
{
    x->fault = "client-left";
    proxy_exchange_abort(x);
}

static void pump_up(struct proxy_exchange *x)
{
    if (x->request_done || x->up_lost || !has_server(x)) {
        return;
    }
    if (x->stream != NULL && x->stream->fault != HTTP_FAULT_NONE) {
        fail(x, 400, "bad-trailer");
        return;
    }
    switch (proxy_pipe_pump(&x->up_pipe, x->worker->scratch)) {
    case PROXY_PIPE_HUNGRY:
        server_write(x, false);
        if (proxy_client_eof(x)) {
            request_cut_off(x);
            return;
        }
        proxy_client_read(x, true);
        break;
    case PROXY_PIPE_FULL:
        server_write(x, true);
        proxy_client_read(x, !proxy_client_eof(x) && x->up_pipe.from->end < x->up_pipe.from->cap);
        break;
    case PROXY_PIPE_DONE:
        server_write(x, false);
        if (x->phase == PROXY_TUNNEL) {
            end_direction(x, true);
        } else if (proxy_client_eof(x)) {
            client_left(x);
        } else {
            request_is_out(x);
        }
        break;
    case PROXY_PIPE_LOST:
        /* It may have answered before it closed: read on. */
        x->up_lost = true;
        if (x->answer_done) {
            end_tunnel(x);
            return;
        }
        server_read(x, true);
        server_write(x, false);
        break;
    case PROXY_PIPE_BAD:
        x->close_after = true;
        fail(x, 400, "bad-body");
        break;
    }
}

static void say_continue(struct proxy_exchange *x)
{
    struct proxy_emit e;

    if (x->head.expect_continue && !x->body.done &&
        x->up_pipe.from->start == x->up_pipe.from->end) {
        proxy_client_emit(x, &e);
        proxy_emit_status(&e, 100, SV("Continue"));
        proxy_client_interim(x, &e);
    }
}

static void begin_forward(struct proxy_exchange *x)
{
    x->phase = PROXY_FORWARD;
    x->up_pipe = (struct proxy_pipe){ .body = &x->body };
    proxy_client_source(x, &x->up_pipe);
    http_head_init_response(&x->answer, NULL, x->head.method, x->answer_fields, ANSWER_FIELDS);
    proxy_exchange_progress(x);
}

static void request_over_h1(struct proxy_exchange *x)
{
    struct proxy_upstream *up = x->up;
    struct proxy_emit e;

    begin_forward(x);
    x->up_pipe.to = &up->out;
    x->up_pipe.io = &up->io;
    x->up_pipe.chunk = x->head.framing == HTTP_BODY_CHUNKED;
    proxy_emit_h1(&e, &up->out.head);
    if (!proxy_head_request(x, x->claim.endpoint->target, &e)) {
        fail(x, 502, "request-head-too-large");
        return;
    }
    say_continue(x);
    proxy_upstream_want(up, true, false);
    pump_up(x);
}

static void request_over_h2(struct proxy_exchange *x, struct proxy_h2 *h2)
{
    struct proxy_emit e;

    begin_forward(x);
    proxy_emit_h2(&e, &x->arena);
    if (!proxy_head_request(x, x->claim.endpoint->target, &e)) {
        fail(x, 502, "request-head-too-large");
        return;
    }
    x->server = proxy_h2_request(h2, &e, !x->body.done, x);
    if (x->server == NULL) {
        fail(x, 502, "upstream-takes-no-stream");
        return;
    }
    x->server->head = &x->answer;
    x->server->arena = &x->arena;
    x->up_pipe.to_stream = x->server;
    if (x->body.done) {
        request_is_out(x);
        return;
    }
    say_continue(x);
    pump_up(x);
}

static void open_tunnel(struct proxy_exchange *x)
{
    begin_forward(x);
    if (!proxy_tunnel_open(x)) {
        fail(x, 502, "answer-head-too-large");
        return;
    }
    proxy_upstream_want(x->up, true, false);
    pump_down(x);
    if (x->phase == PROXY_TUNNEL) {
        pump_up(x);
    }
}

static void on_ready(void *owner)
{
    struct proxy_exchange *x = owner;

    if (x->head.method == HTTP_CONNECT) {
        open_tunnel(x);
    } else if (x->up->h2 != NULL) {
        request_over_h2(x, proxy_upstream_share(&x->up));
    } else {
        request_over_h1(x);
    }
}

static void on_shared(void *owner, struct proxy_h2 *h2)
{
    struct proxy_exchange *x = owner;

    x->up = NULL;
    request_over_h2(x, h2);
}

static void on_failed(void *owner, unsigned status, const char *why)
{
    struct proxy_exchange *x = owner;

    x->up = NULL;
    fail(x, status, why);
}

/* ---- from the upstream ----------------------------------------------------------------------- */

/* The answer's head is whole and goes to the client. */
static void begin_answer(struct proxy_exchange *x)
{
    struct proxy_emit e;
    bool chunk = false;

    x->status = x->answer.status;
    proxy_claim_note(&x->claim, x->answer.status);
    x->upstream_us = clock_mono_us() - x->began_us;
    if (!proxy_tunnel_is_clear(x)) {
        fail(x, 502, x->answer.status == 101 ? "upgrade-without-request" : "upgrade-not-taken");
        return;
    }
    if (x->server != NULL) {
        proxy_body_init_frames(&x->answer_body, &x->server->trailer);
        x->answer_body.ended = x->server->in_ended;
        x->answer_body.done = x->answer.framing == HTTP_BODY_NONE;
    } else {
        proxy_body_init(&x->answer_body, &x->answer, NULL, &x->arena);
        proxy_window_drop(&x->up->in, x->answer.size);
    }
    proxy_client_emit(x, &e);
    proxy_head_answer(x, &e, &chunk);
    x->answer_begun = true;
    x->down_pipe = (struct proxy_pipe){ .from = x->server != NULL ? &x->server->in : &x->up->in,
                                        .from_stream = x->server,
                                        .body = &x->answer_body,
                                        .chunk = chunk };
    proxy_client_sink(x, &x->down_pipe);
    if (!proxy_client_head(x, &e, x->answer.status == 101 || !x->answer_body.done)) {
        fail(x, 502, "answer-head-too-large");
        return;
    }
    if (x->answer.status == 101) {
        proxy_tunnel_enter(x);
        pump_up(x);
    } else if (x->request_done) {
        int64_t timeout = patience_ms(x);

        /* The default is for the answer's beginning: a stream may go on for days. */
        x->total_ms = timeout == 0 ? INT64_MAX : x->total_ms;
    }
}

/* 1xx other than 101: passed on, but for the 100 that we say ourselves. False: enough of them. */
static bool pass_informational(struct proxy_exchange *x)
{
    struct proxy_emit e;

    if (++x->informational > INFORMATIONAL_MAX) {
        fail(x, 502, "too-many-1xx");
        return false;
    }
    if (x->answer.status != 100 && x->head.minor >= 1) {
        proxy_client_emit(x, &e);
        proxy_head_interim(x, &e);
        proxy_client_interim(x, &e);
    }
    http_head_init_response(&x->answer, NULL, x->head.method, x->answer_fields, ANSWER_FIELDS);
    return true;
}

/* True: the final head has been passed on. */
static bool parse_answer(struct proxy_exchange *x)
{
    for (;;) {
        struct sv bytes = proxy_window_sv(&x->up->in);
        size_t size = 0;

        if (bytes.n == 0) {
            return false;
        }
        switch (http_head_parse(&x->answer, bytes)) {
        case HTTP_DONE:
            if (x->answer.status >= 200 || x->answer.status == 101) {
                begin_answer(x);
                return x->up != NULL;
            }
            size = x->answer.size;
            if (!pass_informational(x)) {
                return false;
            }
            proxy_window_drop(&x->up->in, size);
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
        if (!died_without_a_word(x) || !retry(x, false)) {
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
    if (!has_server(x) || !x->answer_begun || x->answer_done) {
        return;
    }
    if (x->server != NULL && x->server->fault != HTTP_FAULT_NONE) {
        fail(x, 502, "bad-trailer");
        return;
    }
    switch (proxy_pipe_pump(&x->down_pipe, x->worker->scratch)) {
    case PROXY_PIPE_HUNGRY:
        proxy_client_write(x, false);
        if (x->up_eof) {
            answer_ended_early(x);
            return;
        }
        server_read(x, true);
        break;
    case PROXY_PIPE_FULL:
        proxy_client_write(x, true);
        server_read(x, !x->up_eof && x->down_pipe.from->end < x->down_pipe.from->cap);
        break;
    case PROXY_PIPE_DONE:
        if (x->phase == PROXY_TUNNEL) {
            end_direction(x, false);
        } else {
            finish(x);
        }
        break;
    case PROXY_PIPE_LOST:
        client_left(x);
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
    bool pinned = x->answer_begun && x->down_pipe.taken != 0;
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
        if (!x->answer_begun || (x->down_pipe.taken == 0 && !x->down_pipe.ended)) {
            answer_ended_early(x);
        }
        return false;
    }
    if (x->answer_begun || parse_answer(x)) {
        pump_down(x);
    }
    return !drained;
}

/* A kept connection speaks, or ends, before anything was sent on it: that is no answer to anything. */
static void spoke_too_soon(struct proxy_exchange *x)
{
    if (x->retried) {
        fail(x, 502, "no-answer");
        return;
    }
    leave_server(x);
    forward(x, PROXY_UPSTREAM_FRESH);
    x->retried = true;
}

static void on_readable(void *owner)
{
    struct proxy_exchange *x = owner;
    int i = 0;

    if (x->phase == PROXY_CONNECT) {
        spoke_too_soon(x);
        return;
    }
    while (i < READS_MAX && x->up != NULL && read_upstream(x)) {
        i++;
    }
    if (i == READS_MAX && x->up != NULL) {
        proxy_upstream_want(x->up, x->up->rd_on, x->up->wr_on); /* OpenSSL may hold the rest */
    }
}

static void on_writable(void *owner)
{
    struct proxy_exchange *x = owner;

    proxy_exchange_progress(x);
    pump_up(x);
}

/* ---- from a stream of the upstream ------------------------------------------------------------- */

static void no_open(void *h2_owner, struct proxy_h2_stream *stream)
{
    (void)h2_owner; /* a client is opened no streams: push is off */
    (void)stream;
}

static void on_stream_head(void *owner)
{
    struct proxy_exchange *x = owner;

    if (x->server->fault != HTTP_FAULT_NONE) {
        fail(x, 502, "bad-answer");
        return;
    }
    proxy_exchange_progress(x);
    begin_answer(x);
    pump_down(x);
}

static void on_stream_interim(void *owner)
{
    struct proxy_exchange *x = owner;

    (void)pass_informational(x);
}

static void on_stream_readable(void *owner)
{
    struct proxy_exchange *x = owner;

    proxy_exchange_progress(x);
    x->answer_body.ended = x->server->in_ended;
    pump_down(x);
}

static void on_stream_lost(void *owner)
{
    struct proxy_exchange *x = owner;
    struct proxy_h2_stream *s = x->server;

    if (!s->in_ended && !s->refused) {
        proxy_claim_note(&x->claim, 503);
    }
    if (s->in_ended && s->error == NGHTTP2_NO_ERROR) {
        x->up_lost = true; /* the answer is whole; it does not want the rest of the request */
        pump_down(x);
    } else if (!retry(x, s->refused)) {
        fail(x, 502, x->answer_begun ? "answer-cut-off" : "no-answer");
    }
}

static const struct proxy_h2_hooks h2_hooks = {
    .open = no_open,
    .head = on_stream_head,
    .interim = on_stream_interim,
    .readable = on_stream_readable,
    .writable = on_writable,
    .lost = on_stream_lost,
    .want = proxy_upstream_h2_want,
    .settled = proxy_upstream_h2_settled,
    .quiet = proxy_upstream_h2_quiet,
    .freed = proxy_upstream_h2_freed,
    .broken = proxy_upstream_h2_broken,
};

static const struct proxy_upstream_hooks hooks = {
    .ready = on_ready,
    .shared = on_shared,
    .failed = on_failed,
    .readable = on_readable,
    .writable = on_writable,
    .h2 = &h2_hooks,
};

/* ---- the client's side ----------------------------------------------------------------------- */

static void read_client(struct proxy_exchange *x)
{
    struct proxy_conn *conn = x->conn;
    int i = 0;

    for (i = 0; i < READS_MAX; i++) {
        bool drained = false;
        bool pinned = has_server(x) && x->up_pipe.taken != 0;
        enum proxy_io_result result = PROXY_IO_AGAIN;

        if (x->request_done && x->phase != PROXY_TUNNEL) {
            proxy_conn_read_ahead(conn);
            return;
        }
        if (!proxy_window_room(&conn->in, PROXY_WINDOW, pinned)) {
            proxy_client_read(x, false);
            return;
        }
        result = proxy_window_fill(&conn->in, &conn->io, &drained);
        if (result == PROXY_IO_AGAIN) {
            return;
        }
        proxy_exchange_progress(x);
        if (result == PROXY_IO_FAILED) {
            client_left(x);
            return;
        }
        if (result == PROXY_IO_END) {
            conn->eof = true;
            proxy_client_read(x, false);
        }
        pump_up(x);
        if (conn->eof || drained || (x->phase != PROXY_FORWARD && x->phase != PROXY_TUNNEL)) {
            return;
        }
    }
    proxy_client_read(x, true); /* the rest in the next turn, also what OpenSSL holds */
}

static void write_client(struct proxy_exchange *x)
{
    uint64_t sent = 0;

    proxy_exchange_progress(x);
    if (x->answer_begun) {
        pump_down(x);
    } else if (x->stream == NULL && proxy_out_flush(&x->conn->out, &x->conn->io, x->worker->scratch,
                                                    &sent) == PROXY_IO_DONE) {
        proxy_client_write(x, false);
    }
}

void proxy_forward_client(struct proxy_exchange *x, short what)
{
    if ((what & EV_WRITE) != 0) {
        write_client(x);
    }
    if ((what & EV_READ) == 0 || (x->phase != PROXY_FORWARD && x->phase != PROXY_TUNNEL)) {
        return;
    }
    if (x->stream == NULL) {
        read_client(x);
    } else {
        proxy_exchange_progress(x);
        pump_up(x);
    }
}

void proxy_forward_timeout(struct proxy_exchange *x)
{
    /* Who is late: a client that sent no more, or an upstream that takes no more of what is here. */
    if (!x->request_done && !x->up_lost && x->up_pipe.from->start == x->up_pipe.from->end) {
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
    leave_server(x);
    proxy_claim_end(&x->claim);
    x->close_after = x->close_after || !x->request_done;
    return true;
}

static void forward(struct proxy_exchange *x, unsigned flags)
{
    struct proxy_h2 *shared = NULL;

    flags |= x->upgrade ? (unsigned)PROXY_UPSTREAM_H1 : 0;
    flags |= x->head.method == HTTP_CONNECT ? (unsigned)PROXY_UPSTREAM_FRESH : 0;

    x->phase = PROXY_CONNECT;
    x->deadline_ms = clock_coarse_ms() + PROXY_CONNECT_MS + 1000;
    x->total_ms = INT64_MAX;
    x->request_done = false;
    x->up_lost = false;
    x->up_eof = false;
    x->up_broke = false;
    x->answer_begun = false;
    x->answer_done = false;
    x->informational = 0;
    (void)proxy_claim_choose(&x->claim, &x->claim.cluster->views[x->worker->index]);
    shared = flags != 0 ? NULL : proxy_upstream_shared(x->worker, &x->claim);
    if (shared != NULL) {
        request_over_h2(x, shared);
        return;
    }
    x->up = proxy_upstream_get(x->worker, &x->claim, flags, &hooks, x);
}

/* What a hash policy keeps at one endpoint: a session, without one a client's address. */
static uint64_t sticky_key(const struct proxy_exchange *x, const struct proxy_cluster *cluster)
{
    if (cluster->conf.policy != CONFIG_BALANCE_RING_HASH &&
        cluster->conf.policy != CONFIG_BALANCE_MAGLEV) {
        return 0;
    }
    return proxy_endpoint_hash(
        x->handle_valid ? sv_from(x->handle.session) : proxy_address_bytes(&x->visitor.address), 0);
}

void proxy_forward_start(struct proxy_exchange *x, struct proxy_cluster *cluster)
{
    const struct config *c = x->snapshot->config;
    const char *refused = proxy_claim_begin(&x->claim, cluster, sticky_key(x, cluster));

    if (refused != NULL) {
        proxy_reply_fault(x, 503, refused);
        return;
    }
    x->idle_ms =
        x->service == PROXY_FOR_ROUTE ? x->route->config->idle_timeout_ms : c->timeout_idle_ms;
    x->retried = false;
    if (x->answer_fields == NULL) {
        x->answer_fields = mem_array(ANSWER_FIELDS, sizeof(*x->answer_fields));
    }
    forward(x, 0);
}
