#include "proxy/authz_link.h"

#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "common/arena.h"
#include "common/authz_block.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/duplex.h"
#include "common/rpc/proof.h"
#include "common/rpc/scan.h"
#include "common/rpc/wire.h"
#include "common/secret.h"
#include "proxy/io.h"

enum {
    RETRY_FIRST_MS = 50,
    RETRY_MAX_MS = 1000,
    CONNECT_MS = 3000,
    PING_MS = 6000, /* gRPC core takes more than one in 5 s for an attack */
    PONG_MS = 5000
};

enum link_state { LINK_DOWN = 0, LINK_CONNECTING, LINK_HANDSHAKE, LINK_UP };

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
    bool ended;              /* unix socket: authorize has said its last */
    int64_t silent_since_us; /* 0: nothing is unanswered */
    int64_t sent_at_us;
    int64_t heard_ms;
    int64_t pinged_ms;         /* and nothing was heard since; 0: no ping is on its way */
    struct rpc_duplex *duplex; /* UP: there is one */
    bool proven;               /* this stream has given an answer */
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

static void take_messages(struct proxy_authz_link *a)
{
    struct sv message;
    enum err err = ERR_OK;
    bool any = false;

    while (!a->broken) {
        err = rpc_duplex_next(a->duplex, &message);
        if (err != ERR_OK) {
            break;
        }
        any = true;
        a->silent_since_us = 0;
        take_message(a, message);
    }
    a->broken = a->broken || err != ERR_AGAIN;
    if (any) {
        a->opts.on_answered(a->opts.arg);
    }
}

static void open_stream(struct proxy_authz_link *a)
{
    char proof[RPC_PROOF_SIZE] = "";

    if (a->io.ssl == NULL) {
        rpc_proof_make(a->opts.identity, RPC_AUTHORIZE, proof);
    }
    a->duplex = rpc_duplex_client_new(AUTHZ_MESSAGE_MAX, "/postern.Authorize/CheckStream",
                                      "authorize.postern.internal", sv_from(proof));
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
    link->ended = false;
    proxy_io_close(&link->io);
    rpc_duplex_free(&link->duplex);
    link->proven = false;
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
        struct sv bytes = { 0 };
        struct iovec v;
        size_t n = 0;
        enum proxy_io_result result = PROXY_IO_FAILED;

        if (rpc_duplex_out(a->duplex, &bytes) != ERR_OK) {
            return false;
        }
        if (bytes.n == 0) {
            want_write(a, false);
            return true;
        }
        v = (struct iovec){ .iov_base = base_unconst(bytes.p), .iov_len = bytes.n };
        result = proxy_io_write(&a->io, &v, 1, scratch, &n);
        if (result == PROXY_IO_AGAIN) {
            want_write(a, true);
            return true;
        }
        if (result != PROXY_IO_DONE) {
            return false;
        }
        rpc_duplex_wrote(a->duplex, n);
    }
}

bool proxy_authz_link_is_up(const struct proxy_authz_link *link)
{
    return link->state == LINK_UP;
}

bool proxy_authz_link_can_send(const struct proxy_authz_link *link)
{
    return link->state == LINK_UP && rpc_duplex_can_send(link->duplex);
}

int64_t proxy_authz_link_silent_since_us(const struct proxy_authz_link *link)
{
    return link->silent_since_us;
}

int64_t proxy_authz_link_heard_ms(const struct proxy_authz_link *link)
{
    return link->heard_ms;
}

int64_t proxy_authz_link_sent_at_us(const struct proxy_authz_link *link)
{
    return link->sent_at_us;
}

void proxy_authz_link_send(struct proxy_authz_link *link, struct sv message)
{
    CHECK(proxy_authz_link_can_send(link));
    rpc_duplex_send(link->duplex, message);
    link->sent_at_us = clock_mono_us();
    if (link->silent_since_us == 0) {
        link->silent_since_us = link->sent_at_us;
    }
    if (!push_wire(link)) {
        proxy_authz_link_drop(link, "write failed");
    }
}

static void heard(struct proxy_authz_link *a)
{
    a->heard_ms = clock_coarse_ms();
    a->pinged_ms = 0;
}

static void link_up(struct proxy_authz_link *a)
{
    open_stream(a);
    if (!push_wire(a)) {
        proxy_authz_link_drop(a, "write failed");
        return;
    }
    a->state = LINK_UP;
    heard(a);
    a->opts.on_up(a->opts.arg, true);
    if (a->state == LINK_UP) {
        a->opts.on_changed(a->opts.arg, NULL, 0, true); /* what was told meanwhile was missed */
    }
}

/* True: on a unix socket there is no TLS. */
static bool is_local(const struct proxy_authz_link *a)
{
    return a->address.at.ss_family == AF_UNIX;
}

static void pull_wire(struct proxy_authz_link *a)
{
    uint8_t room[16384];
    size_t n = 0;
    bool more = true;
    enum proxy_io_result result = PROXY_IO_DONE;

    while (a->state == LINK_UP && result == PROXY_IO_DONE && more) {
        result = proxy_io_read(&a->io, room, sizeof(room), &n);
        if (result == PROXY_IO_DONE) {
            heard(a);
        }
        more = proxy_io_pending(&a->io); /* else the next event tells */
        if (result == PROXY_IO_DONE && (rpc_duplex_feed(a->duplex, sv_of(room, n)) != ERR_OK ||
                                        rpc_duplex_is_over(a->duplex))) {
            proxy_authz_link_drop(a, rpc_duplex_status(a->duplex) == RPC_UNAUTHENTICATED
                                         ? "it does not know us: is the shared secret the same?"
                                         : "the stream ended");
            return;
        }
    }
    if (result != PROXY_IO_AGAIN && result != PROXY_IO_DONE) {
        proxy_authz_link_drop(a, "the connection ended");
        return;
    }
    take_messages(a);
    if (a->state == LINK_UP && a->broken) {
        proxy_authz_link_drop(a, "an answer made no sense");
        return;
    }
    if (a->state == LINK_UP && !push_wire(a)) {
        proxy_authz_link_drop(a, "write failed");
    }
    /* Edge-triggered (dial): nothing else tells of what is left. */
    if (a->state == LINK_UP && is_local(a) && (a->ended || n == sizeof(room))) {
        loop_raise(a->opts.loop, a->readable);
    }
}

void proxy_authz_link_look(struct proxy_authz_link *link)
{
    if (link->state == LINK_UP) {
        pull_wire(link);
    }
}

static void go_on_with_handshake(struct proxy_authz_link *a)
{
    enum proxy_io_result result = PROXY_IO_DONE;

    if (a->io.ssl == NULL) {
        want_write(a, false);
        link_up(a);
        if (a->state == LINK_UP) {
            pull_wire(a); /* what came before was told of already */
        }
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

    a->ended = a->ended || (what & EV_CLOSED) != 0;
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
        if ((what & (EV_READ | EV_CLOSED)) != 0 && a->state == LINK_UP) {
            pull_wire(a);
        }
        break;
    case LINK_DOWN:
        break;
    }
}

static void renew_tls(struct proxy_authz_link *a, int64_t now_ms)
{
    if (a->tls == NULL || now_ms >= a->tls_until_ms) {
        SSL_CTX_free(a->tls);
        a->tls = proxy_dial_ctx(a->opts.identity);
        a->tls_until_ms = now_ms + (int64_t)RPC_CERT_RENEW_S * 1000;
    }
}

/* To the socket that is served without gRPC core; -1: there is none. */
static int dial_direct(const struct proxy_authz_link *a)
{
    char path[RPC_UNIX_PATH_SIZE];
    struct diag d = { .line = 0 };
    struct proxy_sockaddr address;

    if (!rpc_direct_path(rpc_unix_path(sv_from(a->target)), path) ||
        rpc_unix_check(sv_from(path), &d) != ERR_OK) {
        return -1;
    }
    address = proxy_sockaddr_unix(path);
    return proxy_dial(&address);
}

static void dial(struct proxy_authz_link *a)
{
    int64_t now = clock_mono_ms();
    struct diag d = { .line = 0 };
    struct event_base *base = loop_base(a->opts.loop);
    /* An edge saves a look at the socket before each wait; TLS has more to look at than the socket. */
    const short edge = is_local(a) ? EV_ET : 0;
    int fd = -1;

    a->state = LINK_CONNECTING;
    a->state_until_ms = now + CONNECT_MS;
    if (is_local(a) && rpc_unix_check(rpc_unix_path(sv_from(a->target)), &d) != ERR_OK) {
        proxy_authz_link_drop(a, d.text);
        return;
    }
    fd = is_local(a) ? dial_direct(a) : -1;
    fd = fd >= 0 ? fd : proxy_dial(&a->address); /* an older authorize has the one socket */
    if (fd < 0) {
        proxy_authz_link_drop(a, "nobody listens there");
        return;
    }
    proxy_io_init(&a->io, fd);
    if (!is_local(a)) {
        renew_tls(a, now);
        a->io.ssl = proxy_dial_tls(a->tls, fd, RPC_AUTHORIZE);
    }
    a->readable = event_new(base, fd, (short)(EV_READ | EV_PERSIST | edge | (edge ? EV_CLOSED : 0)),
                            on_socket, a);
    a->writable = event_new(base, fd, (short)(EV_WRITE | EV_PERSIST | edge), on_socket, a);
    CHECK(a->readable != NULL && a->writable != NULL);
    (void)event_add(a->readable, NULL);
    want_write(a, true);
}

/* A peer that is cut off, or hangs, closes nothing: what it would have told is missed. */
static void look_for_life(struct proxy_authz_link *a, int64_t now_ms)
{
    if (a->pinged_ms != 0 && now_ms - a->pinged_ms >= PONG_MS) {
        proxy_authz_link_drop(a, "no sign of life");
    } else if (a->pinged_ms == 0 && now_ms - a->heard_ms >= PING_MS) {
        a->pinged_ms = now_ms;
        rpc_duplex_ping(a->duplex);
        if (!push_wire(a)) {
            proxy_authz_link_drop(a, "write failed");
        }
    }
}

void proxy_authz_link_tick(struct proxy_authz_link *link, int64_t now_ms)
{
    if (link->state == LINK_DOWN && now_ms >= link->retry_at_ms) {
        dial(link);
    } else if ((link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE) &&
               now_ms >= link->state_until_ms) {
        proxy_authz_link_drop(link, "connecting took too long");
    } else if (link->state == LINK_UP) {
        look_for_life(link, now_ms);
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
    arena_deinit(&a->arena);
    SSL_CTX_free(a->tls);
    mem_free(&a);
}
