#include "proxy/authz_link.h"

#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <nghttp2/nghttp2.h>

#include "common/arena.h"
#include "common/authz_block.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/proof.h"
#include "common/rpc/scan.h"
#include "common/rpc/wire.h"
#include "common/secret.h"
#include "proxy/io.h"

enum {
    WINDOW = 1024 * 1024,
    FRAME_HEAD = 5,
    RETRY_FIRST_MS = 50,
    RETRY_MAX_MS = 1000,
    CONNECT_MS = 3000
};

#define UNAUTHENTICATED "16" /* of grpc-status */

enum link_state { LINK_DOWN = 0, LINK_CONNECTING, LINK_HANDSHAKE, LINK_UP };

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): by meaning, not by size */
struct proxy_authz_link {
    struct proxy_authz_link_opts opts;
    struct proxy_sockaddr address;
    char target[PROXY_SOCKADDR_TEXT];
    SSL_CTX *tls;
    int64_t tls_until_ms;
    enum link_state state;
    int64_t state_until_ms; /* connect and handshake end by then */
    int64_t retry_at_ms;
    int64_t retry_ms;
    struct proxy_io io;
    struct event *readable;
    struct event *writable;
    bool wants_write;
    int64_t silent_since_us; /* 0: nothing is unanswered */
    int64_t sent_at_us;
    nghttp2_session *h2;
    int32_t stream;
    bool proven;        /* this stream has given an answer */
    bool stranger;      /* authorize says that it does not know us */
    struct buf sending; /* the message that nghttp2 takes from */
    size_t sending_at;
    struct buf wire; /* what the socket has not taken yet */
    size_t wire_at;
    struct buf in; /* gRPC frames not complete yet */
    struct arena arena;
    struct proxy_identity_table blocks;
    bool broken; /* set within callbacks: the link is dropped when they are over */
    bool warned;
};

/* ---- answers --------------------------------------------------------------------------------- */

static void take_reply(struct proxy_authz_link *a, struct sv bytes)
{
    struct proxy_authz_reply reply;

    if (proxy_authz_wire_reply(bytes, &reply) != ERR_OK) {
        a->broken = true;
        return;
    }
    a->opts.on_reply(a->opts.arg, &reply);
}

struct proxy_identity *proxy_authz_link_identity(struct proxy_authz_link *link, uint64_t number)
{
    struct proxy_identity *identity = proxy_identity_get(&link->blocks, number);

    link->broken = link->broken || identity == NULL;
    return identity;
}

static void take_block(struct proxy_authz_link *a, struct sv bytes)
{
    ProtobufCMessage *m = NULL;

    a->broken = rpc_unpack(&postern__identity_block__descriptor, bytes, &a->arena, &m) != ERR_OK ||
                !proxy_identity_put(&a->blocks, (const Postern__IdentityBlock *)(const void *)m);
}

static void take_changed(struct proxy_authz_link *a, struct sv bytes)
{
    ProtobufCMessage *m = NULL;
    const Postern__Changed *changed = NULL;
    struct sv *sessions = NULL;

    if (rpc_unpack(&postern__changed__descriptor, bytes, &a->arena, &m) != ERR_OK) {
        a->broken = true;
        return;
    }
    changed = (const Postern__Changed *)(const void *)m;
    sessions = arena_alloc(&a->arena, (changed->n_sessions + 1) * sizeof(*sessions));
    for (size_t i = 0; i < changed->n_sessions; i++) {
        sessions[i] = sv_from(changed->sessions[i]);
    }
    a->opts.on_changed(a->opts.arg, sessions, changed->n_sessions, changed->all != 0);
}

/* One ReplyItem; of a oneof the last one counts. */
static void take_item(struct proxy_authz_link *a, struct sv bytes)
{
    static void (*const takers[])(struct proxy_authz_link * a, struct sv bytes) = {
        [POSTERN__REPLY_ITEM__ITEM_BLOCK] = take_block,
        [POSTERN__REPLY_ITEM__ITEM_REPLY] = take_reply,
        [POSTERN__REPLY_ITEM__ITEM_CHANGED] = take_changed,
    };
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;
    struct sv item = { 0 };
    uint32_t kind = 0;

    while (rpc_wire_next(&w, &f)) {
        if (f.number < ARRAY_LEN(takers)) {
            kind = f.number;
            item = rpc_wire_bytes(&w, &f);
        }
    }
    if (w.err != ERR_OK) {
        a->broken = true;
    } else if (kind != 0) {
        takers[kind](a, item);
    }
}

static void take_message(struct proxy_authz_link *a, struct sv bytes)
{
    enum { FIELD_ITEMS = 1 };
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;

    if (!a->proven) {
        a->proven = true;
        a->retry_ms = 0;
        a->warned = false;
        log_info("authorize.found", KV_STR("target", a->target));
    }
    arena_reset(&a->arena);
    while (!a->broken && rpc_wire_next(&w, &f)) {
        if (f.number == FIELD_ITEMS) {
            take_item(a, rpc_wire_bytes(&w, &f));
        }
    }
    a->broken = a->broken || w.err != ERR_OK;
}

static void take_frames(struct proxy_authz_link *a)
{
    size_t at = 0;

    while (!a->broken && a->in.n - at >= FRAME_HEAD) {
        const unsigned char *p = (const unsigned char *)a->in.p + at;
        size_t n = (size_t)p[1] << 24U | (size_t)p[2] << 16U | (size_t)p[3] << 8U | p[4];

        if (p[0] != 0 || n > AUTHZ_MESSAGE_MAX) { /* compressed: we never asked for it */
            a->broken = true;
            return;
        }
        if (a->in.n - at - FRAME_HEAD < n) {
            break;
        }
        a->silent_since_us = 0;
        take_message(a, sv_of(p + FRAME_HEAD, n));
        at += FRAME_HEAD + n;
    }
    buf_drop_front(&a->in, at);
    if (at > 0) {
        a->opts.on_answered(a->opts.arg);
    }
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *p, size_t n,
                   void *arg)
{
    struct proxy_authz_link *a = arg;

    (void)h2;
    (void)flags;
    if (stream == a->stream) {
        buf_add(&a->in, p, n);
        a->broken = a->broken || a->in.err != ERR_OK;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream, uint32_t code, void *arg)
{
    struct proxy_authz_link *a = arg;

    (void)h2;
    (void)code;
    if (stream == a->stream) {
        a->broken = true;
    }
    return 0;
}

/* The type is nghttp2's. NOLINTBEGIN(readability-function-size) */
static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct proxy_authz_link *a = arg;

    (void)h2;
    (void)frame;
    (void)flags;
    if (sv_eq(sv_of(name, name_n), SV("grpc-status"))) {
        a->stranger = sv_eq(sv_of(value, value_n), SV(UNAUTHENTICATED));
    }
    return 0;
}

/* NOLINTEND(readability-function-size) */

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct proxy_authz_link *a = arg;

    (void)h2;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        a->broken = true;
    }
    return 0;
}

/* The type is nghttp2's. NOLINTBEGIN(readability-non-const-parameter,readability-function-size) */
static ssize_t read_sending(nghttp2_session *h2, int32_t stream, uint8_t *p, size_t room,
                            uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct proxy_authz_link *a = arg;
    size_t n = MIN(room, a->sending.n - a->sending_at);

    (void)h2;
    (void)stream;
    (void)flags;
    (void)source;
    if (n == 0) {
        return NGHTTP2_ERR_DEFERRED;
    }
    memcpy(p, a->sending.p + a->sending_at, n);
    a->sending_at += n;
    return (ssize_t)n;
}

/* NOLINTEND(readability-non-const-parameter,readability-function-size) */

#define FIELD(k, v)                                                       \
    {                                                                     \
        base_unconst(k), base_unconst(v), sizeof(k) - 1, sizeof(v) - 1, 0 \
    }

static void open_stream(struct proxy_authz_link *a)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
    };
    char proof[RPC_PROOF_SIZE];
    nghttp2_nv head[] = { FIELD(":method", "POST"),
                          FIELD(":scheme", "https"),
                          FIELD(":path", "/postern.Authorize/CheckStream"),
                          FIELD(":authority", "authorize.postern.internal"),
                          FIELD("te", "trailers"),
                          FIELD("content-type", "application/grpc"),
                          FIELD("user-agent", "postern-proxy"),
                          { .flags = NGHTTP2_NV_FLAG_NO_INDEX } };
    size_t n = ARRAY_LEN(head) - 1;
    nghttp2_data_provider body = { .read_callback = read_sending };

    if (a->io.ssl == NULL) {
        rpc_proof_make(a->opts.identity, RPC_AUTHORIZE, proof);
        head[n].name = base_unconst("authorization");
        head[n].namelen = strlen("authorization");
        head[n].value = (uint8_t *)proof;
        head[n].valuelen = strlen(proof);
        n++;
    }
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    CHECK(nghttp2_session_client_new(&a->h2, callbacks, a) == 0);
    nghttp2_session_callbacks_del(callbacks);
    CHECK(nghttp2_submit_settings(a->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) == 0);
    CHECK(nghttp2_session_set_local_window_size(a->h2, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0);
    a->stream = nghttp2_submit_request(a->h2, NULL, head, n, &body, NULL);
    CHECK(a->stream > 0);
    secret_wipe(proof, sizeof(proof));
}

/* ---- the link -------------------------------------------------------------------------------- */

void proxy_authz_link_drop(struct proxy_authz_link *link, const char *why)
{
    bool was_up = link->state == LINK_UP;

    if (!link->warned) {
        log_warn("authorize.lost", KV_STR("target", link->target), KV_STR("why", why));
        link->warned = true;
    }
    if (link->readable != NULL) {
        event_free(link->readable);
        event_free(link->writable);
        link->readable = NULL;
        link->writable = NULL;
    }
    link->wants_write = false;
    proxy_io_close(&link->io);
    nghttp2_session_del(link->h2);
    link->h2 = NULL;
    link->proven = false;
    link->stranger = false;
    buf_reset(&link->sending);
    link->sending_at = 0;
    buf_reset(&link->wire);
    link->wire_at = 0;
    buf_reset(&link->in);
    link->silent_since_us = 0;
    proxy_identity_clear(&link->blocks);
    link->broken = false;
    link->state = LINK_DOWN;
    link->retry_ms =
        link->retry_ms == 0 ? RETRY_FIRST_MS : MIN(link->retry_ms * 2, (int64_t)RETRY_MAX_MS);
    link->retry_at_ms =
        clock_mono_ms() + link->retry_ms / 2 + (int64_t)rand_below((uint64_t)link->retry_ms);
    if (was_up) {
        link->opts.on_up(link->opts.arg, false);
    }
}

static void want_write(struct proxy_authz_link *a, bool wanted)
{
    if (wanted != a->wants_write) {
        (void)(wanted ? event_add(a->writable, NULL) : event_del(a->writable));
        a->wants_write = wanted;
    }
}

/* Gives the socket what nghttp2 has, until one of them has enough. False: the link is lost. */
static bool push_wire(struct proxy_authz_link *a)
{
    char scratch[16]; /* one piece only: never joined */

    for (;;) {
        const uint8_t *p = NULL;
        ssize_t got = 0;
        size_t n = 0;
        struct iovec v;
        enum proxy_io_result result = PROXY_IO_FAILED;

        while (a->wire.n - a->wire_at < PROXY_IO_SCRATCH) {
            got = nghttp2_session_mem_send(a->h2, &p);
            if (got <= 0) {
                break;
            }
            buf_add(&a->wire, p, (size_t)got);
        }
        if (got < 0 || a->wire.err != ERR_OK) {
            return false;
        }
        if (a->wire.n == a->wire_at) {
            buf_reset(&a->wire);
            a->wire_at = 0;
            want_write(a, false);
            return true;
        }
        v = (struct iovec){ .iov_base = a->wire.p + a->wire_at, .iov_len = a->wire.n - a->wire_at };
        result = proxy_io_write(&a->io, &v, 1, scratch, &n);
        if (result == PROXY_IO_AGAIN) {
            want_write(a, true);
            return true;
        }
        if (result != PROXY_IO_DONE) {
            return false;
        }
        a->wire_at += n;
    }
}

bool proxy_authz_link_is_up(const struct proxy_authz_link *link)
{
    return link->state == LINK_UP;
}

bool proxy_authz_link_can_send(const struct proxy_authz_link *link)
{
    return link->state == LINK_UP && link->sending_at == link->sending.n &&
           link->wire_at == link->wire.n;
}

int64_t proxy_authz_link_silent_since_us(const struct proxy_authz_link *link)
{
    return link->silent_since_us;
}

int64_t proxy_authz_link_sent_at_us(const struct proxy_authz_link *link)
{
    return link->sent_at_us;
}

void proxy_authz_link_send(struct proxy_authz_link *link, struct sv message)
{
    unsigned char head[FRAME_HEAD] = { 0, (unsigned char)(message.n >> 24U),
                                       (unsigned char)(message.n >> 16U),
                                       (unsigned char)(message.n >> 8U), (unsigned char)message.n };

    CHECK(proxy_authz_link_can_send(link) && message.n <= AUTHZ_MESSAGE_MAX);
    buf_reset(&link->sending);
    link->sending_at = 0;
    buf_add(&link->sending, head, sizeof(head));
    buf_add_sv(&link->sending, message);
    link->sent_at_us = clock_mono_us();
    if (link->silent_since_us == 0) {
        link->silent_since_us = link->sent_at_us;
    }
    (void)nghttp2_session_resume_data(link->h2, link->stream);
    if (!push_wire(link)) {
        proxy_authz_link_drop(link, "write failed");
    }
}

static void link_up(struct proxy_authz_link *a)
{
    open_stream(a);
    if (!push_wire(a)) {
        proxy_authz_link_drop(a, "write failed");
        return;
    }
    a->state = LINK_UP;
    a->opts.on_up(a->opts.arg, true);
    if (a->state == LINK_UP) {
        a->opts.on_changed(a->opts.arg, NULL, 0, true); /* what was told meanwhile was missed */
    }
}

static void pull_wire(struct proxy_authz_link *a)
{
    uint8_t room[16384];
    size_t n = 0;
    bool more = true;
    enum proxy_io_result result = PROXY_IO_DONE;

    while (a->state == LINK_UP && result == PROXY_IO_DONE && more) {
        result = proxy_io_read(&a->io, room, sizeof(room), &n);
        more = proxy_io_pending(&a->io); /* else the next event tells */
        if (result == PROXY_IO_DONE &&
            (nghttp2_session_mem_recv(a->h2, room, n) < 0 || a->broken)) {
            proxy_authz_link_drop(a, a->stranger
                                         ? "it does not know us: is the shared secret the same?"
                                         : "the stream ended");
            return;
        }
    }
    if (result != PROXY_IO_AGAIN && result != PROXY_IO_DONE) {
        proxy_authz_link_drop(a, "the connection ended");
        return;
    }
    take_frames(a);
    if (a->state == LINK_UP && a->broken) {
        proxy_authz_link_drop(a, "an answer made no sense");
        return;
    }
    if (a->state == LINK_UP && !push_wire(a)) {
        proxy_authz_link_drop(a, "write failed");
    }
}

static void go_on_with_handshake(struct proxy_authz_link *a)
{
    enum proxy_io_result result = PROXY_IO_DONE;

    if (a->io.ssl == NULL) {
        want_write(a, false);
        link_up(a);
        return;
    }
    result = proxy_io_handshake(&a->io);
    if (result == PROXY_IO_DONE) {
        const unsigned char *alpn = NULL;
        unsigned n = 0;

        SSL_get0_alpn_selected(a->io.ssl, &alpn, &n);
        if (n != 2 || memcmp(alpn, "h2", 2) != 0) {
            proxy_authz_link_drop(a, "the peer speaks no HTTP/2");
            return;
        }
        want_write(a, false);
        link_up(a);
    } else if (result == PROXY_IO_AGAIN) {
        want_write(a, a->io.want_write);
    } else {
        proxy_authz_link_drop(a, "the TLS handshake failed: is the shared secret the same?");
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_authz_link *a = arg;
    int error = 0;
    socklen_t size = sizeof(error);

    switch (a->state) {
    case LINK_CONNECTING:
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
            proxy_authz_link_drop(a, "nobody listens there");
            return;
        }
        a->state = LINK_HANDSHAKE;
        go_on_with_handshake(a);
        break;
    case LINK_HANDSHAKE:
        go_on_with_handshake(a);
        break;
    case LINK_UP:
        if ((what & EV_WRITE) != 0) {
            if (!push_wire(a)) {
                proxy_authz_link_drop(a, "write failed");
                return;
            }
            a->opts.on_answered(a->opts.arg); /* there may be room for the next message */
        }
        if ((what & EV_READ) != 0 && a->state == LINK_UP) {
            pull_wire(a);
        }
        break;
    case LINK_DOWN:
        break;
    }
}

/* True: on a unix socket there is no TLS. */
static bool is_local(const struct proxy_authz_link *a)
{
    return a->address.at.ss_family == AF_UNIX;
}

static void renew_tls(struct proxy_authz_link *a, int64_t now_ms)
{
    if (a->tls == NULL || now_ms >= a->tls_until_ms) {
        SSL_CTX_free(a->tls);
        a->tls = proxy_dial_ctx(a->opts.identity);
        a->tls_until_ms = now_ms + (int64_t)RPC_CERT_RENEW_S * 1000;
    }
}

static void dial(struct proxy_authz_link *a)
{
    int64_t now = clock_mono_ms();
    struct diag d = { .line = 0 };
    struct event_base *base = loop_base(a->opts.loop);
    int fd = -1;

    a->state = LINK_CONNECTING;
    a->state_until_ms = now + CONNECT_MS;
    if (is_local(a) && rpc_unix_check(rpc_unix_path(sv_from(a->target)), &d) != ERR_OK) {
        proxy_authz_link_drop(a, d.text);
        return;
    }
    fd = proxy_dial(&a->address);
    if (fd < 0) {
        proxy_authz_link_drop(a, "nobody listens there");
        return;
    }
    proxy_io_init(&a->io, fd);
    if (!is_local(a)) {
        renew_tls(a, now);
        a->io.ssl = proxy_dial_tls(a->tls, fd, RPC_AUTHORIZE);
    }
    a->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_socket, a);
    a->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_socket, a);
    CHECK(a->readable != NULL && a->writable != NULL);
    (void)event_add(a->readable, NULL);
    want_write(a, true);
}

void proxy_authz_link_tick(struct proxy_authz_link *link, int64_t now_ms)
{
    if (link->state == LINK_DOWN && now_ms >= link->retry_at_ms) {
        dial(link);
    } else if ((link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE) &&
               now_ms >= link->state_until_ms) {
        proxy_authz_link_drop(link, "connecting took too long");
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

struct proxy_authz_link *proxy_authz_link_new(const struct proxy_authz_link_opts *opts)
{
    struct proxy_authz_link *a = MEM_NEW(struct proxy_authz_link);

    a->opts = *opts;
    a->opts.address = NULL;
    a->address = *opts->address;
    (void)proxy_sockaddr_text(&a->address, a->target);
    proxy_io_init(&a->io, -1);
    buf_init(&a->sending, AUTHZ_MESSAGE_MAX + FRAME_HEAD);
    buf_init(&a->wire, (size_t)AUTHZ_MESSAGE_MAX * 2);
    buf_init(&a->in, (size_t)AUTHZ_MESSAGE_MAX * 2);
    arena_init(&a->arena);
    dial(a);
    return a;
}

void proxy_authz_link_free(struct proxy_authz_link **link)
{
    struct proxy_authz_link *a = TAKE(*link);

    if (a == NULL) {
        return;
    }
    a->warned = true; /* an end in order is no warning */
    a->state = LINK_DOWN;
    proxy_authz_link_drop(a, "stopping");
    buf_deinit(&a->sending);
    buf_deinit(&a->wire);
    buf_deinit(&a->in);
    arena_deinit(&a->arena);
    SSL_CTX_free(a->tls);
    mem_free(&a);
}
