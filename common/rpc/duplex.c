#include "common/rpc/duplex.h"

#include <string.h>

#include <nghttp2/nghttp2.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/secret.h"

enum { WINDOW = 1024 * 1024, FRAME_HEAD = 5, STATUS_MAX = 16, TEXT_MAX = 1024 };

#define AUTHORIZATION "authorization"

struct rpc_duplex {
    nghttp2_session *h2;
    size_t max_bytes;
    bool server;
    int32_t stream; /* 0: none came yet */
    /* what came */
    size_t head_bytes;
    struct buf path;  /* server */
    struct buf shown; /* server: what stands in `authorization` */
    unsigned n_shown;
    bool asked;   /* server: the head is whole */
    bool drained; /* the other end said its last */
    bool over;
    enum rpc_status status; /* client */
    struct buf in;          /* frames of gRPC that are not taken yet */
    size_t in_at;
    /* what goes */
    bool answered; /* server: the head of the answer is out */
    bool ending;   /* server: trailers follow the message that is being sent */
    char end_status[8];
    struct buf end_text;
    struct buf sending; /* the message that nghttp2 takes from */
    size_t sending_at;
    struct buf wire; /* what the socket has not taken yet */
    size_t wire_at;
};

/* ---- what comes ------------------------------------------------------------------------------ */

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *p, size_t n,
                   void *arg)
{
    struct rpc_duplex *d = arg;

    (void)h2;
    (void)flags;
    if (stream == d->stream && !d->ending) {
        buf_add(&d->in, p, n);
    }
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream, uint32_t code, void *arg)
{
    struct rpc_duplex *d = arg;

    (void)h2;
    (void)code;
    d->over = d->over || stream == d->stream;
    return 0;
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct rpc_duplex *d = arg;

    (void)h2;
    if (d->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST && d->stream == 0) {
        d->stream = frame->hd.stream_id;
    }
    return 0;
}

static void take_request_field(struct rpc_duplex *d, struct sv name, struct sv value)
{
    if (sv_eq(name, SV(":path"))) {
        buf_add_sv(&d->path, value);
    } else if (sv_eq(name, SV(AUTHORIZATION)) && ++d->n_shown == 1) {
        buf_add_sv(&d->shown, value);
    }
}

/* The type is nghttp2's. NOLINTBEGIN(readability-function-size) */
static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct rpc_duplex *d = arg;
    uint64_t status = 0;

    (void)h2;
    (void)flags;
    d->head_bytes += name_n + value_n + 32; /* RFC 9113 §6.5.2 */
    if (d->head_bytes > RPC_DUPLEX_HEAD_MAX) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (frame->hd.stream_id != d->stream) {
        return 0;
    }
    if (d->server && !d->asked) {
        take_request_field(d, sv_of(name, name_n), sv_of(value, value_n));
    } else if (!d->server && sv_eq(sv_of(name, name_n), SV("grpc-status")) &&
               sv_u64(sv_of(value, value_n), STATUS_MAX, &status) == ERR_OK) {
        d->status = (enum rpc_status)status;
    }
    return 0;
}

/* NOLINTEND(readability-function-size) */

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct rpc_duplex *d = arg;

    (void)h2;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        d->over = true;
    } else if (frame->hd.stream_id == d->stream && d->stream != 0) {
        d->asked = d->asked || frame->hd.type == NGHTTP2_HEADERS;
        d->drained = d->drained || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    }
    return 0;
}

enum err rpc_duplex_feed(struct rpc_duplex *duplex, struct sv bytes)
{
    struct rpc_duplex *d = duplex;
    ssize_t took = 0;

    buf_drop_front(&d->in, d->in_at);
    d->in_at = 0;
    took = nghttp2_session_mem_recv(d->h2, (const uint8_t *)bytes.p, bytes.n);
    if (took < 0 || (size_t)took != bytes.n || d->path.err != ERR_OK || d->shown.err != ERR_OK) {
        return ERR_INVALID;
    }
    return d->in.err;
}

enum err rpc_duplex_next(struct rpc_duplex *duplex, struct sv *message_out)
{
    struct rpc_duplex *d = duplex;
    const unsigned char *p = NULL;
    size_t rest = d->in.n - d->in_at;
    size_t n = 0;

    if (rest < FRAME_HEAD || d->ending) {
        return ERR_AGAIN;
    }
    p = (const unsigned char *)d->in.p + d->in_at;
    n = (size_t)p[1] << 24U | (size_t)p[2] << 16U | (size_t)p[3] << 8U | p[4];
    if (p[0] != 0 || n > d->max_bytes) {
        return p[0] != 0 ? ERR_UNSUPPORTED : ERR_LIMIT;
    }
    if (rest - FRAME_HEAD < n) {
        return ERR_AGAIN;
    }
    *message_out = sv_of(p + FRAME_HEAD, n);
    d->in_at += FRAME_HEAD + n;
    return ERR_OK;
}

bool rpc_duplex_is_drained(const struct rpc_duplex *duplex)
{
    return duplex->drained;
}

bool rpc_duplex_is_over(const struct rpc_duplex *duplex)
{
    return duplex->over;
}

enum rpc_status rpc_duplex_status(const struct rpc_duplex *duplex)
{
    return duplex->status;
}

bool rpc_duplex_asked(const struct rpc_duplex *duplex, struct sv *path_out, struct sv *shown_out)
{
    if (!duplex->server || !duplex->asked) {
        return false;
    }
    *path_out = buf_sv(&duplex->path);
    *shown_out = duplex->n_shown == 1 ? buf_sv(&duplex->shown) : SV("");
    return true;
}

/* ---- what goes ------------------------------------------------------------------------------- */

static nghttp2_nv field(const char *name, struct sv value)
{
    return (nghttp2_nv){ .name = base_unconst(name),
                         .namelen = strlen(name),
                         .value = base_unconst(value.p),
                         .valuelen = value.n };
}

static void submit_end(struct rpc_duplex *d)
{
    nghttp2_nv v[] = { field(":status", SV("200")), field("content-type", SV("application/grpc")),
                       field("grpc-status", sv_from(d->end_status)),
                       field("grpc-message", buf_sv(&d->end_text)) };

    if (d->answered) {
        CHECK(nghttp2_submit_trailer(d->h2, d->stream, v + 2, 2) == 0);
    } else {
        d->answered = true;
        CHECK(nghttp2_submit_headers(d->h2, NGHTTP2_FLAG_END_STREAM, d->stream, NULL, v,
                                     ARRAY_LEN(v), NULL) == 0);
    }
}

/* The type is nghttp2's. NOLINTBEGIN(readability-non-const-parameter,readability-function-size) */
static ssize_t read_sending(nghttp2_session *h2, int32_t stream, uint8_t *p, size_t room,
                            uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct rpc_duplex *d = arg;
    size_t n = MIN(room, d->sending.n - d->sending_at);

    (void)h2;
    (void)stream;
    (void)source;
    if (n != 0) {
        memcpy(p, d->sending.p + d->sending_at, n);
        d->sending_at += n;
        return (ssize_t)n;
    }
    if (!d->ending) {
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    submit_end(d);
    return 0;
}

/* NOLINTEND(readability-non-const-parameter,readability-function-size) */

/* The server has said its end; the client need not say its own any more (RFC 9113 §8.1). gRPC core
 * does not believe in an end without that. */
static int on_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct rpc_duplex *d = arg;

    if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
        d->ending && !d->drained) {
        (void)nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, d->stream, NGHTTP2_NO_ERROR);
    }
    return 0;
}

void rpc_duplex_send(struct rpc_duplex *duplex, struct sv message)
{
    struct rpc_duplex *d = duplex;
    unsigned char head[FRAME_HEAD] = { 0, (unsigned char)(message.n >> 24U),
                                       (unsigned char)(message.n >> 16U),
                                       (unsigned char)(message.n >> 8U), (unsigned char)message.n };

    CHECK(rpc_duplex_can_send(d) && message.n <= d->max_bytes);
    buf_reset(&d->sending);
    d->sending_at = 0;
    buf_add(&d->sending, head, sizeof(head));
    buf_add_sv(&d->sending, message);
    (void)nghttp2_session_resume_data(d->h2, d->stream);
}

bool rpc_duplex_can_send(const struct rpc_duplex *duplex)
{
    return duplex->sending_at == duplex->sending.n && duplex->wire_at == duplex->wire.n &&
           !duplex->ending && !duplex->over && duplex->answered;
}

enum err rpc_duplex_out(struct rpc_duplex *duplex, struct sv *bytes_out)
{
    struct rpc_duplex *d = duplex;
    const uint8_t *p = NULL;
    ssize_t got = 1;

    if (d->wire_at == d->wire.n) {
        buf_reset(&d->wire);
        d->wire_at = 0;
    }
    while (got > 0 && d->wire.n - d->wire_at < RPC_DUPLEX_OUT) {
        got = nghttp2_session_mem_send(d->h2, &p);
        if (got > 0) {
            buf_add(&d->wire, p, (size_t)got);
        }
    }
    if (got < 0 || d->wire.err != ERR_OK) {
        *bytes_out = SV("");
        return ERR_INTERNAL;
    }
    *bytes_out = sv_from_at(buf_sv(&d->wire), d->wire_at);
    /* After a fault of the peer nghttp2 has said its last (GOAWAY). */
    return bytes_out->n == 0 && nghttp2_session_want_read(d->h2) == 0 ? ERR_ABORTED : ERR_OK;
}

void rpc_duplex_wrote(struct rpc_duplex *duplex, size_t n)
{
    CHECK(n <= duplex->wire.n - duplex->wire_at);
    duplex->wire_at += n;
}

/* ---- the server's answer --------------------------------------------------------------------- */

void rpc_duplex_accept(struct rpc_duplex *duplex)
{
    struct rpc_duplex *d = duplex;
    nghttp2_nv head[] = { field(":status", SV("200")),
                          field("content-type", SV("application/grpc")) };
    nghttp2_data_provider body = { .read_callback = read_sending };

    CHECK(d->asked && !d->answered && !d->ending);
    d->answered = true;
    secret_wipe(d->shown.p, d->shown.n);
    buf_reset(&d->shown);
    CHECK(nghttp2_submit_response(d->h2, d->stream, head, ARRAY_LEN(head), &body) == 0);
}

void rpc_duplex_ping(struct rpc_duplex *duplex)
{
    CHECK(nghttp2_submit_ping(duplex->h2, NGHTTP2_FLAG_NONE, NULL) == 0);
}

void rpc_duplex_end(struct rpc_duplex *duplex, enum rpc_status status, const char *text)
{
    struct rpc_duplex *d = duplex;

    if (d->ending) {
        return;
    }
    d->ending = true;
    if (d->asked && !d->over) {
        struct buf digits;

        buf_init(&digits, sizeof(d->end_status));
        buf_add_u64(&digits, (uint64_t)status);
        memcpy(d->end_status, digits.p, digits.n);
        buf_deinit(&digits);
        buf_add_urlenc(&d->end_text, sv_from(text));
        if (d->answered) {
            (void)nghttp2_session_resume_data(d->h2, d->stream);
        } else {
            submit_end(d);
        }
    }
    (void)nghttp2_submit_goaway(d->h2, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(d->h2), NGHTTP2_NO_ERROR,
                                NULL, 0);
}

/* ---- life ------------------------------------------------------------------------------------ */

static struct rpc_duplex *duplex_new(size_t max_bytes)
{
    struct rpc_duplex *d = MEM_NEW(struct rpc_duplex);

    d->max_bytes = max_bytes;
    d->status = RPC_UNKNOWN;
    buf_init(&d->path, RPC_DUPLEX_HEAD_MAX);
    buf_init(&d->shown, RPC_DUPLEX_HEAD_MAX);
    buf_init(&d->end_text, TEXT_MAX);
    buf_init(&d->in, max_bytes * 2);
    buf_init(&d->sending, max_bytes + FRAME_HEAD);
    buf_init(&d->wire, max_bytes * 2);
    return d;
}

static nghttp2_session_callbacks *callbacks_new(void)
{
    nghttp2_session_callbacks *callbacks = NULL;

    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    return callbacks;
}

static void open_windows(struct rpc_duplex *d, const nghttp2_settings_entry *settings, size_t n)
{
    CHECK(nghttp2_submit_settings(d->h2, NGHTTP2_FLAG_NONE, settings, n) == 0);
    CHECK(nghttp2_session_set_local_window_size(d->h2, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0);
}

struct rpc_duplex *rpc_duplex_server_new(size_t max_bytes)
{
    struct rpc_duplex *d = duplex_new(max_bytes);
    nghttp2_session_callbacks *callbacks = callbacks_new();
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, RPC_DUPLEX_HEAD_MAX },
    };

    d->server = true;
    CHECK(nghttp2_session_server_new(&d->h2, callbacks, d) == 0);
    nghttp2_session_callbacks_del(callbacks);
    open_windows(d, settings, ARRAY_LEN(settings));
    return d;
}

struct rpc_duplex *rpc_duplex_client_new(size_t max_bytes, const char *path, const char *authority,
                                         struct sv shown)
{
    struct rpc_duplex *d = duplex_new(max_bytes);
    nghttp2_session_callbacks *callbacks = callbacks_new();
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
    };
    nghttp2_nv head[] = {
        field(":method", SV("POST")),       field(":scheme", SV("https")),
        field(":path", sv_from(path)),      field(":authority", sv_from(authority)),
        field("te", SV("trailers")),        field("content-type", SV("application/grpc")),
        field("user-agent", SV("postern")), field(AUTHORIZATION, shown)
    };
    nghttp2_data_provider body = { .read_callback = read_sending };

    head[ARRAY_LEN(head) - 1].flags = NGHTTP2_NV_FLAG_NO_INDEX;
    CHECK(nghttp2_session_client_new(&d->h2, callbacks, d) == 0);
    nghttp2_session_callbacks_del(callbacks);
    open_windows(d, settings, ARRAY_LEN(settings));
    d->stream = nghttp2_submit_request(d->h2, NULL, head, ARRAY_LEN(head) - (shown.n == 0 ? 1 : 0),
                                       &body, NULL);
    CHECK(d->stream > 0);
    d->answered = true;
    return d;
}

void rpc_duplex_free(struct rpc_duplex **duplex)
{
    struct rpc_duplex *d = TAKE(*duplex);

    if (d == NULL) {
        return;
    }
    nghttp2_session_del(d->h2);
    secret_wipe(d->shown.p, d->shown.n);
    buf_deinit(&d->path);
    buf_deinit(&d->shown);
    buf_deinit(&d->end_text);
    buf_deinit(&d->in);
    buf_deinit(&d->sending);
    buf_deinit(&d->wire);
    mem_free(&d);
}
