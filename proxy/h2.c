#include "proxy/h2.h"

#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

enum {
    READS_MAX = 16,
    WIRE_FULL = 65536,               /* enough for one round of writing */
    WIRE_MAX = 4 * 1024 * 1024,      /* control frames that a peer makes us gather */
    CONNECTION_WINDOW = 1024 * 1024, /* of all streams together */
    HEADER_TABLE = 4096,
    FRAME_HEAD = 9,
    HEAD_BOMB = 8 /* a head that many times over its limit ends the connection */
};

struct proxy_h2 {
    struct proxy_worker *worker;
    struct proxy_io *io;
    const struct proxy_h2_hooks *hooks;
    void *owner;
    nghttp2_session *ng;
    bool server;
    struct list in_dirty; /* worker->h2_dirty */
    struct list streams;
    size_t n_streams;
    struct list due;
    struct buf wire; /* what the socket did not take */
    size_t wire_at;
    unsigned faults;
    int32_t newest; /* server: the highest stream that was opened */
    bool shut;      /* GOAWAY is on its way, or came */
    bool broken;    /* the protocol was broken: what waits is still sent */
};

/* gRPC metadata may have underscores in its names. */
static const struct http_rules any_name = { .underscores = HTTP_UNDERSCORE_ALLOW };

/* ---- notes ----------------------------------------------------------------------------------- */

static void mark_dirty(struct proxy_h2 *h2)
{
    if (list_empty(&h2->in_dirty)) {
        list_push_back(&h2->worker->h2_dirty, &h2->in_dirty);
        loop_gather(h2->worker->loop);
    }
}

static void note(struct proxy_h2_stream *s, unsigned what)
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
    loop_defer(h2->worker->loop, free_stream, s);
}

static void tell_all(struct proxy_h2 *h2)
{
    size_t before = h2->n_streams;

    while (!list_empty(&h2->due)) {
        struct proxy_h2_stream *s = LIST_ENTRY(h2->due.next, struct proxy_h2_stream, in_due);

        list_remove(&s->in_due);
        tell(h2->hooks, s);
    }
    if (h2->n_streams == 0 && (before != 0 || h2->shut)) {
        h2->hooks->quiet(h2->owner);
    }
}

static struct proxy_h2_stream *stream_new(struct proxy_h2 *h2, int32_t id)
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

/* ---- heads ----------------------------------------------------------------------------------- */

/* A stream below the newest that was never opened is closed for good (RFC 9113 §5.1.1). nghttp2 would
 * pass over such a head, as it may be the trailer of a stream that we reset; those it remembers. */
static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
    struct proxy_h2 *h2 = arg;

    if (h2->server && hd->type == NGHTTP2_HEADERS && hd->stream_id < h2->newest &&
        nghttp2_session_find_stream(ng, hd->stream_id) == NULL) {
        (void)nghttp2_session_terminate_session(ng, NGHTTP2_PROTOCOL_ERROR);
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct proxy_h2 *h2 = arg;
    struct proxy_h2_stream *s = NULL;

    if (!h2->server || frame->hd.type != NGHTTP2_HEADERS ||
        frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    s = stream_new(h2, frame->hd.stream_id);
    h2->newest = s->id;
    h2->hooks->open(h2->owner, s);
    (void)nghttp2_session_set_stream_user_data(ng, s->id, s);
    return 0;
}

static struct sv keep(struct proxy_h2_stream *s, nghttp2_rcbuf *text)
{
    nghttp2_vec v = nghttp2_rcbuf_get_buf(text);

    return arena_sv(s->arena, sv_of(v.base, v.len));
}

/* nghttp2 has checked that they stand first, once each, and that the needed ones are there. */
static void take_pseudo(struct proxy_h2_stream *s, struct sv name, struct sv value)
{
    struct http_head *head = s->head;

    if (sv_eq(name, SV(":method"))) {
        head->method_text = value;
        head->method = http_method_id(value);
    } else if (sv_eq(name, SV(":path"))) {
        head->target = value;
    } else if (sv_eq(name, SV(":authority"))) {
        head->host = value;
    } else if (sv_eq(name, SV(":protocol"))) {
        s->protocol = value;
    } else if (sv_eq(name, SV(":status"))) {
        uint64_t status = 0;

        if (value.n != 3 || sv_u64(value, 599, &status) != ERR_OK || status < 100) {
            s->fault = HTTP_FAULT_STATUS;
        }
        head->status = (unsigned)status;
    }
}

static void take_trailer(struct proxy_h2_stream *s, struct sv name, struct sv value)
{
    if (s->fault == HTTP_FAULT_NONE && http_name_set_has(s->refuse, name)) {
        s->fault = HTTP_FAULT_TRAILER;
    }
    if (s->fault == HTTP_FAULT_NONE) {
        s->fault = http_head_add(&s->trailer, name, value);
    }
}

/* The type is nghttp2's. NOLINTNEXTLINE(readability-function-size) */
static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, nghttp2_rcbuf *name_buf,
                     nghttp2_rcbuf *value_buf, uint8_t flags, void *arg)
{
    struct proxy_h2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    nghttp2_vec n = nghttp2_rcbuf_get_buf(name_buf);
    nghttp2_vec v = nghttp2_rcbuf_get_buf(value_buf);
    struct sv name = { 0 };

    (void)flags;
    (void)arg;
    if (s == NULL || s->owner == NULL) {
        return 0;
    }
    s->head_bytes += n.len + v.len + 32; /* RFC 9113 §6.5.2 */
    if (s->head_bytes > PROXY_REQUEST_HEAD_MAX) {
        s->fault = HTTP_FAULT_HEAD_LARGE;
        /* It must be decoded whole, or the connection is lost: but not without end. */
        return s->head_bytes > (size_t)PROXY_REQUEST_HEAD_MAX * HEAD_BOMB
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    }
    name = keep(s, name_buf);
    if (s->head_done) {
        take_trailer(s, name, keep(s, value_buf));
    } else if (name.n != 0 && name.p[0] == ':') {
        take_pseudo(s, name, keep(s, value_buf));
    } else if (s->fault == HTTP_FAULT_NONE) {
        s->fault = http_head_add(s->head, name, keep(s, value_buf));
    }
    return 0;
}

/* A WebSocket by extended CONNECT (RFC 8441) is the request that HTTP/1 would make of it. */
static void take_protocol(struct proxy_h2_stream *s)
{
    struct http_head *head = s->head;

    if (s->protocol.p == NULL) {
        return;
    }
    if (!sv_eq(s->protocol, SV("websocket")) || head->method != HTTP_CONNECT) {
        s->fault = HTTP_FAULT_METHOD_REFUSED;
        return;
    }
    head->method = HTTP_GET;
    head->method_text = SV("GET");
}

static void join_cookies(struct proxy_h2_stream *s);

static void seal(struct proxy_h2_stream *s, bool ended)
{
    struct http_head *head = s->head;

    head->http2 = true;
    head->minor = 1;
    if (head->kind == HTTP_REQUEST) {
        take_protocol(s);
        join_cookies(s);
        if (head->method == HTTP_CONNECT) {
            head->target = head->host;
        }
    }
    if (s->fault == HTTP_FAULT_NONE) {
        s->fault = http_head_seal(head);
    }
    if (s->protocol.p != NULL) {
        head->upgrade = true;
        head->websocket = true;
    }
    if (ended) {
        head->framing = HTTP_BODY_NONE;
    } else if (head->kind == HTTP_REQUEST && head->framing == HTTP_BODY_NONE) {
        head->framing = HTTP_BODY_CHUNKED; /* of unknown length; frames tell its end */
    }
}

/* RFC 9113 §8.2.3: crumbs become one field again before anything else reads them. */
static void join_cookies(struct proxy_h2_stream *s)
{
    struct http_head *head = s->head;
    size_t n = 0;
    char *at = NULL;
    char *text = NULL;
    struct http_field *first = NULL;
    uint32_t i = 0;
    uint32_t kept = 0;

    if (http_head_count(head, HTTP_H_COOKIE) < 2) {
        return;
    }
    for (i = 0; i < head->n; i++) {
        n += head->fields[i].id == HTTP_H_COOKIE ? head->fields[i].value.n + 2 : 0;
    }
    text = arena_alloc(s->arena, n);
    at = text;
    for (i = 0; i < head->n; i++) {
        struct http_field *f = &head->fields[i];

        if (f->id != HTTP_H_COOKIE) {
            head->fields[kept++] = *f;
            continue;
        }
        if (first != NULL) {
            *at++ = ';';
            *at++ = ' ';
        } else {
            first = &head->fields[kept++];
            *first = *f;
        }
        if (f->value.n != 0) {
            memcpy(at, f->value.p, f->value.n);
            at += f->value.n;
        }
    }
    CHECK(first != NULL); /* two were counted */
    first->value = sv_of(text, (size_t)(at - text));
    head->n = kept;
    memset(head->at, 0, sizeof(head->at));
    for (i = 0; i < head->n; i++) {
        if (head->at[head->fields[i].id] == 0) {
            head->at[head->fields[i].id] = (uint16_t)(i + 1);
        }
    }
}

static void end_of_head(struct proxy_h2 *h2, struct proxy_h2_stream *s, bool ended)
{
    if (s->head_done) { /* trailers */
        note(s, PROXY_H2_READABLE);
        return;
    }
    if (s->head->kind == HTTP_RESPONSE && s->head->status < 200 && s->fault == HTTP_FAULT_NONE) {
        if (s->owner != NULL) {
            h2->hooks->interim(s->owner);
        }
        return;
    }
    s->head_done = true;
    seal(s, ended);
    note(s, PROXY_H2_HEAD);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct proxy_h2 *h2 = arg;
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    struct proxy_h2_stream *s = NULL;

    if (frame->hd.type == NGHTTP2_GOAWAY) {
        h2->shut = true;
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (s == NULL || s->owner == NULL) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS) {
        end_of_head(h2, s, ended);
    }
    if (ended) {
        s->in_ended = true;
        note(s, PROXY_H2_READABLE);
    }
    return 0;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

/* The type is nghttp2's. NOLINTNEXTLINE(readability-function-size) */
static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *arg)
{
    struct proxy_h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);

    (void)flags;
    (void)arg;
    /* One slow stream must not stop the others: only its own window closes. */
    (void)nghttp2_session_consume_connection(ng, n);
    if (s == NULL || s->owner == NULL) {
        (void)nghttp2_session_consume_stream(ng, id, n);
        return 0;
    }
    if (!proxy_window_append(&s->in, sv_of(p, n), PROXY_H2_WINDOW)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE; /* nghttp2 keeps the peer to our window */
    }
    note(s, PROXY_H2_READABLE);
    return 0;
}

void proxy_h2_drop(struct proxy_h2_stream *stream, size_t n)
{
    proxy_window_drop(&stream->in, n);
    if (stream->h2 != NULL && !stream->closed && n != 0) {
        (void)nghttp2_session_consume_stream(stream->h2->ng, stream->id, n);
        mark_dirty(stream->h2);
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
        note(s, PROXY_H2_WRITABLE);
    }
    return 0;
}

/* NOLINTEND(readability-non-const-parameter,readability-function-size) */

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct proxy_h2_stream *s = NULL;

    (void)arg;
    if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
        if (s != NULL) {
            s->end_sent = true;
            note(s, PROXY_H2_WRITABLE);
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
    s->closed = true;
    s->error = error;
    s->refused = error == NGHTTP2_REFUSED_STREAM;
    s->piece = (struct sv){ 0 };
    if (s->owner == NULL) {
        drop_stream(h2, s);
    } else if (error != NGHTTP2_NO_ERROR || !s->in_ended || !s->end_sent) {
        note(s, PROXY_H2_LOST);
    }
    return 0;
}

/* A stream that we reset because of what the peer did on it: each is cheap, a flood of them is not
 * (CVE-2025-8671, "MadeYouReset"). */
static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *arg)
{
    struct proxy_h2 *h2 = arg;

    (void)ng;
    (void)frame;
    (void)error;
    if (++h2->faults > PROXY_H2_FAULTS_MAX) {
        h2->broken = true;
    }
    return 0;
}

/* ---- the session ----------------------------------------------------------------------------- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *c = NULL;

    CHECK(nghttp2_session_callbacks_new(&c) == 0);
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(c, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid_frame);
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
    mark_dirty(h2);
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

bool proxy_h2_feed(struct proxy_h2 *h2, struct sv bytes)
{
    ssize_t n = nghttp2_session_mem_recv(h2->ng, (const uint8_t *)bytes.p, bytes.n);

    h2->broken = h2->broken || n < 0;
    tell_all(h2);
    mark_dirty(h2);
    return !h2->broken;
}

bool proxy_h2_read(struct proxy_h2 *h2)
{
    int i = 0;

    for (i = 0; i < READS_MAX; i++) {
        size_t n = 0;
        enum proxy_io_result result =
            proxy_io_read(h2->io, h2->worker->scratch, sizeof(h2->worker->scratch), &n);

        if (result == PROXY_IO_AGAIN) {
            return true;
        }
        if (result != PROXY_IO_DONE || !proxy_h2_feed(h2, sv_of(h2->worker->scratch, n))) {
            return false;
        }
        if (n < sizeof(h2->worker->scratch) &&
            (h2->io->ssl == NULL || SSL_has_pending(h2->io->ssl) == 0)) {
            return true;
        }
    }
    return true;
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
        mark_dirty(h2);
    }
}

size_t proxy_h2_streams(const struct proxy_h2 *h2)
{
    return h2->n_streams;
}

bool proxy_h2_has_room(const struct proxy_h2 *h2)
{
    uint32_t theirs =
        nghttp2_session_get_remote_settings(h2->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

    return !h2->shut && !h2->broken &&
           h2->n_streams < MIN(theirs, (uint32_t)PROXY_H2_STREAMS_MAX) &&
           nghttp2_session_check_request_allowed(h2->ng) == 1;
}

/* ---- what owners do -------------------------------------------------------------------------- */

struct proxy_h2_stream *proxy_h2_request(struct proxy_h2 *h2, const struct proxy_emit *head,
                                         bool body, void *owner)
{
    struct proxy_h2_stream *s = stream_new(h2, 0);
    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_pull };

    s->id = nghttp2_submit_request(h2->ng, NULL, head->nv, head->n, body ? &provider : NULL, s);
    if (s->id <= 0) {
        drop_stream(h2, s);
        return NULL;
    }
    s->owner = owner;
    mark_dirty(h2);
    return s;
}

bool proxy_h2_answer(struct proxy_h2_stream *stream, const struct proxy_emit *head, bool body)
{
    nghttp2_data_provider provider = { .source.ptr = stream, .read_callback = on_pull };

    if (stream->h2 == NULL || stream->closed) {
        return false;
    }
    mark_dirty(stream->h2);
    return nghttp2_submit_response(stream->h2->ng, stream->id, head->nv, head->n,
                                   body ? &provider : NULL) == 0;
}

void proxy_h2_interim(struct proxy_h2_stream *stream, const struct proxy_emit *head)
{
    if (stream->h2 != NULL && !stream->closed) {
        (void)nghttp2_submit_headers(stream->h2->ng, NGHTTP2_FLAG_NONE, stream->id, NULL, head->nv,
                                     head->n, NULL);
        mark_dirty(stream->h2);
    }
}

static void resume(struct proxy_h2_stream *s)
{
    if (s->h2 != NULL && !s->closed) {
        (void)nghttp2_session_resume_data(s->h2->ng, s->id);
        mark_dirty(s->h2);
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
    mark_dirty(s->h2);
}
