#include "proxy/pipe.h"

#include <string.h>

#include "common/mem.h"
#include "proxy/h2.h"

enum { WINDOW_FIRST = 16384, SPARE_HEAD_MAX = 4096 };

void proxy_window_init(struct proxy_window *w)
{
    *w = (struct proxy_window){ .bytes = NULL };
}

void proxy_window_deinit(struct proxy_window *w)
{
    mem_free(&w->bytes);
    mem_free(&w->held);
    *w = (struct proxy_window){ .bytes = NULL };
}

struct sv proxy_window_sv(const struct proxy_window *w)
{
    return w->start == w->end ? (struct sv){ 0 } : sv_of(w->bytes + w->start, w->end - w->start);
}

void proxy_window_drop(struct proxy_window *w, size_t n)
{
    CHECK(n <= w->end - w->start);
    w->start += n;
    mem_free(&w->held);
    if (w->start == w->end) {
        w->start = 0;
        w->end = 0;
    }
}

bool proxy_window_room(struct proxy_window *w, size_t max, bool pinned)
{
    bool bulk = w->filled && w->end == 0 && w->cap < PROXY_WINDOW_BULK;

    w->filled = false;
    if (w->end < w->cap && !bulk) {
        return true;
    }
    if (pinned) {
        return false;
    }
    if (w->start > 0) {
        memmove(w->bytes, w->bytes + w->start, w->end - w->start);
        w->end -= w->start;
        w->start = 0;
        return true;
    }
    if (w->cap >= max && !bulk) {
        return false;
    }
    w->cap = bulk ? PROXY_WINDOW_BULK : MIN(MAX(w->cap * 2, (size_t)WINDOW_FIRST), max);
    w->bytes = mem_realloc(w->bytes, w->cap, 1);
    return true;
}

bool proxy_window_append(struct proxy_window *w, struct sv bytes, size_t max)
{
    size_t have = w->end - w->start;

    if (bytes.n == 0) {
        return true;
    }
    if (have + bytes.n > max) {
        return false;
    }
    if (w->cap - w->end < bytes.n) {
        size_t cap = MAX(w->cap, (size_t)WINDOW_FIRST);
        char *bigger = NULL;

        while (cap < have + bytes.n) {
            cap *= 2;
        }
        bigger = mem_alloc(cap);
        if (have != 0) {
            memcpy(bigger, w->bytes + w->start, have);
        }
        if (w->held == NULL) {
            w->held = w->bytes;
        } else {
            mem_free(&w->bytes);
        }
        w->bytes = bigger;
        w->cap = cap;
        w->start = 0;
        w->end = have;
    }
    memcpy(w->bytes + w->end, bytes.p, bytes.n);
    w->end += bytes.n;
    return true;
}

enum proxy_io_result proxy_window_fill(struct proxy_window *w, struct proxy_io *io, bool *drained)
{
    size_t room = w->cap - w->end;
    size_t n = 0;
    enum proxy_io_result result = proxy_io_read(io, w->bytes + w->end, room, &n);

    w->end += n;
    w->filled = n == room;
    /* A short read took all there was: asking again would only cost a system call. */
    *drained = result != PROXY_IO_DONE || (n < room && !proxy_io_pending(io));
    return result;
}

void proxy_body_init(struct proxy_body *body, const struct http_head *head,
                     const struct http_name_set *refuse, struct arena *arena)
{
    body->framing = head->framing;
    body->left = head->content_length;
    body->ended = false;
    body->trailer = NULL;
    body->done = head->framing == HTTP_BODY_NONE ||
                 (head->framing == HTTP_BODY_LENGTH && head->content_length == 0);
    if (head->framing == HTTP_BODY_CHUNKED) {
        struct http_chunked_opts opts = { .cap = HTTP_TRAILERS_MAX, .refuse = refuse };

        opts.trailers = arena_alloc(arena, opts.cap * sizeof(*opts.trailers));
        body->chunked = arena_alloc(arena, sizeof(*body->chunked));
        http_chunked_init(body->chunked, &opts);
        body->trailer = &body->chunked->trailer;
    }
}

void proxy_body_init_raw(struct proxy_body *body)
{
    body->framing = HTTP_BODY_UNTIL_CLOSE;
    body->done = false;
    body->ended = false;
    body->trailer = NULL;
}

void proxy_body_init_frames(struct proxy_body *body, struct http_head *trailer)
{
    proxy_body_init_raw(body);
    body->trailer = trailer;
}

enum http_step proxy_body_next(struct proxy_body *body, struct sv *in, struct sv *data_out)
{
    enum http_step step = HTTP_DONE;

    *data_out = (struct sv){ 0 };
    if (body->done) {
        return HTTP_DONE;
    }
    if (body->framing == HTTP_BODY_CHUNKED) {
        step = http_chunked_next(body->chunked, in, data_out);
        body->done = step == HTTP_DONE;
        return step;
    }
    if (in->n == 0) {
        body->done = body->ended;
        return body->ended ? HTTP_DONE : HTTP_MORE;
    }
    *data_out = *in;
    if (body->framing == HTTP_BODY_LENGTH) {
        *data_out = sv_head(*in, (size_t)MIN((uint64_t)in->n, body->left));
        body->left -= data_out->n;
        body->done = body->left == 0;
    } else {
        body->done = body->ended;
    }
    *in = sv_from_at(*in, data_out->n);
    return HTTP_DATA;
}

void proxy_out_init(struct proxy_out *out)
{
    *out = (struct proxy_out){ .head_at = 0 };
    buf_init(&out->head, PROXY_HEAD_OUT_MAX);
}

void proxy_out_deinit(struct proxy_out *out)
{
    buf_deinit(&out->head);
}

bool proxy_out_empty(const struct proxy_out *out)
{
    return out->head_at == out->head.n && out->piece.n == 0 && out->tail_n == 0;
}

static void out_advance(struct proxy_out *out, size_t n)
{
    size_t part = MIN(n, out->head.n - out->head_at);

    out->head_at += part;
    n -= part;
    part = MIN(n, out->piece.n);
    out->piece = sv_from_at(out->piece, part);
    n -= part;
    CHECK(n <= out->tail_n);
    out->tail += n;
    out->tail_n -= n;
}

enum proxy_io_result proxy_out_flush(struct proxy_out *out, struct proxy_io *io, char *scratch,
                                     uint64_t *sent)
{
    if (out->head.err != ERR_OK) {
        return PROXY_IO_FAILED;
    }
    while (!proxy_out_empty(out)) {
        struct iovec v[3];
        int k = 0;
        size_t n = 0;
        enum proxy_io_result result = PROXY_IO_FAILED;

        if (out->head_at < out->head.n) {
            v[k++] = (struct iovec){ .iov_base = out->head.p + out->head_at,
                                     .iov_len = out->head.n - out->head_at };
        }
        if (out->piece.n != 0) {
            v[k++] =
                (struct iovec){ .iov_base = base_unconst(out->piece.p), .iov_len = out->piece.n };
        }
        if (out->tail_n != 0) {
            v[k++] = (struct iovec){ .iov_base = base_unconst(out->tail), .iov_len = out->tail_n };
        }
        result = proxy_io_write(io, v, k, scratch, &n);
        if (result != PROXY_IO_DONE) {
            return result == PROXY_IO_AGAIN ? PROXY_IO_AGAIN : PROXY_IO_FAILED;
        }
        *sent += n;
        out_advance(out, n);
    }
    buf_reset(&out->head);
    out->head_at = 0;
    return PROXY_IO_DONE;
}

void proxy_spares_deinit(struct proxy_spares *spares)
{
    while (spares->n > 0) {
        spares->n--;
        mem_free(&spares->v[spares->n].bytes);
        buf_deinit(&spares->v[spares->n].head);
    }
}

void proxy_spares_give(struct proxy_spares *spares, struct proxy_window *w, struct proxy_out *out)
{
    if (w->bytes == NULL || w->start != w->end || !proxy_out_empty(out)) {
        return;
    }
    if (spares->n == PROXY_SPARES_MAX || w->cap != WINDOW_FIRST || out->head.cap > SPARE_HEAD_MAX) {
        proxy_window_deinit(w);
        proxy_out_deinit(out);
        proxy_out_init(out);
        return;
    }
    spares->v[spares->n].bytes = TAKE(w->bytes);
    spares->v[spares->n].head = out->head;
    spares->n++;
    proxy_window_init(w);
    proxy_out_init(out);
}

void proxy_spares_take(struct proxy_spares *spares, struct proxy_window *w, struct proxy_out *out)
{
    if (w->bytes != NULL || out->head.p != NULL || spares->n == 0) {
        return;
    }
    spares->n--;
    w->bytes = TAKE(spares->v[spares->n].bytes);
    w->cap = WINDOW_FIRST;
    out->head = spares->v[spares->n].head;
    buf_reset(&out->head);
}

/* The end of a chunked body, with the trailers that may pass. */
static void end_chunks(struct proxy_pipe *pipe)
{
    const struct http_head *trailer = pipe->body->trailer;
    struct buf *head = &pipe->to->head;
    uint32_t i = 0;

    if (trailer == NULL || trailer->n == 0) {
        buf_add_sv(head, HTTP_CHUNK_LAST);
        return;
    }
    buf_add_str(head, "0\r\n");
    for (i = 0; i < trailer->n; i++) {
        const struct http_field *f = &trailer->fields[i];

        if ((f->flags & HTTP_F_NOT_FORWARDED) == 0) {
            buf_add_sv(head, f->name);
            buf_add_str(head, ": ");
            buf_add_sv(head, f->value);
            buf_add_str(head, "\r\n");
        }
    }
    buf_add_str(head, "\r\n");
}

static void drop_taken(struct proxy_pipe *pipe)
{
    if (pipe->taken == 0) {
        return;
    }
    if (pipe->from_stream != NULL) {
        proxy_h2_drop(pipe->from_stream, pipe->taken);
    } else {
        proxy_window_drop(pipe->from, pipe->taken);
    }
    pipe->taken = 0;
}

static void put_piece(struct proxy_pipe *pipe, struct sv data)
{
    char room[HTTP_CHUNK_HEAD_SIZE];

    if (pipe->to_stream != NULL) {
        proxy_h2_offer(pipe->to_stream, data);
        return;
    }
    if (pipe->chunk) {
        buf_add_sv(&pipe->to->head, http_chunk_head(room, data.n));
        pipe->to->tail = "\r\n";
        pipe->to->tail_n = 2;
    }
    pipe->to->piece = data;
}

/* A rule about headers holds for trailers, too: some servers read both as one. */
static void drop_trailers(struct proxy_pipe *pipe)
{
    struct http_head *trailer = pipe->body->trailer;

    for (uint32_t i = 0; trailer != NULL && pipe->drop != NULL && i < trailer->n; i++) {
        if (http_name_set_has(pipe->drop, trailer->fields[i].name)) {
            trailer->fields[i].flags |= HTTP_F_DROP;
        }
    }
}

static void put_end(struct proxy_pipe *pipe)
{
    drop_trailers(pipe);
    if (pipe->to_stream != NULL) {
        proxy_h2_offer_end(pipe->to_stream, pipe->body->trailer);
    } else if (pipe->chunk) {
        end_chunks(pipe);
    }
}

/* Takes the next piece of the message towards the destination. */
static enum proxy_pipe_result next_piece(struct proxy_pipe *pipe)
{
    struct sv window = proxy_window_sv(pipe->from);
    struct sv in = window;
    struct sv data = { 0 };
    enum http_step step = proxy_body_next(pipe->body, &in, &data);

    pipe->taken = window.n - in.n;
    switch (step) {
    case HTTP_DATA:
        put_piece(pipe, data);
        pipe->bytes += data.n;
        if (pipe->to_stream != NULL && pipe->body->done) { /* one frame says both */
            pipe->ended = true;
            put_end(pipe);
        }
        return PROXY_PIPE_FULL;
    case HTTP_DONE:
        pipe->ended = true;
        put_end(pipe);
        return PROXY_PIPE_FULL;
    case HTTP_MORE:
        drop_taken(pipe);
        return PROXY_PIPE_HUNGRY;
    case HTTP_ERROR:
        break;
    }
    return PROXY_PIPE_BAD;
}

/* The stream pulls: what can be done here is to have the next piece ready. */
static enum proxy_pipe_result pump_stream(struct proxy_pipe *pipe)
{
    const struct proxy_h2_stream *to = pipe->to_stream;

    if (to->closed && !to->end_sent) {
        return PROXY_PIPE_LOST;
    }
    if (to->piece.n != 0) {
        return PROXY_PIPE_FULL;
    }
    drop_taken(pipe);
    if (pipe->ended) {
        return to->end_sent ? PROXY_PIPE_DONE : PROXY_PIPE_FULL;
    }
    return next_piece(pipe);
}

enum proxy_pipe_result proxy_pipe_pump(struct proxy_pipe *pipe, char *scratch)
{
    if (pipe->to_stream != NULL) {
        return pump_stream(pipe);
    }
    for (;;) {
        enum proxy_io_result written = PROXY_IO_DONE;
        enum proxy_pipe_result result = PROXY_PIPE_FULL;

        /* A head that waits leaves together with the first bytes of its body. */
        if (pipe->to->piece.n == 0 && pipe->to->tail_n == 0 && !pipe->ended) {
            drop_taken(pipe);
            result = next_piece(pipe);
        }
        if (result == PROXY_PIPE_BAD) {
            return result;
        }
        written = proxy_out_flush(pipe->to, pipe->io, scratch, &pipe->wire);
        if (written == PROXY_IO_FAILED) {
            return PROXY_PIPE_LOST;
        }
        if (written == PROXY_IO_AGAIN) {
            return PROXY_PIPE_FULL;
        }
        drop_taken(pipe);
        if (pipe->ended) {
            return PROXY_PIPE_DONE;
        }
        if (result == PROXY_PIPE_HUNGRY) {
            return result;
        }
    }
}
