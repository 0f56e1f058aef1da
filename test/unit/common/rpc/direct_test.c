/* The socket beside a gRPC server's, where one method is served without gRPC core: who may, what it
 * takes in and what it does not. The caller is nghttp2 itself; gRPC core calls it in service_test. */
#include "common/rpc/direct.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>
#include <nghttp2/nghttp2.h>

#include "authorize.pb-c.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/mem.h"
#include "common/rpc/proof.h"
#include "common/rpc/server.h"
#include "test/support/address.h"
#include "test/support/cmocka.h"

enum { PATIENCE_MS = 60000, FRAME_HEAD = 5, NO_STATUS = 99, PROOFS_MAX = 2 };

#define STREAM_PATH "/postern.Authorize/CheckStream"

static struct loop *loop;

/* ---- the server: gives each message back ----------------------------------------------------- */

struct world {
    struct keys *keys;
    struct rpc_identity *authorize;
    struct rpc_identity *proxy;
    struct rpc *rpc;
    struct rpc_server *server;
    char address[TEST_ADDRESS];
    char direct[RPC_UNIX_PATH_SIZE];
    size_t open;
    size_t messages;
    size_t bytes; /* of the last one */
    size_t refused;
    enum rpc_role last_refused;
};

struct echo {
    struct world *world;
    struct rpc_call *call;
};

static void on_message(void *arg, struct sv bytes)
{
    struct echo *e = arg;

    e->world->messages++;
    e->world->bytes = bytes.n;
    if (sv_eq(bytes, SV("bye"))) {
        rpc_call_finish(e->call, RPC_ABORTED, "as asked: 100%");
    } else if (rpc_call_can_send(e->call)) {
        rpc_call_send(e->call, bytes);
    }
}

static void on_closed(void *arg)
{
    struct echo *e = arg;

    e->world->open--;
    mem_free(&e);
}

static void on_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const struct rpc_stream_ops ops = { .on_message = on_message, .on_closed = on_closed };
    struct world *w = arg;
    struct echo *e = MEM_NEW(struct echo);

    assert_null(request);
    assert_int_equal(rpc_call_role(call), RPC_PROXY);
    *e = (struct echo){ .world = w, .call = call };
    w->open++;
    rpc_call_stream(call, &ops, e);
}

static const struct rpc_method methods[] = {
    { .path = STREAM_PATH,
      .roles = BIT(RPC_PROXY),
      .client_streams = true,
      .request = &postern__check_batch__descriptor,
      .handler = on_stream },
    { .path = "/test/Other",
      .roles = BIT(RPC_PROXY),
      .client_streams = true,
      .request = &postern__check_batch__descriptor,
      .handler = on_stream },
};

static void on_refused(void *arg, const struct rpc_refusal *refusal)
{
    struct world *w = arg;

    assert_string_equal(refusal->method, STREAM_PATH);
    assert_string_equal(refusal->by, refusal->role == RPC_NOBODY ? "nothing" : "proof");
    w->refused++;
    w->last_refused = refusal->role;
}

static enum err serve(struct world *w, const char *address, struct diag *d)
{
    return rpc_server_new(w->rpc,
                          &(struct rpc_server_opts){ .address = address,
                                                     .identity = w->authorize,
                                                     .methods = methods,
                                                     .n_methods = ARRAY_LEN(methods),
                                                     .direct = &methods[0],
                                                     .arg = w,
                                                     .on_refused = on_refused },
                          &w->server, d);
}

static struct keys *keys_of(const char *text)
{
    struct secret *secret = secret_new(sv_from(text));
    const struct secret *view[] = { secret };
    struct keys *keys = NULL;

    assert_int_equal(keys_new(view, 1, &keys), ERR_OK);
    secret_free(&secret);
    return keys;
}

static void world_up(struct world *w)
{
    struct diag d = { .line = 0 };

    *w = (struct world){ .keys = keys_of("0123456789abcdef0123456789abcdef") };
    w->authorize = rpc_identity_new(w->keys, RPC_AUTHORIZE);
    w->proxy = rpc_identity_new(w->keys, RPC_PROXY);
    w->rpc = rpc_new(loop);
    test_address_unix(w->address);
    assert_true(rpc_direct_path(rpc_unix_path(sv_from(w->address)), w->direct));
    assert_int_equal(serve(w, w->address, &d), ERR_OK);
}

static void world_down(struct world *w)
{
    rpc_server_free(&w->server);
    assert_int_equal(w->open, 0);
    assert_int_not_equal(access(w->direct, F_OK), 0);
    rpc_free(&w->rpc);
    test_address_remove(w->address);
    rpc_identity_free(&w->authorize);
    rpc_identity_free(&w->proxy);
    keys_free(&w->keys);
}

/* ---- a caller -------------------------------------------------------------------------------- */

struct caller {
    int fd;
    nghttp2_session *h2;
    struct buf to_send;
    size_t sent;
    bool done; /* nothing more to send */
    struct buf got;
    int32_t refused; /* the stream that was reset */
    unsigned status; /* grpc-status */
    char text[64];   /* grpc-message */
    bool goaway;
    bool closed; /* the connection */
};

/* The type is nghttp2's. NOLINTBEGIN(readability-non-const-parameter,readability-function-size) */
static ssize_t read_body(nghttp2_session *h2, int32_t stream, uint8_t *p, size_t room,
                         uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct caller *c = arg;
    size_t n = MIN(room, c->to_send.n - c->sent);

    (void)h2;
    (void)stream;
    (void)source;
    if (n == 0 && c->done) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        return 0;
    }
    if (n == 0) {
        return NGHTTP2_ERR_DEFERRED;
    }
    memcpy(p, c->to_send.p + c->sent, n);
    c->sent += n;
    return (ssize_t)n;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct caller *c = arg;
    uint64_t status = 0;

    (void)h2;
    (void)frame;
    (void)flags;
    if (sv_eq(sv_of(name, name_n), SV("grpc-status"))) {
        assert_int_equal(sv_u64(sv_of(value, value_n), NO_STATUS, &status), ERR_OK);
        c->status = (unsigned)status;
    } else if (sv_eq(sv_of(name, name_n), SV("grpc-message"))) {
        (void)snprintf(c->text, sizeof(c->text), "%.*s", (int)value_n, (const char *)value);
    }
    return 0;
}

/* NOLINTEND(readability-non-const-parameter,readability-function-size) */

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *p, size_t n,
                   void *arg)
{
    (void)h2;
    (void)flags;
    (void)stream;
    buf_add(&((struct caller *)arg)->got, p, n);
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct caller *c = arg;

    (void)h2;
    c->goaway = c->goaway || frame->hd.type == NGHTTP2_GOAWAY;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        c->refused = frame->hd.stream_id;
    }
    return 0;
}

static int dial(const struct world *w)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", w->direct);
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&at, sizeof(at)), 0);
    return fd;
}

static void caller_init(struct caller *c, const struct world *w)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;

    *c = (struct caller){ .fd = dial(w), .status = NO_STATUS };
    buf_init(&c->to_send, (size_t)RPC_MESSAGE_MAX * 2);
    buf_init(&c->got, (size_t)RPC_MESSAGE_MAX * 2);
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    assert_int_equal(nghttp2_option_new(&option), 0);
    nghttp2_option_set_peer_max_concurrent_streams(option,
                                                   100); /* what the server says is ignored */
    assert_int_equal(nghttp2_session_client_new2(&c->h2, callbacks, c, option), 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    assert_int_equal(nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, NULL, 0), 0);
}

static void caller_deinit(struct caller *c)
{
    nghttp2_session_del(c->h2);
    buf_deinit(&c->to_send);
    buf_deinit(&c->got);
    (void)close(c->fd);
}

static void both_up(struct world *w, struct caller *c)
{
    world_up(w);
    caller_init(c, w);
}

static void both_down(struct world *w, struct caller *c)
{
    caller_deinit(c);
    world_down(w);
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){ .name = base_unconst(name),
                         .namelen = strlen(name),
                         .value = base_unconst(value),
                         .valuelen = strlen(value) };
}

/* proofs: none, one or two values of `authorization`. */
static int32_t call(struct caller *c, const char *path, const char *const *proofs, size_t n)
{
    nghttp2_nv head[6 + PROOFS_MAX] = {
        field(":method", "POST"), field(":scheme", "http"),
        field(":path", path),     field(":authority", "localhost"),
        field("te", "trailers"),  field("content-type", "application/grpc")
    };
    nghttp2_data_provider body = { .read_callback = read_body };

    for (size_t i = 0; i < n; i++) {
        head[6 + i] = field("authorization", proofs[i]);
    }
    return nghttp2_submit_request(c->h2, NULL, head, 6 + n, &body, NULL);
}

static void call_as(struct caller *c, const struct rpc_identity *id)
{
    char proof[RPC_PROOF_SIZE];

    rpc_proof_make(id, RPC_AUTHORIZE, proof);
    (void)call(c, STREAM_PATH, (const char *[]){ proof }, 1);
}

static void push(struct caller *c)
{
    const uint8_t *p = NULL;
    ssize_t n = nghttp2_session_mem_send(c->h2, &p);

    while (n > 0) {
        ssize_t took = send(c->fd, p, (size_t)n, MSG_NOSIGNAL);

        if (took < 0 && errno == EAGAIN) {
            (void)event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
        } else if (took < 0) {
            return; /* the next read tells */
        } else {
            p += took;
            n -= took;
        }
        n = n > 0 ? n : nghttp2_session_mem_send(c->h2, &p);
    }
}

/* A turn of the server, and what its socket then gives and takes. */
static void turn(struct caller *c)
{
    static const struct timeval tick = { .tv_usec = 2000 };
    uint8_t room[65536];
    ssize_t n = 0;

    (void)event_base_loopexit(loop_base(loop), &tick);
    (void)event_base_dispatch(loop_base(loop));
    n = recv(c->fd, room, sizeof(room), 0);
    c->closed = c->closed || n == 0 || (n < 0 && errno != EAGAIN);
    if (n > 0) {
        assert_int_equal(nghttp2_session_mem_recv(c->h2, room, (size_t)n), n);
    }
    if (!c->closed) {
        push(c);
    }
}

#define TURN_UNTIL(c, cond)                             \
    do {                                                \
        int64_t until_ = clock_mono_ms() + PATIENCE_MS; \
        while (!(cond) && clock_mono_ms() < until_) {   \
            turn(c);                                    \
        }                                               \
        assert_true(cond);                              \
    } while (0)

static void say(struct caller *c, unsigned char flag, size_t n, struct sv bytes)
{
    const unsigned char head[FRAME_HEAD] = { flag, (unsigned char)(n >> 24U),
                                             (unsigned char)(n >> 16U), (unsigned char)(n >> 8U),
                                             (unsigned char)n };

    buf_add(&c->to_send, head, sizeof(head));
    buf_add_sv(&c->to_send, bytes);
    (void)nghttp2_session_resume_data(c->h2, 1);
}

static void comes_back(struct caller *c, struct sv text)
{
    say(c, 0, text.n, text);
    buf_reset(&c->got);
    TURN_UNTIL(c, c->got.n == FRAME_HEAD + text.n);
    assert_memory_equal(c->got.p + FRAME_HEAD, text.p, text.n);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_proxy_is_answered_message_by_message(void **state)
{
    struct world w;
    struct caller c;
    struct stat st;

    (void)state;
    world_up(&w);
    assert_int_equal(stat(w.direct, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    caller_init(&c, &w);
    call_as(&c, w.proxy);
    comes_back(&c, SV("one"));
    comes_back(&c, SV("and another"));
    say(&c, 0, 3, SV("bye"));
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(c.status, RPC_ABORTED);
    assert_string_equal(c.text, "as%20asked%3A%20100%25");
    assert_true(c.goaway);
    assert_int_equal(w.open, 0);
    both_down(&w, &c);
}

static void a_client_that_says_its_last_gets_an_end(void **state)
{
    struct world w;
    struct caller c;

    (void)state;
    both_up(&w, &c);
    call_as(&c, w.proxy);
    comes_back(&c, SV("one"));
    c.done = true;
    (void)nghttp2_session_resume_data(c.h2, 1);
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(c.status, RPC_OK);
    both_down(&w, &c);
}

/* What the caller gets for these proofs; the server sees no stream. */
static unsigned status_for(struct world *w, const char *path, const char *const *proofs, size_t n)
{
    struct caller c;

    caller_init(&c, w);
    (void)call(&c, path, proofs, n);
    say(&c, 0, 3, SV("one"));
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(w->open, 0);
    assert_int_equal(w->messages, 0);
    caller_deinit(&c);
    return c.status;
}

static void nobody_is_answered_without_the_proof_of_a_proxy(void **state)
{
    struct world w;
    struct keys *others = NULL;
    struct rpc_identity *stranger = NULL;
    char good[RPC_PROOF_SIZE];
    char proof[RPC_PROOF_SIZE];

    (void)state;
    world_up(&w);
    others = keys_of("fedcba9876543210fedcba9876543210");
    stranger = rpc_identity_new(others, RPC_PROXY);
    rpc_proof_make(w.proxy, RPC_AUTHORIZE, good);
    assert_int_equal(status_for(&w, STREAM_PATH, NULL, 0), RPC_UNAUTHENTICATED);
    assert_int_equal(status_for(&w, STREAM_PATH, (const char *[]){ "Postern x" }, 1),
                     RPC_UNAUTHENTICATED);
    assert_int_equal(status_for(&w, STREAM_PATH, (const char *[]){ good, good }, 2),
                     RPC_UNAUTHENTICATED);
    rpc_proof_make(stranger, RPC_AUTHORIZE, proof);
    assert_int_equal(status_for(&w, STREAM_PATH, (const char *[]){ proof }, 1),
                     RPC_UNAUTHENTICATED);
    rpc_proof_make(w.proxy, RPC_DATABROKER, proof);
    assert_int_equal(status_for(&w, STREAM_PATH, (const char *[]){ proof }, 1),
                     RPC_UNAUTHENTICATED);
    rpc_proof_make(w.authorize, RPC_AUTHORIZE, proof);
    assert_int_equal(status_for(&w, STREAM_PATH, (const char *[]){ proof }, 1),
                     RPC_PERMISSION_DENIED);
    assert_int_equal(w.refused, 6); /* each is told, as on the gRPC socket */
    assert_int_equal(w.last_refused, RPC_AUTHORIZE);
    assert_int_equal(status_for(&w, "/test/Other", (const char *[]){ good }, 1), RPC_UNIMPLEMENTED);
    rpc_identity_free(&stranger);
    keys_free(&others);
    world_down(&w);
}

static void a_second_stream_is_none(void **state)
{
    /* POST http://a/ by HPACK's static table, on stream 7; nghttp2 would wait for the first to end */
    static const unsigned char raw[] = {
        0, 0, 6, 1, 4, 0, 0, 0, 7, 0x83, 0x86, 0x84, 0x01, 1, 'a'
    };
    struct world w;
    struct caller c;

    (void)state;
    both_up(&w, &c);
    call_as(&c, w.proxy);
    call_as(&c, w.proxy);
    push(&c); /* before the server has said that there is one */
    TURN_UNTIL(&c, c.refused == 3);
    assert_int_equal(w.open, 1);
    comes_back(&c, SV("one"));
    assert_int_equal(send(c.fd, raw, sizeof(raw), MSG_NOSIGNAL), sizeof(raw));
    TURN_UNTIL(&c, c.closed); /* afterwards it is a breach, which ends the connection */
    assert_int_equal(w.open, 0);
    both_down(&w, &c);
}

static void a_message_has_a_size(void **state)
{
    struct world w;
    struct caller c;
    char *much = mem_zalloc(RPC_MESSAGE_MAX);

    (void)state;
    both_up(&w, &c);
    call_as(&c, w.proxy);
    say(&c, 0, RPC_MESSAGE_MAX, sv_of(much, RPC_MESSAGE_MAX));
    TURN_UNTIL(&c, w.messages == 1);
    assert_int_equal(w.bytes, RPC_MESSAGE_MAX);
    say(&c, 0, (size_t)RPC_MESSAGE_MAX + 1, SV("its beginning"));
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(w.messages, 1);
    caller_deinit(&c);
    caller_init(&c, &w);
    call_as(&c, w.proxy);
    say(&c, 0, UINT32_MAX, SV("its beginning"));
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(c.status, RPC_RESOURCE_EXHAUSTED);
    caller_deinit(&c);
    caller_init(&c, &w);
    call_as(&c, w.proxy);
    say(&c, 1, 3, SV("one"));
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(c.status, RPC_UNIMPLEMENTED); /* compressed */
    caller_deinit(&c);
    mem_free(&much);
    world_down(&w);
}

static void who_speaks_no_http2_is_sent_away(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct world w;
    struct caller c;

    (void)state;
    both_up(&w, &c);
    assert_int_equal(send(c.fd, text, sizeof(text) - 1, MSG_NOSIGNAL), sizeof(text) - 1);
    TURN_UNTIL(&c, c.closed);
    both_down(&w, &c);
}

static void who_says_nothing_is_sent_away(void **state)
{
    struct world w;
    struct caller c;

    (void)state;
    both_up(&w, &c);
    TURN_UNTIL(&c, c.closed);
    both_down(&w, &c);
}

static void a_head_has_a_size(void **state)
{
    struct world w;
    struct caller c;
    char proof[9000];

    (void)state;
    world_up(&w);
    memset(proof, 'p', sizeof(proof) - 1);
    proof[sizeof(proof) - 1] = '\0';
    caller_init(&c, &w);
    (void)call(&c, STREAM_PATH, (const char *[]){ proof }, 1);
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(c.status, NO_STATUS);
    assert_int_equal(w.open, 0);
    both_down(&w, &c);
}

static void of_too_many_connections_the_last_is_closed(void **state)
{
    struct world w;
    struct caller c;
    static int fds[RPC_DIRECT_MAX];

    (void)state;
    world_up(&w);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial(&w);
        (void)event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
    }
    caller_init(&c, &w);
    TURN_UNTIL(&c, c.closed);
    caller_deinit(&c);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        (void)close(fds[i]);
    }
    caller_init(&c, &w);
    call_as(&c, w.proxy);
    comes_back(&c, SV("one")); /* there is room again */
    both_down(&w, &c);
}

static void a_server_that_goes_says_so(void **state)
{
    struct world w;
    struct caller c;

    (void)state;
    both_up(&w, &c);
    call_as(&c, w.proxy);
    comes_back(&c, SV("one"));
    assert_int_equal(w.open, 1);
    world_down(&w);
    TURN_UNTIL(&c, c.closed);
    assert_int_equal(c.status, RPC_UNAVAILABLE);
    assert_true(c.goaway);
    caller_deinit(&c);
}

static void a_caller_that_vanishes_ends_its_stream(void **state)
{
    struct world w;
    struct caller c;
    struct caller other;

    (void)state;
    both_up(&w, &c);
    caller_init(&other, &w);
    call_as(&c, w.proxy);
    call_as(&other, w.proxy);
    comes_back(&c, SV("one"));
    comes_back(&other, SV("one"));
    assert_int_equal(w.open, 2);
    caller_deinit(&c);
    TURN_UNTIL(&other, w.open == 1);
    comes_back(&other, SV("two"));
    caller_deinit(&other);
    world_down(&w);
}

/* All of it is there when the server looks for the first time: what it is told once is enough. */
static void last_words_are_heard_and_the_end_behind_them(void **state)
{
    static const char words[50000];
    const size_t sizes[] = { 1, 16000, 40000, sizeof(words) };
    struct world w;
    struct caller c;
    struct caller other;

    (void)state;
    world_up(&w);
    caller_init(&other, &w);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        caller_init(&c, &w);
        call_as(&c, w.proxy);
        comes_back(&c, SV("one"));
        turn(&c); /* nothing is left to be read here, which would make the end a reset */
        say(&c, 0, sizes[i], sv_of(words, sizes[i]));
        push(&c);
        caller_deinit(&c);
        TURN_UNTIL(&other, w.open == 0);
        assert_int_equal(w.messages, 2 * (i + 1));
        assert_int_equal(w.bytes, sizes[i]);
    }
    caller_deinit(&other);
    world_down(&w);
}

static void somebody_elses_file_is_not_taken_for_the_socket(void **state)
{
    struct world w;
    struct diag d = { .line = 0 };
    FILE *f = NULL;

    (void)state;
    world_up(&w);
    rpc_server_free(&w.server);
    f = fopen(w.direct, "we");
    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(serve(&w, w.address, &d), ERR_DENIED);
    (void)unlink(w.direct);
    assert_int_equal(serve(&w, w.address, &d), ERR_OK);
    world_down(&w);
}

static void a_path_that_is_too_long_for_two_has_one(void **state)
{
    char long_path[RPC_UNIX_PATH_SIZE];
    char out[RPC_UNIX_PATH_SIZE];
    size_t most = RPC_UNIX_PATH_SIZE - 1 - strlen(".direct");

    (void)state;
    memset(long_path, 'p', sizeof(long_path));
    assert_true(rpc_direct_path(sv_of(long_path, most), out));
    assert_int_equal(strlen(out), RPC_UNIX_PATH_SIZE - 1);
    assert_false(rpc_direct_path(sv_of(long_path, most + 1), out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proxy_is_answered_message_by_message),
        cmocka_unit_test(a_client_that_says_its_last_gets_an_end),
        cmocka_unit_test(nobody_is_answered_without_the_proof_of_a_proxy),
        cmocka_unit_test(a_second_stream_is_none),
        cmocka_unit_test(a_message_has_a_size),
        cmocka_unit_test(who_speaks_no_http2_is_sent_away),
        cmocka_unit_test(who_says_nothing_is_sent_away),
        cmocka_unit_test(a_head_has_a_size),
        cmocka_unit_test(of_too_many_connections_the_last_is_closed),
        cmocka_unit_test(a_server_that_goes_says_so),
        cmocka_unit_test(a_caller_that_vanishes_ends_its_stream),
        cmocka_unit_test(last_words_are_heard_and_the_end_behind_them),
        cmocka_unit_test(somebody_elses_file_is_not_taken_for_the_socket),
        cmocka_unit_test(a_path_that_is_too_long_for_two_has_one),
    };
    int failed = 0;

    loop = loop_new();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    loop_free(&loop);
    return failed;
}
