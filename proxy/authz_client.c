#include "proxy/authz_client.h"

#include <string.h>
#include <sys/socket.h>

#include <nghttp2/nghttp2.h>

#include "common/arena.h"
#include "common/authz_block.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/scan.h"
#include "common/rpc/wire.h"
#include "proxy/authz_wire.h"
#include "proxy/dial.h"
#include "proxy/io.h"

enum {
    OPEN_MAX = 8192, /* checks that wait for an answer */
    PENDING_MAX = 8 * 1024 * 1024,
    WINDOW = 1024 * 1024,
    MESSAGE_MAX = AUTHZ_MESSAGE_MAX - 65536
};

enum {
    FRAME_HEAD = 5,
    RETRY_FIRST_MS = 50,
    RETRY_MAX_MS = 1000,
    TICK_MS = 50,
    CONNECT_MS = 3000,
    HOLD_US = 2000
};

/*   DOWN --connect--> CONNECTING --> HANDSHAKE --> UP --any fault--> DOWN (again after a pause) */
enum link_state { LINK_DOWN = 0, LINK_CONNECTING, LINK_HANDSHAKE, LINK_UP };

struct slot {
    uint32_t generation; /* in the id: a late answer to an older check is dropped */
    bool used;
    bool sent; /* on the current stream */
    int64_t deadline_ms;
    proxy_answer_fn fn;
    void *arg;
    struct buf packed; /* the check, to be sent again on another stream */
    uint32_t next_free;
    uint32_t older; /* in the order of deadlines */
    uint32_t newer;
};

enum { NONE = UINT32_MAX };

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): by meaning, not by size */
struct proxy_authz {
    struct proxy_authz_opts opts;
    char *target;
    SSL_CTX *tls;
    int64_t tls_until_ms;
    enum link_state state;
    int64_t state_until_ms; /* connect and handshake end by then */
    int64_t retry_at_ms;
    int64_t retry_ms;
    struct proxy_io io;
    struct event *readable;
    struct event *writable;
    struct event *tick;
    struct event *hold;
    bool unanswered; /* nothing came back since the last message left */
    int64_t hold_until_us;
    nghttp2_session *h2;
    int32_t stream;
    struct buf pending; /* entries of the next CheckBatches */
    size_t pending_checks;
    bool proven;        /* this stream has given an answer */
    struct buf sending; /* the message that nghttp2 takes from */
    size_t sending_at;
    struct buf wire; /* what the socket has not taken yet */
    size_t wire_at;
    struct buf in; /* gRPC frames not complete yet */
    struct arena arena;
    struct slot *slots;
    uint32_t n_slots;
    uint32_t n_open;
    uint32_t free_slot;
    uint32_t oldest;
    uint32_t newest;

    struct proxy_identity_table blocks;

    bool broken; /* set within callbacks: the link is dropped when they are over */
    bool warned;
};

/* ---- open checks ----------------------------------------------------------------------------- */

static void slot_unlink(struct proxy_authz *a, uint32_t i)
{
    struct slot *s = &a->slots[i];

    if (s->older != NONE) {
        a->slots[s->older].newer = s->newer;
    } else {
        a->oldest = s->newer;
    }
    if (s->newer != NONE) {
        a->slots[s->newer].older = s->older;
    } else {
        a->newest = s->older;
    }
}

static void slot_release(struct proxy_authz *a, uint32_t i)
{
    struct slot *s = &a->slots[i];

    slot_unlink(a, i);
    s->used = false;
    s->fn = NULL;
    s->next_free = a->free_slot;
    a->free_slot = i;
    a->n_open--;
}

static uint32_t slot_take(struct proxy_authz *a)
{
    uint32_t i = a->free_slot;
    struct slot *s = NULL;

    if (i == NONE) {
        if (a->n_slots == OPEN_MAX) {
            return NONE;
        }
        i = a->n_slots;
        if (i % 64 == 0) {
            a->slots = mem_realloc(a->slots, i + 64, sizeof(*a->slots));
        }
        a->n_slots++;
        a->slots[i] = (struct slot){ .generation = 1 };
        buf_init(&a->slots[i].packed, AUTHZ_MESSAGE_MAX);
    } else {
        a->free_slot = a->slots[i].next_free;
    }
    s = &a->slots[i];
    s->generation++;
    s->used = true;
    s->sent = false;
    s->older = a->newest;
    s->newer = NONE;
    if (a->newest != NONE) {
        a->slots[a->newest].newer = i;
    } else {
        a->oldest = i;
    }
    a->newest = i;
    a->n_open++;
    return i;
}

static uint64_t slot_id(const struct proxy_authz *a, uint32_t i)
{
    return (uint64_t)a->slots[i].generation << 32U | i;
}

static struct slot *slot_of(struct proxy_authz *a, uint64_t id)
{
    uint32_t i = (uint32_t)(id & UINT32_MAX);

    if (i >= a->n_slots || !a->slots[i].used || a->slots[i].generation != id >> 32U) {
        return NULL;
    }
    return &a->slots[i];
}

static void slot_answer(struct proxy_authz *a, struct slot *s, const struct proxy_answer *answer)
{
    proxy_answer_fn fn = s->fn;
    void *arg = s->arg;

    slot_release(a, (uint32_t)(s - a->slots));
    fn(arg, answer);
}

static void expire(struct proxy_authz *a)
{
    static const struct proxy_answer nobody = { .verdict = PROXY_VERDICT_NONE };
    int64_t now = clock_mono_ms();

    while (a->oldest != NONE && a->slots[a->oldest].deadline_ms <= now) {
        slot_answer(a, &a->slots[a->oldest], &nobody);
    }
}

/* One entry of CheckBatch.checks. */
static void queue_check(struct proxy_authz *a, struct slot *s)
{
    enum { FIELD_CHECKS = 1 };

    a->pending_checks++;
    rpc_wire_add_head(&a->pending, FIELD_CHECKS, s->packed.n);
    buf_add_sv(&a->pending, buf_sv(&s->packed));
    s->sent = true;
}

uint64_t proxy_authz_check(struct proxy_authz *authz, Postern__CheckRequest *check,
                           proxy_answer_fn fn, void *arg)
{
    uint32_t i = slot_take(authz);
    struct slot *s = NULL;

    if (i == NONE) {
        return 0;
    }
    s = &authz->slots[i];
    check->id = slot_id(authz, i);
    s->fn = fn;
    s->arg = arg;
    s->deadline_ms = clock_mono_ms() + authz->opts.timeout_ms;
    buf_reset(&s->packed);
    proxy_authz_wire_check(&s->packed, check);
    if (s->packed.err != ERR_OK || authz->pending.n + s->packed.n + 16 > PENDING_MAX) {
        slot_release(authz, i);
        return 0;
    }
    if (authz->state == LINK_UP) {
        queue_check(authz, s);
        loop_gather(authz->opts.loop);
    }
    return check->id;
}

void proxy_authz_cancel(struct proxy_authz *authz, uint64_t handle)
{
    struct slot *s = slot_of(authz, handle);

    if (s != NULL) {
        slot_release(authz, (uint32_t)(s - authz->slots));
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void take_reply(struct proxy_authz *a, struct sv bytes)
{
    static const enum proxy_verdict verdicts[] = {
        [POSTERN__DECISION__DENY] = PROXY_VERDICT_DENY,
        [POSTERN__DECISION__ALLOW] = PROXY_VERDICT_ALLOW,
        [POSTERN__DECISION__LOGIN] = PROXY_VERDICT_LOGIN,
        [POSTERN__DECISION__UNAVAILABLE] = PROXY_VERDICT_UNAVAILABLE,
    };
    struct proxy_authz_reply reply;
    struct slot *s = NULL;
    struct proxy_answer answer = { .verdict = PROXY_VERDICT_NONE };

    if (proxy_authz_wire_reply(bytes, &reply) != ERR_OK) {
        a->broken = true;
        return;
    }
    s = slot_of(a, reply.id);
    if (s == NULL) {
        return; /* cancelled or too late */
    }
    if (reply.decision < ARRAY_LEN(verdicts)) {
        answer.verdict = verdicts[reply.decision];
    }
    answer.status = reply.status >= 400 && reply.status <= 599 ? (unsigned)reply.status : 0;
    answer.reasons = reply.reasons;
    answer.n_reasons = reply.n_reasons;
    answer.valid_until_s = reply.valid_until_s;
    answer.user = reply.user;
    answer.email = reply.email;
    if (answer.verdict == PROXY_VERDICT_ALLOW && reply.block != 0) {
        answer.identity = proxy_identity_get(&a->blocks, reply.block);
        if (answer.identity == NULL) {
            a->broken = true; /* an identity that is not there must not become another one */
            answer.verdict = PROXY_VERDICT_NONE;
        }
    }
    slot_answer(a, s, &answer);
}

static void take_block(struct proxy_authz *a, struct sv bytes)
{
    ProtobufCMessage *m = NULL;

    a->broken = rpc_unpack(&postern__identity_block__descriptor, bytes, &a->arena, &m) != ERR_OK ||
                !proxy_identity_put(&a->blocks, (const Postern__IdentityBlock *)(const void *)m);
}

static void take_changed(struct proxy_authz *a, struct sv bytes)
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
static void take_item(struct proxy_authz *a, struct sv bytes)
{
    static void (*const takers[])(struct proxy_authz * a, struct sv bytes) = {
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

static void take_message(struct proxy_authz *a, struct sv bytes)
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

static void take_frames(struct proxy_authz *a)
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
        a->unanswered = false;
        take_message(a, sv_of(p + FRAME_HEAD, n));
        at += FRAME_HEAD + n;
    }
    buf_drop_front(&a->in, at);
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *p, size_t n,
                   void *arg)
{
    struct proxy_authz *a = arg;

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
    struct proxy_authz *a = arg;

    (void)h2;
    (void)code;
    if (stream == a->stream) {
        a->broken = true;
    }
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct proxy_authz *a = arg;

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
    struct proxy_authz *a = arg;
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

static void open_stream(struct proxy_authz *a)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
    };
    nghttp2_nv head[] = { FIELD(":method", "POST"),
                          FIELD(":scheme", "https"),
                          FIELD(":path", "/postern.Authorize/CheckStream"),
                          FIELD(":authority", "authorize.postern.internal"),
                          FIELD("te", "trailers"),
                          FIELD("content-type", "application/grpc"),
                          FIELD("user-agent", "postern-proxy") };
    nghttp2_data_provider body = { .read_callback = read_sending };

    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    CHECK(nghttp2_session_client_new(&a->h2, callbacks, a) == 0);
    nghttp2_session_callbacks_del(callbacks);
    CHECK(nghttp2_submit_settings(a->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) == 0);
    CHECK(nghttp2_session_set_local_window_size(a->h2, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0);
    a->stream = nghttp2_submit_request(a->h2, NULL, head, ARRAY_LEN(head), &body, NULL);
    CHECK(a->stream > 0);
}

/* ---- the link -------------------------------------------------------------------------------- */

static void link_drop(struct proxy_authz *a, const char *why)
{
    if (a->state == LINK_UP) {
        a->opts.on_link(a->opts.arg, false);
    }
    if (!a->warned) {
        log_warn("authorize.lost", KV_STR("target", a->target), KV_STR("why", why));
        a->warned = true;
    }
    if (a->readable != NULL) {
        event_free(a->readable);
        event_free(a->writable);
        a->readable = NULL;
        a->writable = NULL;
    }
    proxy_io_close(&a->io);
    nghttp2_session_del(a->h2);
    a->h2 = NULL;
    buf_reset(&a->pending);
    a->pending_checks = 0;
    a->proven = false;
    buf_reset(&a->sending);
    a->sending_at = 0;
    buf_reset(&a->wire);
    a->wire_at = 0;
    buf_reset(&a->in);
    a->unanswered = false;
    proxy_identity_clear(&a->blocks);
    a->broken = false;
    a->state = LINK_DOWN;
    a->retry_ms = a->retry_ms == 0 ? RETRY_FIRST_MS : MIN(a->retry_ms * 2, (int64_t)RETRY_MAX_MS);
    a->retry_at_ms = clock_mono_ms() + a->retry_ms / 2 + (int64_t)rand_below((uint64_t)a->retry_ms);
}

static void want_write(struct proxy_authz *a, bool wanted)
{
    if (wanted) {
        (void)event_add(a->writable, NULL);
    } else {
        (void)event_del(a->writable);
    }
}

/* Gives the socket what nghttp2 has, until one of them has enough. False: the link is lost. */
static bool push_wire(struct proxy_authz *a)
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

/* Bytes of the entries that fit into one message; authorize ends the stream over a bigger one. */
static size_t batch_size(struct proxy_authz *a)
{
    size_t at = 0;
    size_t checks = 0;

    if (a->pending.n <= MESSAGE_MAX && a->pending_checks <= AUTHZ_BATCH_MAX) {
        a->pending_checks = 0;
        return a->pending.n;
    }
    while (at < a->pending.n && checks < AUTHZ_BATCH_MAX) {
        size_t next = at + 1; /* behind the tag */
        size_t n = 0;
        unsigned shift = 0;
        unsigned char c = 0;

        do {
            c = (unsigned char)a->pending.p[next++];
            n |= (size_t)(c & 0x7fU) << shift;
            shift += 7;
        } while ((c & 0x80U) != 0);
        if (next + n > MESSAGE_MAX && at != 0) {
            break;
        }
        at = next + n;
        checks++;
    }
    a->pending_checks -= checks;
    return at;
}

/* What waits becomes one message, unless one is still on its way. */
static void send_pending(struct proxy_authz *a)
{
    static const struct timeval hold = { .tv_usec = HOLD_US };
    size_t n = a->pending.n;

    if (n == 0 || a->sending_at < a->sending.n || a->wire_at < a->wire.n) {
        return;
    }
    if (a->unanswered && clock_mono_us() < a->hold_until_us) {
        (void)event_add(a->hold, &hold); /* rarely fires: an answer comes first */
        return;
    }
    a->unanswered = true;
    a->hold_until_us = clock_mono_us() + HOLD_US;
    n = batch_size(a);
    buf_reset(&a->sending);
    a->sending_at = 0;
    buf_add_char(&a->sending, 0);
    buf_add_char(&a->sending, (char)(n >> 24U));
    buf_add_char(&a->sending, (char)(n >> 16U));
    buf_add_char(&a->sending, (char)(n >> 8U));
    buf_add_char(&a->sending, (char)n);
    buf_add_sv(&a->sending, sv_head(buf_sv(&a->pending), n));
    buf_drop_front(&a->pending, n);
    (void)nghttp2_session_resume_data(a->h2, a->stream);
}

void proxy_authz_flush(struct proxy_authz *authz)
{
    if (authz->state == LINK_UP && authz->pending.n != 0) {
        send_pending(authz);
        if (!push_wire(authz)) {
            link_drop(authz, "write failed");
        }
    }
}

static void link_up(struct proxy_authz *a)
{
    uint32_t i = 0;

    open_stream(a);
    a->state = LINK_UP;
    for (i = a->oldest; i != NONE; i = a->slots[i].newer) {
        queue_check(a, &a->slots[i]);
    }
    send_pending(a);
    if (!push_wire(a)) {
        link_drop(a, "write failed");
        return;
    }
    a->opts.on_link(a->opts.arg, true);
    a->opts.on_changed(a->opts.arg, NULL, 0, true); /* what was told meanwhile was missed */
}

static void pull_wire(struct proxy_authz *a)
{
    uint8_t room[16384];
    size_t n = 0;
    enum proxy_io_result result = PROXY_IO_DONE;

    while (a->state == LINK_UP && result == PROXY_IO_DONE) {
        result = proxy_io_read(&a->io, room, sizeof(room), &n);
        if (result == PROXY_IO_DONE &&
            (nghttp2_session_mem_recv(a->h2, room, n) < 0 || a->broken)) {
            link_drop(a, "the stream ended");
            return;
        }
    }
    if (result != PROXY_IO_AGAIN) {
        link_drop(a, "the connection ended");
        return;
    }
    take_frames(a);
    if (a->broken) {
        link_drop(a, "an answer made no sense");
        return;
    }
    if (!push_wire(a)) {
        link_drop(a, "write failed");
        return;
    }
    if (a->pending.n != 0) {
        loop_gather(a->opts.loop); /* what waited for the answer */
    }
}

static void go_on_with_handshake(struct proxy_authz *a)
{
    enum proxy_io_result result = proxy_io_handshake(&a->io);

    if (result == PROXY_IO_DONE) {
        const unsigned char *alpn = NULL;
        unsigned n = 0;

        SSL_get0_alpn_selected(a->io.ssl, &alpn, &n);
        if (n != 2 || memcmp(alpn, "h2", 2) != 0) {
            link_drop(a, "the peer speaks no HTTP/2");
            return;
        }
        want_write(a, false);
        link_up(a);
    } else if (result == PROXY_IO_AGAIN) {
        want_write(a, a->io.want_write);
    } else {
        link_drop(a, "the TLS handshake failed: is the shared secret the same?");
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_authz *a = arg;
    int error = 0;
    socklen_t size = sizeof(error);

    switch (a->state) {
    case LINK_CONNECTING:
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
            link_drop(a, "nobody listens there");
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
            send_pending(a);
            if (!push_wire(a)) {
                link_drop(a, "write failed");
                return;
            }
        }
        if ((what & EV_READ) != 0) {
            pull_wire(a);
        }
        break;
    case LINK_DOWN:
        break;
    }
}

static void dial(struct proxy_authz *a)
{
    int64_t now = clock_mono_ms();
    int fd = proxy_dial(a->target);
    struct event_base *base = loop_base(a->opts.loop);

    if (a->tls == NULL || now >= a->tls_until_ms) {
        SSL_CTX_free(a->tls);
        a->tls = proxy_dial_ctx(a->opts.identity);
        a->tls_until_ms = now + (int64_t)RPC_CERT_RENEW_S * 1000;
    }
    proxy_io_init(&a->io, fd);
    a->state = LINK_CONNECTING;
    a->state_until_ms = now + CONNECT_MS;
    if (fd < 0) {
        link_drop(a, "nobody listens there");
        return;
    }
    a->io.ssl = proxy_dial_tls(a->tls, fd, RPC_AUTHORIZE);
    a->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_socket, a);
    a->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_socket, a);
    CHECK(a->readable != NULL && a->writable != NULL);
    (void)event_add(a->readable, NULL);
    want_write(a, true);
}

static void on_hold(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    proxy_authz_flush(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_authz *a = arg;
    int64_t now = clock_mono_ms();

    (void)fd;
    (void)what;
    expire(a);
    if (a->state == LINK_DOWN && now >= a->retry_at_ms) {
        dial(a);
    } else if ((a->state == LINK_CONNECTING || a->state == LINK_HANDSHAKE) &&
               now >= a->state_until_ms) {
        link_drop(a, "connecting took too long");
    }
}

struct proxy_authz *proxy_authz_new(const struct proxy_authz_opts *opts)
{
    struct proxy_authz *a = MEM_NEW(struct proxy_authz);
    struct timeval tick = { .tv_usec = TICK_MS * INT64_C(1000) };

    a->opts = *opts;
    a->target = mem_strdup(opts->target);
    a->free_slot = NONE;
    a->oldest = NONE;
    a->newest = NONE;
    proxy_io_init(&a->io, -1);
    buf_init(&a->pending, PENDING_MAX);
    buf_init(&a->sending, PENDING_MAX + FRAME_HEAD);
    buf_init(&a->wire, (size_t)PENDING_MAX * 2);
    buf_init(&a->in, (size_t)AUTHZ_MESSAGE_MAX * 2);
    arena_init(&a->arena);
    a->tick = event_new(loop_base(opts->loop), -1, EV_PERSIST, on_tick, a);
    a->hold = event_new(loop_base(opts->loop), -1, 0, on_hold, a);
    CHECK(a->hold != NULL && a->tick != NULL && event_add(a->tick, &tick) == 0);
    dial(a);
    return a;
}

void proxy_authz_free(struct proxy_authz **authz)
{
    struct proxy_authz *a = TAKE(*authz);
    uint32_t i = 0;

    if (a == NULL) {
        return;
    }
    a->warned = true;
    a->state = a->state == LINK_UP ? LINK_HANDSHAKE : a->state; /* an end in order is no warning */
    link_drop(a, "stopping");
    event_free(a->tick);
    event_free(a->hold);
    for (i = 0; i < a->n_slots; i++) {
        buf_deinit(&a->slots[i].packed);
    }
    mem_free(&a->slots);
    buf_deinit(&a->pending);
    buf_deinit(&a->sending);
    buf_deinit(&a->wire);
    buf_deinit(&a->in);
    arena_deinit(&a->arena);
    SSL_CTX_free(a->tls);
    mem_free(&a->target);
    mem_free(&a);
}
