#include "proxy/h2.h"

#include "common/mem.h"
#include "proxy/conn.h"
#include "proxy/h2_session.h"
#include "proxy/worker.h"

enum {
    READS_MAX = 16,
    WIRE_FULL = 65536,               /* enough for one round of writing */
    WIRE_MAX = 4 * 1024 * 1024,      /* control frames that a peer makes us gather */
    CONNECTION_WINDOW = 1024 * 1024, /* of all streams together */
    HEADER_TABLE = 4096,
    FRAME_HEAD = 9
};

/* gRPC metadata may have underscores in its names. */
static const struct http_rules any_name = { .underscores = HTTP_UNDERSCORE_ALLOW };

/* ---- notes ----------------------------------------------------------------------------------- */

void proxy_h2_mark_dirty(struct proxy_h2 *h2)
{
    if (list_empty(&h2->in_dirty)) {
        list_push_back(&h2->worker->h2_dirty, &h2->in_dirty);
        loop_gather(h2->worker->loop);
    }
}

void proxy_h2_note(struct proxy_h2_stream *s, unsigned what)
{
    if (s->owner == NULL) {
        return;
    }
    s->due |= what;
    if (list_empty(&s->in_due)) {
        list_push_back(&s->h2->due, &s->in_due);
    }
}

static void tell(const struct proxy_h2_hooks *hooks, struct proxy_h2_stream *s)
{
    static const unsigned order[] = { PROXY_H2_HEAD, PROXY_H2_READABLE, PROXY_H2_WRITABLE,
                                      PROXY_H2_LOST };
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(order) && s->owner != NULL; i++) {
        if ((s->due & order[i]) == 0) {
            continue;
        }
        s->due &= ~order[i];
        switch (order[i]) {
        case PROXY_H2_HEAD:
            hooks->head(s->owner);
            break;
        case PROXY_H2_READABLE:
            hooks->readable(s->owner);
            break;
        case PROXY_H2_WRITABLE:
            hooks->writable(s->owner);
            break;
        default:
            hooks->lost(s->owner);
            break;
        }
    }
}

static void free_stream(void *arg)
{
    struct proxy_h2_stream *s = arg;

    proxy_window_deinit(&s->in);
    mem_free(&s);
}

/* Nobody knows it any more; callers up the stack may. */
static void drop_stream(struct proxy_h2 *h2, struct proxy_h2_stream *s)
{
    list_remove(&s->in_due);
    list_remove(&s->in_h2);
    h2->n_streams--;
    if (h2->hooks->freed != NULL) {
        h2->hooks->freed(h2->owner);
    }
    loop_defer(h2->worker->loop, free_stream, s);
}

static void tell_all(struct proxy_h2 *h2)
{
    size_t before = h2->n_streams;

    if (h2->settled && !h2->told) {
        h2->told = true;
        if (h2->hooks->settled != NULL) {
            h2->hooks->settled(h2->owner);
        }
    }
    while (!list_empty(&h2->due)) {
        struct proxy_h2_stream *s = LIST_ENTRY(h2->due.next, struct proxy_h2_stream, in_due);

        list_remove(&s->in_due);
        tell(h2->hooks, s);
    }
    if (h2->n_streams == 0 && (before != 0 || h2->shut)) {
        h2->hooks->quiet(h2->owner);
    }
}

struct proxy_h2_stream *proxy_h2_stream_new(struct proxy_h2 *h2, int32_t id)
{
    struct proxy_h2_stream *s = MEM_NEW(struct proxy_h2_stream);

    s->h2 = h2;
    s->id = id;
    list_init(&s->in_due);
    list_push_back(&h2->streams, &s->in_h2);
    h2->n_streams++;
    proxy_window_init(&s->in);
    http_head_init(&s->trailer, HTTP_TRAILER, h2->server ? NULL : &any_name, s->trailer_fields,
                   HTTP_TRAILERS_MAX);
    return s;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

void proxy_h2_drop(struct proxy_h2_stream *stream, size_t n)
{
    proxy_window_drop(&stream->in, n);
    if (stream->h2 != NULL && !stream->closed && n != 0) {
        (void)nghttp2_session_consume_stream(stream->h2->ng, stream->id, n);
        proxy_h2_mark_dirty(stream->h2);
    }
}

static void submit_trailer(struct proxy_h2_stream *s)
{
    nghttp2_nv nv[HTTP_TRAILERS_MAX];
    size_t n = 0;
    uint32_t i = 0;

    for (i = 0; i < s->out_trailer->n; i++) {
        const struct http_field *f = &s->out_trailer->fields[i];

        if ((f->flags & HTTP_F_NOT_FORWARDED) == 0) {
            nv[n++] = (nghttp2_nv){ .name = base_unconst(f->name.p),
                                    .namelen = f->name.n,
                                    .value = base_unconst(f->value.n == 0 ? "" : f->value.p),
                                    .valuelen = f->value.n };
        }
    }
    (void)nghttp2_submit_trailer(s->h2->ng, s->id, nv, n);
}

/* The type is nghttp2's. NOLINTBEGIN(readability-non-const-parameter,readability-function-size) */
static ssize_t on_pull(nghttp2_session *ng, int32_t id, uint8_t *p, size_t room, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    struct proxy_h2_stream *s = source->ptr;
    size_t n = MIN(room, s->piece.n);

    (void)ng;
    (void)id;
    (void)p;
    (void)arg;
    if (n == 0 && !s->out_ended) {
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->out_ended && n == s->piece.n) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->out_trailer != NULL) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailer(s);
        }
    }
    return (ssize_t)n;
}

static int on_push(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t n,
                   nghttp2_data_source *source, void *arg)
{
    struct proxy_h2 *h2 = arg;
    struct proxy_h2_stream *s = source->ptr;

    (void)ng;
    (void)frame; /* never padded: we set no padding callback */
    if (h2->wire.n - h2->wire_at >= WIRE_FULL) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    buf_add(&h2->wire, head, FRAME_HEAD);
    buf_add_sv(&h2->wire, sv_head(s->piece, n));
    s->piece = sv_from_at(s->piece, n);
    if (s->piece.n == 0) {
        proxy_h2_note(s, PROXY_H2_WRITABLE);
    }
    return 0;
}

/* NOLINTEND(readability-non-const-parameter,readability-function-size) */

/* We reset a stream for what the peer did on it: one is cheap, a flood of them is not (CVE-2025-8671,
 * "MadeYouReset"). What its owner reset has none any more. */
static void count_fault(struct proxy_h2 *h2, const struct proxy_h2_stream *s)
{
    if ((s == NULL || s->owner != NULL) && ++h2->faults > PROXY_H2_FAULTS_MAX) {
        h2->broken = true;
    }
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct proxy_h2_stream *s = NULL;

    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        count_fault(arg, nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id));
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    proxy_ration_purpose(&((struct proxy_h2 *)arg)->ration);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
        if (s != NULL) {
            s->end_sent = true;
            proxy_h2_note(s, PROXY_H2_WRITABLE);
        }
    }
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *arg)
{
    struct proxy_h2 *h2 = arg;
    struct proxy_h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);

    if (s == NULL) {
        return 0;
    }
    h2->reading = NULL;
    s->closed = true;
    s->error = error;
    s->refused = error == NGHTTP2_REFUSED_STREAM;
    s->piece = (struct sv){ 0 };
    if (s->owner == NULL) {
        drop_stream(h2, s);
    } else if (error != NGHTTP2_NO_ERROR || !s->in_ended || !s->end_sent) {
        proxy_h2_note(s, PROXY_H2_LOST);
    }
    return 0;
}

/* ---- the session ----------------------------------------------------------------------------- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *c = NULL;

    CHECK(nghttp2_session_callbacks_new(&c) == 0);
    proxy_h2_receive_with(c);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(c, on_push);
    return c;
}

static struct proxy_h2 *new_session(struct proxy_worker *worker, struct proxy_io *io,
                                    const struct proxy_h2_hooks *hooks, void *owner, bool server)
{
    struct proxy_h2 *h2 = MEM_NEW(struct proxy_h2);
    nghttp2_session_callbacks *callbacks = make_callbacks();
    nghttp2_option *option = NULL;
    nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, PROXY_H2_STREAMS_MAX },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, PROXY_H2_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, PROXY_REQUEST_HEAD_MAX },
        { NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, HEADER_TABLE },
        { server ? NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL : NGHTTP2_SETTINGS_ENABLE_PUSH,
          server ? 1 : 0 },
    };
    int code = 0;

    h2->worker = worker;
    h2->io = io;
    h2->hooks = hooks;
    h2->owner = owner;
    h2->server = server;
    proxy_ration_init(&h2->ration);
    list_init(&h2->streams);
    list_init(&h2->due);
    list_init(&h2->in_dirty);
    buf_init(&h2->wire, WIRE_MAX);
    CHECK(nghttp2_option_new(&option) == 0);
    nghttp2_option_set_no_auto_window_update(option, 1);
    code = server ? nghttp2_session_server_new2(&h2->ng, callbacks, h2, option)
                  : nghttp2_session_client_new2(&h2->ng, callbacks, h2, option);
    CHECK(code == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    CHECK(nghttp2_submit_settings(h2->ng, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) == 0);
    CHECK(nghttp2_session_set_local_window_size(h2->ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) ==
          0);
    proxy_h2_mark_dirty(h2);
    return h2;
}

struct proxy_h2 *proxy_h2_server_new(struct proxy_worker *worker, struct proxy_io *io,
                                     const struct proxy_h2_hooks *hooks, void *owner)
{
    return new_session(worker, io, hooks, owner, true);
}

struct proxy_h2 *proxy_h2_client_new(struct proxy_worker *worker, struct proxy_io *io,
                                     const struct proxy_h2_hooks *hooks, void *owner)
{
    return new_session(worker, io, hooks, owner, false);
}

static void detach(struct proxy_h2 *h2, struct list *owned)
{
    while (!list_empty(&h2->streams)) {
        struct proxy_h2_stream *s = LIST_ENTRY(h2->streams.next, struct proxy_h2_stream, in_h2);

        list_remove(&s->in_due);
        list_remove(&s->in_h2);
        s->closed = true;
        s->piece = (struct sv){ 0 };
        s->h2 = NULL;
        if (s->owner != NULL) {
            list_push_back(owned, &s->in_h2);
        } else {
            loop_defer(h2->worker->loop, free_stream, s);
        }
    }
}

void proxy_h2_free(struct proxy_h2 **h2)
{
    struct proxy_h2 *h = TAKE(*h2);
    struct list owned;

    if (h == NULL) {
        return;
    }
    list_init(&owned);
    detach(h, &owned);
    while (!list_empty(&owned)) {
        struct proxy_h2_stream *s = LIST_ENTRY(owned.next, struct proxy_h2_stream, in_h2);

        list_remove(&s->in_h2);
        h->hooks->lost(s->owner);
    }
    list_remove(&h->in_dirty);
    nghttp2_session_del(h->ng);
    buf_deinit(&h->wire);
    mem_free(&h);
}

/* One bite. False: the connection is over. */
static bool eat(struct proxy_h2 *h2, struct sv bytes)
{
    uint32_t had = h2->ration.left;
    ssize_t n = nghttp2_session_mem_recv(h2->ng, (const uint8_t *)bytes.p, bytes.n);

    proxy_ration_taste(&h2->ration, bytes.n, had - h2->ration.left);
    h2->broken = h2->broken || n < 0;
    tell_all(h2);
    proxy_h2_mark_dirty(h2);
    return !h2->broken;
}

bool proxy_h2_feed(struct proxy_h2 *h2, struct sv *bytes)
{
    proxy_ration_serve(&h2->ration);
    while (bytes->n != 0 && h2->ration.left != 0) {
        struct sv bite = sv_head(*bytes, MIN(bytes->n, (size_t)h2->ration.bite));

        *bytes = sv_from_at(*bytes, bite.n);
        if (!eat(h2, bite)) {
            return false;
        }
    }
    return true;
}

bool proxy_h2_read(struct proxy_h2 *h2)
{
    int i = 0;

    proxy_ration_serve(&h2->ration);
    /* What is left is read in another turn: callers raise the event for what OpenSSL holds. */
    for (i = 0; i < READS_MAX && h2->worker->n_spent < PROXY_SPENT_MAX; i++) {
        size_t n = 0;
        size_t bite = h2->ration.bite;
        enum proxy_io_result result = proxy_io_read(h2->io, h2->worker->scratch, bite, &n);

        if (result == PROXY_IO_AGAIN) {
            return true;
        }
        if (result != PROXY_IO_DONE || !eat(h2, sv_of(h2->worker->scratch, n))) {
            return false;
        }
        if (h2->ration.left == 0 || (n < bite && !proxy_io_pending(h2->io))) {
            return true;
        }
    }
    return true;
}

bool proxy_h2_had_its_share(const struct proxy_h2 *h2)
{
    return h2->ration.left == 0;
}

/* Fills the wire from nghttp2. False: out of bounds. */
static bool fill_wire(struct proxy_h2 *h2)
{
    while (h2->wire.n - h2->wire_at < WIRE_FULL) {
        const uint8_t *p = NULL;
        ssize_t n = nghttp2_session_mem_send(h2->ng, &p);

        if (n < 0) {
            return false;
        }
        if (n == 0) {
            break;
        }
        buf_add(&h2->wire, p, (size_t)n);
    }
    return h2->wire.err == ERR_OK;
}

bool proxy_h2_flush(struct proxy_h2 *h2)
{
    for (;;) {
        struct iovec v;
        size_t n = 0;
        enum proxy_io_result result = PROXY_IO_FAILED;

        if (!fill_wire(h2)) {
            return false;
        }
        tell_all(h2); /* owners offer their next pieces */
        if (h2->wire.n == h2->wire_at && !fill_wire(h2)) {
            return false;
        }
        if (h2->wire.n == h2->wire_at) {
            break;
        }
        v = (struct iovec){ .iov_base = h2->wire.p + h2->wire_at,
                            .iov_len = h2->wire.n - h2->wire_at };
        result = proxy_io_write(h2->io, &v, 1, h2->worker->scratch, &n);
        if (result == PROXY_IO_AGAIN) {
            h2->hooks->want(h2->owner, true);
            return true;
        }
        if (result != PROXY_IO_DONE) {
            return false;
        }
        h2->wire_at += n;
        if (h2->wire_at == h2->wire.n) {
            buf_reset(&h2->wire);
            h2->wire_at = 0;
        }
    }
    h2->hooks->want(h2->owner, false);
    if (h2->n_streams == 0) {
        buf_deinit(&h2->wire); /* an idle connection holds no buffers */
        buf_init(&h2->wire, WIRE_MAX);
    }
    return !h2->broken &&
           (nghttp2_session_want_read(h2->ng) != 0 || nghttp2_session_want_write(h2->ng) != 0);
}

void proxy_h2_flush_all(struct proxy_worker *worker)
{
    while (!list_empty(&worker->h2_dirty)) {
        struct proxy_h2 *h2 = LIST_ENTRY(worker->h2_dirty.next, struct proxy_h2, in_dirty);

        list_remove(&h2->in_dirty);
        if (!proxy_h2_flush(h2)) {
            h2->hooks->broken(h2->owner);
        }
    }
}

void proxy_h2_shutdown(struct proxy_h2 *h2)
{
    if (!h2->shut) {
        h2->shut = true;
        (void)nghttp2_submit_goaway(h2->ng, NGHTTP2_FLAG_NONE,
                                    nghttp2_session_get_last_proc_stream_id(h2->ng),
                                    NGHTTP2_NO_ERROR, NULL, 0);
        proxy_h2_mark_dirty(h2);
    }
}

size_t proxy_h2_streams(const struct proxy_h2 *h2)
{
    return h2->n_streams;
}

bool proxy_h2_has_room(const struct proxy_h2 *h2)
{
    uint32_t theirs =
        h2->settled
            ? nghttp2_session_get_remote_settings(h2->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
            : 1;

    return !h2->shut && !h2->broken &&
           h2->n_streams < MIN(theirs, (uint32_t)PROXY_H2_STREAMS_MAX) &&
           nghttp2_session_check_request_allowed(h2->ng) == 1;
}

/* ---- what owners do -------------------------------------------------------------------------- */

struct proxy_h2_stream *proxy_h2_request(struct proxy_h2 *h2, const struct proxy_emit *head,
                                         bool body, void *owner)
{
    struct proxy_h2_stream *s = proxy_h2_stream_new(h2, 0);
    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_pull };

    s->id = nghttp2_submit_request(h2->ng, NULL, head->nv, head->n, body ? &provider : NULL, s);
    if (s->id <= 0) {
        drop_stream(h2, s);
        return NULL;
    }
    s->owner = owner;
    proxy_h2_mark_dirty(h2);
    return s;
}

bool proxy_h2_answer(struct proxy_h2_stream *stream, const struct proxy_emit *head, bool body)
{
    nghttp2_data_provider provider = { .source.ptr = stream, .read_callback = on_pull };

    if (stream->h2 == NULL || stream->closed) {
        return false;
    }
    proxy_h2_mark_dirty(stream->h2);
    return nghttp2_submit_response(stream->h2->ng, stream->id, head->nv, head->n,
                                   body ? &provider : NULL) == 0;
}

void proxy_h2_interim(struct proxy_h2_stream *stream, const struct proxy_emit *head)
{
    if (stream->h2 != NULL && !stream->closed) {
        (void)nghttp2_submit_headers(stream->h2->ng, NGHTTP2_FLAG_NONE, stream->id, NULL, head->nv,
                                     head->n, NULL);
        proxy_h2_mark_dirty(stream->h2);
    }
}

static void resume(struct proxy_h2_stream *s)
{
    if (s->h2 != NULL && !s->closed) {
        (void)nghttp2_session_resume_data(s->h2->ng, s->id);
        proxy_h2_mark_dirty(s->h2);
    }
}

void proxy_h2_offer(struct proxy_h2_stream *stream, struct sv data)
{
    CHECK(stream->piece.n == 0 && !stream->out_ended);
    stream->piece = data;
    resume(stream);
}

static bool passes_any(const struct http_head *trailer)
{
    uint32_t i = 0;

    for (i = 0; trailer != NULL && i < trailer->n; i++) {
        if ((trailer->fields[i].flags & HTTP_F_NOT_FORWARDED) == 0) {
            return true;
        }
    }
    return false;
}

void proxy_h2_offer_end(struct proxy_h2_stream *stream, const struct http_head *trailer)
{
    stream->out_ended = true;
    stream->out_trailer = passes_any(trailer) ? trailer : NULL;
    resume(stream);
}

void proxy_h2_release(struct proxy_h2_stream **stream, uint32_t code)
{
    struct proxy_h2_stream *s = TAKE(*stream);

    if (s == NULL) {
        return;
    }
    s->owner = NULL;
    s->piece = (struct sv){ 0 };
    if (s->h2 == NULL) { /* its connection went first */
        list_remove(&s->in_h2);
        free_stream(s);
        return;
    }
    if (s->closed) {
        drop_stream(s->h2, s);
        return;
    }
    s->out_trailer = NULL;
    if (!s->end_sent || !s->in_ended) {
        (void)nghttp2_submit_rst_stream(s->h2->ng, NGHTTP2_FLAG_NONE, s->id, code);
    }
    proxy_h2_mark_dirty(s->h2);
}
