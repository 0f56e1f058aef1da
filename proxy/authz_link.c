#include "proxy/authz_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/job.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/identity.h"

enum {
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MAX_MS = 1000,
    CONNECT_MS = 2000,
    PREFIX = 5, /* gRPC: compressed flag, length */
    MESSAGE_ROOM = AUTHZ_MESSAGE_MAX - 65536,
    STREAM_WINDOW = 4 << 20
};

struct proxy_link {
    struct proxy_link_opts opts;
    enum proxy_link_state state;
    struct proxy_io io;
    struct event *read_event;
    struct event *write_event;
    bool writing;
    bool broken; /* seen inside a callback: take down when it is over */
    nghttp2_session *session;
    int32_t stream;
    SSL_CTX *ctx;
    int64_t ctx_made_ms;
    struct proxy_timer timer; /* back-off, or the connect deadline */
    uint32_t backoff_ms;
    size_t address; /* which of the target's addresses is next */
    struct proxy_blocks pool;
    struct proxy_bytes out; /* towards the socket */
    struct buf gather;      /* the next message, with room for its prefix */
    size_t n_gather;
    struct buf message; /* the one on its way */
    size_t message_off;
    struct buf in; /* gRPC frames */
    struct list sent;
    struct proxy_blocktable blocks;
    struct log_limit log_limit;
};

static void link_connect(struct proxy_link *link);
static void link_down(struct proxy_link *link, const char *why);

bool proxy_link_is_up(const struct proxy_link *link)
{
    return link->state == PROXY_LINK_UP && !link->broken;
}

struct proxy_blocktable *proxy_link_blocks(struct proxy_link *link)
{
    return &link->blocks;
}

struct list *proxy_link_sent(struct proxy_link *link)
{
    return &link->sent;
}

/* --- the message ---------------------------------------------------------------------------------- */

static void gather_reset(struct proxy_link *link)
{
    buf_reset(&link->gather);
    buf_add(&link->gather, "\0\0\0\0\0", PREFIX);
    link->n_gather = 0;
}

enum err proxy_link_add(struct proxy_link *link, struct sv packed)
{
    char head[8] = { 0x0a }; /* CheckBatch.checks, length-delimited */
    size_t n = 1;
    size_t v = packed.n;

    if (link->n_gather >= AUTHZ_BATCH_MAX || link->gather.n + packed.n + 16 > MESSAGE_ROOM) {
        return ERR_LIMIT;
    }
    for (; v >= 0x80; v >>= 7U) {
        head[n++] = (char)(v | 0x80U);
    }
    head[n++] = (char)v;
    buf_add(&link->gather, head, n);
    buf_add_sv(&link->gather, packed);
    link->n_gather++;
    return link->gather.err;
}

static void message_start(struct proxy_link *link)
{
    struct buf swap = link->message;
    uint32_t n = htonl((uint32_t)(link->gather.n - PREFIX));

    link->message = link->gather;
    link->gather = swap;
    link->message_off = 0;
    memcpy(link->message.p + 1, &n, sizeof(n));
    gather_reset(link);
    (void)nghttp2_session_resume_data(link->session, link->stream);
}

static ssize_t on_read_message(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room,
                               uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct proxy_link *link = arg;
    size_t n = MIN(room, link->message.n - link->message_off);

    (void)session;
    (void)stream;
    (void)flags;
    (void)source;
    if (n == 0) {
        return NGHTTP2_ERR_DEFERRED;
    }
    memcpy(out, link->message.p + link->message_off, n);
    link->message_off += n;
    return (ssize_t)n;
}

/* --- the socket ----------------------------------------------------------------------------------- */

static void want_write(struct proxy_link *link, bool want)
{
    if (want == link->writing) {
        return;
    }
    link->writing = want;
    if (want) {
        CHECK(event_add(link->write_event, NULL) == 0);
    } else {
        (void)event_del(link->write_event);
    }
}

static bool socket_write(struct proxy_link *link)
{
    while (proxy_bytes_n(&link->out) > 0) {
        ssize_t n = proxy_io_write(&link->io, link->out.p + link->out.start,
                                   proxy_bytes_n(&link->out));

        if (n == PROXY_IO_AGAIN) {
            /* During the TLS handshake it is the read side that drives on. */
            want_write(link, link->io.ssl == NULL || SSL_want_write(link->io.ssl));
            return true;
        }
        if (n < 0) {
            return false;
        }
        link->out.start += (size_t)n;
    }
    link->out.start = 0;
    link->out.end = 0;
    want_write(link, false);
    return true;
}

static bool session_write(struct proxy_link *link)
{
    for (;;) {
        const uint8_t *p = NULL;
        ssize_t n = 0;

        if (proxy_bytes_n(&link->out) > (size_t)PROXY_BLOCK * 2) {
            return socket_write(link); /* the kernel is full: the rest when it took this */
        }
        n = nghttp2_session_mem_send(link->session, &p);
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            return socket_write(link);
        }
        proxy_bytes_add(&link->pool, &link->out, sv_of(p, (size_t)n));
    }
}

void proxy_link_flush(struct proxy_link *link)
{
    if (!proxy_link_is_up(link)) {
        return;
    }
    if (link->n_gather > 0 && link->message_off == link->message.n &&
        proxy_bytes_n(&link->out) == 0) {
        message_start(link);
    }
    if (!session_write(link)) {
        link_down(link, "write failed");
    }
}

/* --- what comes in -------------------------------------------------------------------------------- */

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *p,
                   size_t n, void *arg)
{
    struct proxy_link *link = arg;

    (void)session;
    (void)flags;
    if (stream == link->stream) {
        buf_add(&link->in, p, n);
    }
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct proxy_link *link = arg;

    (void)session;
    if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0 &&
        link->state == PROXY_LINK_CONNECTING) {
        link->state = PROXY_LINK_UP;
    }
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        link->broken = true;
    }
    if (frame->hd.stream_id == link->stream && frame->hd.stream_id != 0 &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
        (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
        link->broken = true;
    }
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct proxy_link *link = arg;
    struct sv n = sv_of(name, name_n);
    struct sv v = sv_of(value, value_n);

    (void)session;
    (void)frame;
    (void)flags;
    if ((sv_eq(n, SV(":status")) && !sv_eq(v, SV("200"))) || sv_eq(n, SV("grpc-status"))) {
        if (log_limit_pass(&link->log_limit, 1)) {
            log_warn("authorize.stream-ended", KV_SV("what", n), KV_SV("value", v));
        }
        link->broken = true;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t code, void *arg)
{
    struct proxy_link *link = arg;

    (void)session;
    (void)code;
    if (stream == link->stream) {
        link->broken = true;
    }
    return 0;
}

static bool take_messages(struct proxy_link *link)
{
    size_t off = 0;

    if (link->in.err != ERR_OK) {
        return false;
    }
    while (link->in.n - off >= PREFIX && !link->broken) {
        uint32_t n = 0;

        memcpy(&n, link->in.p + off + 1, sizeof(n));
        n = ntohl(n);
        if (link->in.p[off] != 0 || n > AUTHZ_MESSAGE_MAX) {
            return false;
        }
        if (link->in.n - off - PREFIX < n) {
            break;
        }
        if (link->opts.on_message(link->opts.arg, link,
                                  sv_of(link->in.p + off + PREFIX, n)) != ERR_OK) {
            return false;
        }
        off += PREFIX + n;
    }
    buf_drop_front(&link->in, off);
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_link *link = arg;
    bool was_up = link->state == PROXY_LINK_UP;
    uint8_t block[PROXY_BLOCK];
    ssize_t n = 0;

    (void)fd;
    (void)what;
    do {
        n = proxy_io_read(&link->io, block, sizeof(block));
        if (n == PROXY_IO_AGAIN) {
            break;
        }
        if (n <= 0 || nghttp2_session_mem_recv(link->session, block, (size_t)n) < 0 ||
            !take_messages(link) || link->broken) {
            link_down(link, n == 0 ? "closed by authorize" : "read failed or broken stream");
            return;
        }
    } while (n == (ssize_t)sizeof(block) || proxy_io_pending(&link->io));
    if (!was_up && link->state == PROXY_LINK_UP) {
        proxy_timer_clear(&link->timer);
        link->backoff_ms = BACKOFF_FIRST_MS;
        link->opts.on_state(link->opts.arg, link, true);
    }
    if (!session_write(link)) {
        link_down(link, "write failed");
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_link *link = arg;

    (void)fd;
    (void)what;
    if (!session_write(link)) {
        link_down(link, "connect or write failed");
    }
}

/* --- up and down ---------------------------------------------------------------------------------- */

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
                         .value = (uint8_t *)(uintptr_t)value,
                         .namelen = strlen(name),
                         .valuelen = strlen(value) };
}

static bool session_start(struct proxy_link *link)
{
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
    };
    const nghttp2_nv headers[] = {
        header(":method", "POST"),
        header(":scheme", link->opts.insecure ? "http" : "https"),
        header(":path", "/postern.Authorize/CheckStream"),
        header(":authority", "authorize.postern.internal"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    };
    const nghttp2_data_provider data = { .read_callback = on_read_message };
    nghttp2_session_callbacks *cb = NULL;
    int r = nghttp2_session_callbacks_new(&cb);

    CHECK(r == 0);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    r = nghttp2_session_client_new(&link->session, cb, link);
    nghttp2_session_callbacks_del(cb);
    CHECK(r == 0);
    if (nghttp2_submit_settings(link->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) !=
            0 ||
        nghttp2_session_set_local_window_size(link->session, NGHTTP2_FLAG_NONE, 0, STREAM_WINDOW) !=
            0) {
        return false;
    }
    link->stream = nghttp2_submit_request(link->session, NULL, headers, ARRAY_LEN(headers), &data,
                                          NULL);
    return link->stream > 0;
}

static int connect_unix(struct sv path)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    int fd = -1;

    if (path.n >= sizeof(sun.sun_path)) {
        return -1;
    }
    memcpy(sun.sun_path, path.p, path.n);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0 && errno != EINPROGRESS) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void tune(int fd)
{
    const int on = 1;
    const int idle = 5;
    const int between = 2;
    const int gone_ms = 10000;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof(between));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone_ms, sizeof(gone_ms));
}

/* Names of internal services resolve from the hosts file or a near resolver; the answer is asked for
 * at each connect, so that a service that moved is found again. */
static int connect_tcp(struct proxy_link *link)
{
    const struct config_target *t = link->opts.target;
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *all = NULL;
    struct addrinfo *a = NULL;
    char port[8];
    size_t n = 0;
    int fd = -1;
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, sizeof(port));
    buf_add_u64(&text, t->port);
    memcpy(port, buf_cstr(&text), text.n + 1);
    if (getaddrinfo(t->host.p, port, &hints, &all) != 0) {
        return -1;
    }
    for (a = all; a != NULL; a = a->ai_next) {
        n++;
    }
    n = link->address++ % n;
    for (a = all; n > 0; n--) {
        a = a->ai_next;
    }
    fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        tune(fd);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    return fd;
}

static bool tls_start(struct proxy_link *link)
{
    int64_t now = clock_mono_ms();

    if (link->ctx == NULL || now - link->ctx_made_ms > (int64_t)RPC_CERT_RENEW_S * 1000) {
        SSL_CTX_free(link->ctx);
        link->ctx = rpc_identity_client_ctx(link->opts.identity);
        link->ctx_made_ms = now;
    }
    link->io.ssl = SSL_new(link->ctx);
    if (link->io.ssl == NULL || SSL_set_fd(link->io.ssl, link->io.fd) != 1) {
        return false;
    }
    SSL_set_mode(link->io.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_set_read_ahead(link->io.ssl, 1);
    rpc_identity_expect(link->io.ssl, RPC_AUTHORIZE);
    SSL_set_connect_state(link->io.ssl);
    return true;
}

static void link_connect(struct proxy_link *link)
{
    const struct config_target *t = link->opts.target;
    struct event_base *base = loop_base(link->opts.loop);

    link->state = PROXY_LINK_CONNECTING;
    link->broken = false;
    link->io = (struct proxy_io){ .fd = t->is_unix ? connect_unix(t->socket) : connect_tcp(link) };
    if (link->io.fd < 0 || (!link->opts.insecure && !tls_start(link)) || !session_start(link)) {
        link_down(link, "cannot connect");
        return;
    }
    CHECK(event_assign(link->read_event, base, link->io.fd, EV_READ | EV_PERSIST, on_readable,
                       link) == 0);
    CHECK(event_assign(link->write_event, base, link->io.fd, EV_WRITE | EV_PERSIST, on_writable,
                       link) == 0);
    CHECK(event_add(link->read_event, NULL) == 0);
    link->writing = false;
    want_write(link, true); /* tells when it is connected */
    proxy_timer_set(link->opts.wheel, &link->timer, clock_mono_ms() + CONNECT_MS);
}

static void link_reset(struct proxy_link *link)
{
    (void)event_del(link->read_event);
    (void)event_del(link->write_event);
    proxy_timer_clear(&link->timer);
    proxy_io_close(&link->io);
    nghttp2_session_del(link->session);
    link->session = NULL;
    link->stream = 0;
    proxy_bytes_drop(&link->pool, &link->out);
    gather_reset(link);
    buf_reset(&link->message);
    link->message_off = 0;
    buf_reset(&link->in);
    proxy_blocktable_clear(&link->blocks);
}

static void link_down(struct proxy_link *link, const char *why)
{
    uint32_t wait = link->backoff_ms / 2 + (uint32_t)rand_below(link->backoff_ms / 2 + 1);

    if (log_limit_pass(&link->log_limit, 1)) {
        log_warn("authorize.stream-down", KV_SV("target", link->opts.target->text),
                 KV_STR("why", why), KV_U64("retry-in-ms", wait));
    }
    link_reset(link);
    link->state = PROXY_LINK_DOWN;
    link->broken = false;
    link->backoff_ms = MIN(link->backoff_ms * 2, (uint32_t)BACKOFF_MAX_MS);
    proxy_timer_set(link->opts.wheel, &link->timer, clock_mono_ms() + wait);
    link->opts.on_state(link->opts.arg, link, false);
}

static void on_timer(struct proxy_timer *timer)
{
    struct proxy_link *link = CONTAINER_OF(timer, struct proxy_link, timer);

    if (link->state == PROXY_LINK_DOWN) {
        link_connect(link);
    } else {
        link_down(link, "no answer in time");
    }
}

struct proxy_link *proxy_link_new(const struct proxy_link_opts *opts)
{
    struct proxy_link *link = MEM_NEW(struct proxy_link);

    link->opts = *opts;
    link->io.fd = -1;
    link->backoff_ms = BACKOFF_FIRST_MS;
    list_init(&link->sent);
    link->read_event = event_new(loop_base(opts->loop), -1, 0, on_readable, link);
    link->write_event = event_new(loop_base(opts->loop), -1, 0, on_writable, link);
    CHECK(link->read_event != NULL && link->write_event != NULL);
    buf_init(&link->gather, AUTHZ_MESSAGE_MAX);
    buf_init(&link->message, AUTHZ_MESSAGE_MAX);
    buf_init(&link->in, (size_t)AUTHZ_MESSAGE_MAX * 4);
    gather_reset(link);
    proxy_timer_init(&link->timer, on_timer);
    proxy_timer_set(opts->wheel, &link->timer, 0); /* connects with the first tick */
    return link;
}

void proxy_link_free(struct proxy_link **link)
{
    struct proxy_link *l = TAKE(*link);

    if (l == NULL) {
        return;
    }
    link_reset(l);
    event_free(l->read_event);
    event_free(l->write_event);
    SSL_CTX_free(l->ctx);
    mem_free(&l->blocks.slots);
    buf_deinit(&l->gather);
    buf_deinit(&l->message);
    buf_deinit(&l->in);
    proxy_blocks_deinit(&l->pool);
    mem_free(&l);
}
