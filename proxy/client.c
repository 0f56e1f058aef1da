#include "proxy/client.h"

#include "proxy/conn.h"
#include "proxy/forward.h"
#include "proxy/reply.h"

/* ---- answers --------------------------------------------------------------------------------- */

void proxy_client_emit(struct proxy_exchange *x, struct proxy_emit *e)
{
    if (x->stream != NULL) {
        proxy_emit_h2(e, &x->arena);
    } else {
        proxy_emit_h1(e, &x->conn->out.head);
    }
}

bool proxy_client_head(struct proxy_exchange *x, struct proxy_emit *e, bool body)
{
    if (!proxy_emit_end(e)) {
        return false;
    }
    return x->stream == NULL || proxy_h2_answer(x->stream, e, body);
}

void proxy_client_interim(struct proxy_exchange *x, struct proxy_emit *e)
{
    uint64_t sent = 0;

    if (!proxy_emit_end(e)) {
        return; /* HTTP/1: the failed text is never sent, and the exchange ends with it */
    }
    if (x->stream != NULL) {
        proxy_h2_interim(x->stream, e);
    } else if (proxy_out_flush(&x->conn->out, &x->conn->io, x->worker->scratch, &sent) ==
               PROXY_IO_AGAIN) {
        proxy_client_write(x, true);
    }
}

void proxy_client_reply(struct proxy_exchange *x, struct proxy_emit *e, struct sv body)
{
    if (!proxy_client_head(x, e, body.n != 0)) {
        proxy_exchange_abort(x);
        return;
    }
    x->down_pipe.bytes = body.n;
    if (x->stream == NULL) {
        buf_add_sv(&x->conn->out.head, body);
    } else if (body.n != 0) {
        proxy_h2_offer(x->stream, arena_sv(&x->arena, body));
        proxy_h2_offer_end(x->stream, NULL);
    }
    proxy_exchange_send(x);
}

void proxy_client_send(struct proxy_exchange *x)
{
    if (x->stream == NULL) {
        proxy_conn_send(x->conn, x);
    } /* else: the writable hook tells when the end was sent */
}

void proxy_client_sink(struct proxy_exchange *x, struct proxy_pipe *pipe)
{
    pipe->drop = proxy_head_dropped_answer(x);
    if (x->stream != NULL) {
        pipe->to_stream = x->stream;
    } else {
        pipe->to = &x->conn->out;
        pipe->io = &x->conn->io;
    }
}

void proxy_client_source(struct proxy_exchange *x, struct proxy_pipe *pipe)
{
    pipe->from = x->stream != NULL ? &x->stream->in : &x->conn->in;
    pipe->from_stream = x->stream;
    pipe->drop = proxy_head_dropped(x);
}

void proxy_client_read(struct proxy_exchange *x, bool on)
{
    if (x->stream == NULL) {
        proxy_conn_want(x->conn, on, x->conn->wr_on);
    }
}

void proxy_client_write(struct proxy_exchange *x, bool on)
{
    if (x->stream == NULL) {
        proxy_conn_want(x->conn, x->conn->rd_on, on);
    }
}

bool proxy_client_eof(const struct proxy_exchange *x)
{
    return x->stream == NULL && x->conn->eof;
}

void proxy_client_finish(struct proxy_exchange *x)
{
    if (x->stream == NULL) {
        proxy_conn_finish(x->conn, x);
        return;
    }
    /* The answer is whole; what the client still sends has nowhere to go (RFC 9113 §8.1). */
    proxy_h2_release(&x->stream, NGHTTP2_NO_ERROR);
    proxy_exchange_end(x);
}

void proxy_client_abort(struct proxy_exchange *x)
{
    if (x->stream == NULL) {
        proxy_conn_close(x->conn);
        return;
    }
    proxy_h2_release(&x->stream,
                     proxy_exchange_is_raw(x) ? NGHTTP2_CONNECT_ERROR : NGHTTP2_INTERNAL_ERROR);
    proxy_exchange_end(x);
}

/* ---- streams of HTTP/2 ------------------------------------------------------------------------ */

static void on_open(void *h2_owner, struct proxy_h2_stream *stream)
{
    struct proxy_exchange *x = proxy_exchange_new(h2_owner);

    x->stream = stream;
    stream->owner = x;
    stream->head = &x->head;
    stream->arena = &x->arena;
    stream->refuse = x->snapshot->ours;
}

static void on_head(void *owner)
{
    struct proxy_exchange *x = owner;

    if (x->stream->fault != HTTP_FAULT_NONE) {
        rand_uuid(x->request_id);
        proxy_reply_fault(x, http_fault_status(x->stream->fault),
                          http_fault_name(x->stream->fault));
        return;
    }
    proxy_request_start(x);
}

static void on_readable(void *owner)
{
    struct proxy_exchange *x = owner;

    x->body.ended = x->stream->in_ended;
    if (x->phase == PROXY_FORWARD || x->phase == PROXY_TUNNEL) {
        proxy_forward_client(x, EV_READ);
    }
}

static void on_writable(void *owner)
{
    struct proxy_exchange *x = owner;

    if (x->phase == PROXY_FORWARD || x->phase == PROXY_TUNNEL) {
        proxy_forward_client(x, EV_WRITE);
    } else if (x->phase == PROXY_REPLY) {
        proxy_exchange_progress(x);
        if (x->stream->end_sent) {
            proxy_exchange_finish(x);
        }
    }
}

static void on_lost(void *owner)
{
    struct proxy_exchange *x = owner;

    if (x->fault == NULL) {
        x->fault = "client-left";
    }
    proxy_h2_release(&x->stream, NGHTTP2_NO_ERROR);
    proxy_exchange_end(x);
}

static void no_interim(void *owner)
{
    (void)owner; /* a server receives none */
}

static void on_want(void *h2_owner, bool write)
{
    struct proxy_conn *conn = h2_owner;

    proxy_conn_want(conn, true, write);
}

static void on_quiet(void *h2_owner)
{
    proxy_conn_quiet(h2_owner);
}

static void on_broken(void *h2_owner)
{
    proxy_conn_close(h2_owner);
}

const struct proxy_h2_hooks proxy_client_h2_hooks = {
    .open = on_open,
    .head = on_head,
    .interim = no_interim,
    .readable = on_readable,
    .writable = on_writable,
    .lost = on_lost,
    .want = on_want,
    .quiet = on_quiet,
    .broken = on_broken,
};
