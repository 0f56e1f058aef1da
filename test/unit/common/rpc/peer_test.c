/* What peers may do wrong, and what they may do: expired and rotated certificates, floods, slowness,
 * cancels at any moment, and a client that is not ours (peer.py). */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "authorize.pb-c.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/mem.h"
#include "common/rpc/client.h"
#include "common/rpc/proof.h"
#include "common/rpc/server.h"
#include "test/support/address.h"
#include "test/support/cmocka.h"

/* PATIENCE_MS: for what must come, also on a busy machine. */
enum { WAIT_MS = 120000, PATIENCE_MS = 60000, BIG = 65536, BIG_COUNT = 160, HOUR_MS = 3600000 };

/* ThreadSanitizer takes seconds for each megabyte through gRPC, so that its keepalive gives up. */
#ifndef __has_feature /* clang only */
#    define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#    define TOO_SLOW true
#else
#    define TOO_SLOW false
#endif

static const char first_secret[] = "0123456789abcdef0123456789abcdef";
static const char second_secret[] = "fedcba9876543210fedcba9876543210";
static struct loop *loop;
static char folder[] = "/tmp/postern-rpc-peer-XXXXXX";
static char address[TEST_ADDRESS]; /* over TCP; in the second run a unix socket */

static struct keys *make_keys(const char *first, const char *second)
{
    struct secret *s[2] = { secret_new(sv_of(first, KEYS_SECRET_BYTES)), NULL };
    const struct secret *view[2] = { s[0], NULL };
    struct keys *k = NULL;

    if (second != NULL) {
        s[1] = secret_new(sv_of(second, KEYS_SECRET_BYTES));
        view[1] = s[1];
    }
    assert_int_equal(keys_new(view, second == NULL ? 1 : 2, &k), ERR_OK);
    secret_free(&s[0]);
    secret_free(&s[1]);
    return k;
}

/* ---- the server: each stream has its state, freed when it is told that the call is over ------- */

struct echo {
    struct rpc_call *call;
    struct buf held;
    bool has_held;
    unsigned left; /* of a big stream */
};

static unsigned open_streams;
static unsigned big_sent;

static void echo_message(void *arg, struct sv bytes)
{
    struct echo *e = arg;

    if (rpc_call_can_send(e->call)) {
        rpc_call_send(e->call, bytes);
        return;
    }
    buf_reset(&e->held);
    buf_add_sv(&e->held, bytes);
    e->has_held = true;
}

static void echo_writable(void *arg)
{
    struct echo *e = arg;

    if (e->has_held) {
        e->has_held = false;
        rpc_call_send(e->call, buf_sv(&e->held));
    }
}

static void echo_closed(void *arg)
{
    struct echo *e = arg;

    buf_deinit(&e->held);
    mem_free(&e);
    (void)__atomic_sub_fetch(&open_streams, 1, __ATOMIC_RELEASE);
}

static void big_more(void *arg)
{
    static const char zeros[BIG];
    struct echo *e = arg;

    if (e->left == 0) {
        rpc_call_finish(e->call, RPC_OK, NULL);
        return;
    }
    e->left--;
    (void)__atomic_add_fetch(&big_sent, 1, __ATOMIC_RELEASE);
    rpc_call_send(e->call, sv_of(zeros, sizeof(zeros)));
}

static const struct rpc_stream_ops echo_ops = { .on_message = echo_message,
                                                .on_writable = echo_writable,
                                                .on_closed = echo_closed };
static const struct rpc_stream_ops big_ops = { .on_writable = big_more, .on_closed = echo_closed };

static struct echo *stream_new(struct rpc_call *call, const struct rpc_stream_ops *ops)
{
    struct echo *e = MEM_NEW(struct echo);

    e->call = call;
    e->left = BIG_COUNT;
    buf_init(&e->held, 1 << 20);
    (void)__atomic_add_fetch(&open_streams, 1, __ATOMIC_RELEASE);
    rpc_call_stream(call, ops, e);
    return e;
}

static void on_check_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    (void)arg;
    assert_null(request);
    (void)stream_new(call, &echo_ops);
}

static void on_follow(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    (void)request;
    (void)arg;
    big_more(stream_new(call, &big_ops));
}

/* One message, then silence until somebody goes. */
static void on_hold(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const char zeros[BIG];
    struct echo *e = stream_new(call, &echo_ops);

    (void)request;
    (void)arg;
    rpc_call_send(e->call, sv_of(zeros, sizeof(zeros)));
}

static void on_check(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__CheckRequest *check = (const Postern__CheckRequest *)(const void *)request;
    Postern__Reply reply = POSTERN__REPLY__INIT;
    Postern__CheckAnswer answer = POSTERN__CHECK_ANSWER__INIT;

    (void)arg;
    if (check->id == 14) { /* as late as it can be: after its caller's deadline */
        struct timespec nap = { .tv_nsec = 400000000 };

        (void)nanosleep(&nap, NULL);
    }
    reply.id = check->id + 1;
    answer.reply = &reply;
    rpc_call_reply(call, &answer.base);
}

static const struct rpc_method methods[] = {
    { .path = "/postern.Authorize/Check",
      .roles = BIT(RPC_PROXY) | BIT(RPC_TOKEN_READER),
      .request = &postern__check_request__descriptor,
      .handler = on_check },
    { .path = "/postern.Authorize/CheckStream",
      .roles = BIT(RPC_PROXY),
      .client_streams = true,
      .request = &postern__check_batch__descriptor,
      .handler = on_check_stream },
    { .path = "/test/Follow",
      .roles = BIT(RPC_PROXY),
      .request = &postern__check_request__descriptor,
      .handler = on_follow },
    { .path = "/test/Hold",
      .roles = BIT(RPC_PROXY),
      .request = &postern__check_request__descriptor,
      .handler = on_hold },
    { .path = "/test/Nobody", .request = &postern__check_request__descriptor, .handler = on_check },
};

struct world {
    struct rpc *server_rpc;
    struct rpc *rpc;
    struct rpc_identity *server_id;
    struct rpc_server *server;
};

static enum err serve(struct rpc *rpc, const struct rpc_identity *id, const char *where,
                      struct rpc_server **server_out)
{
    struct diag d = { .line = 0 };

    return rpc_server_new(
        rpc,
        &(struct rpc_server_opts){
            .address = where, .identity = id, .methods = methods, .n_methods = ARRAY_LEN(methods) },
        server_out, &d);
}

static void on_serving(void *server)
{
    rpc_server_set_serving(server, true);
}

/* The server has a thread of its own. */
static void world_up(struct world *w, const struct keys *keys, const char *where)
{
    w->rpc = rpc_new(loop);
    w->server_rpc = rpc_new(NULL);
    w->server_id = rpc_identity_new(keys, RPC_AUTHORIZE);
    assert_int_equal(serve(w->server_rpc, w->server_id, where, &w->server), ERR_OK);
    rpc_run(w->server_rpc, 0, on_serving, w->server);
}

static void world_down(struct world *w)
{
    rpc_server_free(&w->server);
    rpc_free(&w->server_rpc);
    rpc_free(&w->rpc);
    rpc_identity_free(&w->server_id);
    assert_int_equal(__atomic_load_n(&open_streams, __ATOMIC_ACQUIRE), 0);
}

/* ---- the client ------------------------------------------------------------------------------ */

struct outcome {
    bool over;
    bool forbidden; /* cancelled: no callback may come any more */
    enum rpc_status status;
    uint64_t messages;
};

static void on_answer(void *arg, enum rpc_status status, const char *text,
                      const ProtobufCMessage *response)
{
    struct outcome *o = arg;

    (void)text;
    assert_false(o->forbidden);
    assert_true((status == RPC_OK) == (response != NULL));
    o->status = status;
    o->over = true;
}

static void on_message(void *arg, struct sv bytes)
{
    struct outcome *o = arg;

    assert_false(o->forbidden);
    assert_int_equal(bytes.n, BIG);
    o->messages++;
}

static void on_stream_end(void *arg, enum rpc_status status, const char *text)
{
    struct outcome *o = arg;

    (void)text;
    assert_false(o->forbidden);
    o->status = status;
    o->over = true;
}

static const struct rpc_follow_ops follows = { on_message, on_stream_end };

static void turn(int ms)
{
    struct timeval tick = { .tv_usec = ms * 1000L };

    (void)event_base_loopexit(loop_base(loop), &tick);
    (void)event_base_dispatch(loop_base(loop));
}

static void spin(const struct outcome *o)
{
    int64_t end = clock_mono_ms() + WAIT_MS;

    while (!o->over && clock_mono_ms() < end) {
        turn(5);
    }
    assert_true(o->over);
}

static enum rpc_status ask(struct rpc_client *client, const char *path, int64_t timeout_ms)
{
    struct outcome o = { .over = false };
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

    (void)rpc_client_call(client, path, &check.base, &postern__check_answer__descriptor, timeout_ms,
                          on_answer, &o);
    spin(&o);
    return o.status;
}

static struct rpc_client *client_as(struct world *w, const struct rpc_identity *id)
{
    return rpc_client_new(w->rpc, &(struct rpc_client_opts){
                                      .target = address, .server = RPC_AUTHORIZE, .identity = id });
}

static enum rpc_status ask_as(struct world *w, const struct keys *keys, int64_t timeout_ms)
{
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = client_as(w, id);
    enum rpc_status status = ask(client, "/postern.Authorize/Check", timeout_ms);

    rpc_client_free(&client);
    rpc_identity_free(&id);
    return status;
}

/* What a client without our secret gets: no connection over TCP, a word on a socket of ours. */
static enum rpc_status unknown(void)
{
    return strncmp(address, "unix:", 5) == 0 ? RPC_UNAUTHENTICATED : RPC_DEADLINE_EXCEEDED;
}

static void an_expired_certificate_opens_nothing(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };

    (void)state;
    world_up(&w, keys, address);
    clock_test_shift(-30 * (int64_t)HOUR_MS); /* both ends make theirs in the past */
    assert_int_equal(ask_as(&w, keys, 1500), RPC_DEADLINE_EXCEEDED);
    clock_test_shift(30 * (int64_t)HOUR_MS); /* the server's own is renewed */
    assert_int_equal(ask_as(&w, keys, PATIENCE_MS), RPC_OK);
    world_down(&w);
    keys_free(&keys);
}

static void secrets_rotate_without_a_pause(void **state)
{
    static const struct {
        const char *server[2];
        const char *client[2];
        enum rpc_status status;
    } rows[] = {
        { { first_secret, NULL }, { first_secret, second_secret }, RPC_OK },
        { { first_secret, second_secret }, { second_secret, first_secret }, RPC_OK },
        { { second_secret, first_secret }, { second_secret, NULL }, RPC_OK },
        { { second_secret, NULL }, { first_secret, NULL }, RPC_UNKNOWN },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct keys *server = make_keys(rows[i].server[0], rows[i].server[1]);
        struct keys *client = make_keys(rows[i].client[0], rows[i].client[1]);
        struct world w = { .rpc = NULL };

        world_up(&w, server, address);
        assert_int_equal(ask_as(&w, client, rows[i].status == RPC_OK ? 5000 : 1000),
                         rows[i].status == RPC_OK ? RPC_OK : unknown());
        world_down(&w);
        keys_free(&server);
        keys_free(&client);
    }
}

static void a_certificate_is_renewed_at_half_its_life(void **state)
{
    int64_t now = clock_wall_s();

    (void)state;
    assert_true(rpc_identity_due(0));
    assert_false(rpc_identity_due(now));
    assert_false(rpc_identity_due(now - RPC_CERT_RENEW_S + 60));
    assert_true(rpc_identity_due(now - RPC_CERT_RENEW_S - 1));
    assert_true(rpc_identity_due(now + HOUR_MS)); /* the clock was set back */
}

static X509 *read_cert(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    assert_non_null(cert);
    BIO_free(bio);
    return cert;
}

static void certificates_satisfy_a_strict_verifier(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct rpc_identity *issuer = rpc_identity_new(keys, RPC_DATABROKER);
    struct rpc_identity *other = rpc_identity_new(keys, RPC_PROXY);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    char *cert_pem = NULL;
    char *key_pem = NULL;
    X509 *cert = NULL;
    X509 *ca = read_cert(rpc_identity_ca_pem(other)); /* another process's copy of the CA */

    (void)state;
    rpc_identity_issue(issuer, RPC_CERT_LIFE_S, &cert_pem, &key_pem);
    cert = read_cert(cert_pem);
    assert_int_equal(X509_STORE_add_cert(store, ca), 1);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, cert, NULL), 1);
    X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE);
    assert_int_equal(X509_verify_cert(ctx), 1);
    assert_int_equal(X509_check_host(cert, "databroker.postern.internal", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, "proxy.postern.internal", 0, 0, NULL), 0);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(ca);
    X509_free(cert);
    mem_free(&cert_pem);
    mem_free(&key_pem);
    rpc_identity_free(&issuer);
    rpc_identity_free(&other);
    keys_free(&keys);
}

static void only_exact_names_are_roles(void **state)
{
    (void)state;
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://postern/proxy")), RPC_PROXY);
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://postern/cli")), RPC_CLI);
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://postern/nobody")), RPC_NOBODY);
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://postern/session-admin")), RPC_NOBODY);
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://postern/proxy/")), RPC_NOBODY);
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://postern/")), RPC_NOBODY);
    assert_int_equal(rpc_role_of_spiffe(SV("spiffe://other/proxy")), RPC_NOBODY);
    assert_int_equal(rpc_role_of_spiffe((struct sv){ 0 }), RPC_NOBODY);
}

static void a_row_without_roles_lets_nobody_in(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;

    (void)state;
    world_up(&w, keys, address);
    client = client_as(&w, id);
    assert_int_equal(ask(client, "/test/Nobody", PATIENCE_MS), RPC_PERMISSION_DENIED);
    rpc_client_free(&client);
    rpc_identity_free(&id);
    world_down(&w);
    keys_free(&keys);
}

static void a_living_servers_socket_is_not_taken(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_server *second = NULL;
    char socket_at[TEST_ADDRESS];
    char long_path[200] = "unix:/tmp/";

    (void)state;
    memset(long_path + 10, 'x', sizeof(long_path) - 11);
    test_address_unix(socket_at);
    world_up(&w, keys, socket_at);
    assert_int_equal(serve(w.server_rpc, w.server_id, socket_at, &second), ERR_EXISTS);
    assert_int_equal(serve(w.server_rpc, w.server_id, long_path, &second), ERR_INVALID);
    assert_int_equal(serve(w.server_rpc, w.server_id, "unix:/nowhere/x.sock", &second), ERR_IO);
    assert_null(second);
    world_down(&w);
    test_address_remove(socket_at);
    keys_free(&keys);
}

static enum rpc_status with_token(struct world *w, const char *target, const char *token)
{
    struct rpc_client *client = rpc_client_new(
        w->rpc, &(struct rpc_client_opts){ .target = target,
                                           .server = RPC_AUTHORIZE,
                                           .ca_pem = rpc_identity_ca_pem(w->server_id),
                                           .token = token });
    enum rpc_status status = ask(client, "/postern.Authorize/Check", PATIENCE_MS);

    rpc_client_free(&client);
    return status;
}

/* Neither a server nor a client of ours goes there. */
static void a_socket_where_others_may_write_is_not_used(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_server *second = NULL;
    char socket_at[TEST_ADDRESS];
    char open_folder[TEST_ADDRESS];

    (void)state;
    test_address_unix(socket_at);
    world_up(&w, keys, socket_at);
    assert_int_equal(with_token(&w, socket_at, "none"), RPC_UNAUTHENTICATED);
    (void)snprintf(open_folder, sizeof(open_folder), "%s", socket_at + strlen("unix:"));
    *strrchr(open_folder, '/') = '\0';
    assert_int_equal(chmod(open_folder, 01777), 0); /* as /tmp is */
    assert_int_equal(with_token(&w, socket_at, "none"), RPC_UNAVAILABLE);
    world_down(&w);
    w = (struct world){ .server_rpc = rpc_new(NULL),
                        .server_id = rpc_identity_new(keys, RPC_PROXY) };
    assert_int_equal(serve(w.server_rpc, w.server_id, socket_at, &second), ERR_DENIED);
    rpc_free(&w.server_rpc);
    rpc_identity_free(&w.server_id);
    test_address_remove(socket_at);
    keys_free(&keys);
}

static void a_proof_opens_nothing_over_tcp(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct world w = { .rpc = NULL };
    char proof[RPC_PROOF_SIZE];

    (void)state;
    world_up(&w, keys, address);
    rpc_proof_make(id, RPC_AUTHORIZE, proof);
    assert_int_equal(rpc_proof_check(w.server_id, sv_from(proof)), RPC_PROXY);
    assert_int_equal(with_token(&w, address, proof), RPC_UNAUTHENTICATED);
    assert_int_equal(with_token(&w, address, proof + strlen(RPC_PROOF_SCHEME)),
                     RPC_UNAUTHENTICATED);
    world_down(&w);
    rpc_identity_free(&id);
    keys_free(&keys);
}

static void a_slow_reader_stops_the_sender(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;
    struct outcome o = { .over = false };
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    struct timespec nap = { .tv_nsec = 300000000 };

    (void)state;
    world_up(&w, keys, address);
    client = client_as(&w, id);
    assert_int_equal(ask(client, "/postern.Authorize/Check", PATIENCE_MS), RPC_OK);
    __atomic_store_n(&big_sent, 0, __ATOMIC_RELEASE);
    (void)rpc_client_follow(client, "/test/Follow", &check.base, &follows, &o);
    (void)nanosleep(&nap, NULL); /* the loop does not turn: nothing is read */
    assert_in_range(__atomic_load_n(&big_sent, __ATOMIC_ACQUIRE), 1, BIG_COUNT * 3 / 4);
    spin(&o);
    assert_int_equal(o.status, RPC_OK);
    assert_int_equal(o.messages, BIG_COUNT);
    rpc_client_free(&client);
    rpc_identity_free(&id);
    world_down(&w);
    keys_free(&keys);
}

static void cancels_are_silent_at_every_moment(void **state)
{
    static const char *const paths[] = { "/postern.Authorize/Check", "/test/Follow" };
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;
    struct outcome o[80];
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    size_t i = 0;

    (void)state;
    memset(o, 0, sizeof(o));
    world_up(&w, keys, address);
    client = client_as(&w, id);
    for (i = 0; i < ARRAY_LEN(o); i++) {
        struct rpc_pending *p =
            i % 2 == 0
                ? rpc_client_call(client, paths[0], &check.base, &postern__check_answer__descriptor,
                                  PATIENCE_MS, on_answer, &o[i])
                : rpc_client_follow(client, paths[1], &check.base, &follows, &o[i]);
        size_t turns = i / 2;

        for (; turns > 0 && !o[i].over; turns--) {
            (void)event_base_loop(loop_base(loop), turns % 4 == 0 ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
        }
        if (!o[i].over) {
            o[i].forbidden = true;
            rpc_pending_cancel(&p);
            assert_null(p);
        }
    }
    assert_int_equal(ask(client, paths[0], PATIENCE_MS), RPC_OK);
    turn(100);
    rpc_client_free(&client);
    world_down(&w);
    rpc_identity_free(&id);
    keys_free(&keys);
}

static void a_stream_given_up_as_it_begins_asks_nothing_of_a_queue_that_ends(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;
    struct outcome o = { .forbidden = true };
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    struct rpc_pending *p = NULL;
    struct timespec nap = { .tv_nsec = 300000000 };

    (void)state;
    world_up(&w, keys, address);
    client = client_as(&w, id);
    assert_int_equal(ask(client, "/postern.Authorize/Check", PATIENCE_MS), RPC_OK);
    p = rpc_client_follow(client, "/test/Hold", &check.base, &follows, &o);
    (void)nanosleep(&nap, NULL); /* it has begun, and the loop does not know yet */
    rpc_pending_cancel(&p);
    rpc_client_free(&client);
    rpc_free(&w.rpc);
    world_down(&w);
    assert_false(o.over);
    rpc_identity_free(&id);
    keys_free(&keys);
}

static void a_server_that_goes_ends_its_streams(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;
    struct outcome o = { .over = false };
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

    (void)state;
    world_up(&w, keys, address);
    client = client_as(&w, id);
    assert_int_equal(ask(client, "/postern.Authorize/Check", PATIENCE_MS), RPC_OK);
    (void)rpc_client_follow(client, "/test/Hold", &check.base, &follows, &o);
    for (; o.messages == 0 && !o.over; turn(5)) {
    }
    assert_false(o.over);
    rpc_server_free(&w.server);
    spin(&o);
    assert_int_not_equal(o.status, RPC_OK);
    assert_int_equal(serve(w.server_rpc, w.server_id, address, &w.server), ERR_OK);
    assert_int_equal(ask(client, "/postern.Authorize/Check", PATIENCE_MS), RPC_OK);
    rpc_client_free(&client);
    rpc_identity_free(&id);
    world_down(&w);
    keys_free(&keys);
}

/* ---- a client that is not ours --------------------------------------------------------------- */

static void write_file(const char *name, const char *text)
{
    char path[128];
    FILE *f = NULL;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void a_foreign_client_gets_what_it_may(void **state)
{
    struct keys *keys = make_keys(first_secret, NULL);
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct buf token;
    char port[16];
    char python[] = "/usr/bin/python3";
    char script[] = "test/unit/common/rpc/peer.py";
    char *argv[] = { python, script, folder, port, NULL, NULL };
    /* grpcio comes uninstrumented: it must not inherit a sanitizer's preload or options. */
    char path[] = "PATH=/usr/bin:/bin";
    char *envp[] = { path, NULL };
    char *cert = NULL;
    char *key = NULL;
    int status = -1;
    pid_t pid = 0;

    (void)state;
    world_up(&w, keys, "127.0.0.1:0");
    rpc_identity_issue(id, RPC_CERT_LIFE_S, &cert, &key);
    write_file("ca.pem", rpc_identity_ca_pem(id));
    write_file("cert.pem", cert);
    write_file("key.pem", key);
    buf_init(&token, TOKEN_TEXT_MAX);
    assert_int_equal(token_make(keys, TOKEN_ROLE_READER, 60, NULL, &token), ERR_OK);
    (void)snprintf(port, sizeof(port), "%d", rpc_server_port(w.server));
    argv[4] = buf_take(&token);
    assert_int_equal(posix_spawn(&pid, python, NULL, NULL, argv, envp), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    mem_free(&argv[4]);
    mem_free(&cert);
    mem_free(&key);
    world_down(&w);
    rpc_identity_free(&id);
    keys_free(&keys);
}

static void remove_files(void)
{
    static const char *const names[] = { "ca.pem", "cert.pem", "key.pem" };
    char path[128];
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_exact_names_are_roles),
        cmocka_unit_test(a_certificate_is_renewed_at_half_its_life),
        cmocka_unit_test(certificates_satisfy_a_strict_verifier),
        cmocka_unit_test(an_expired_certificate_opens_nothing),
        cmocka_unit_test(a_living_servers_socket_is_not_taken),
        cmocka_unit_test(a_socket_where_others_may_write_is_not_used),
        cmocka_unit_test(a_proof_opens_nothing_over_tcp),
    };
    const struct CMUnitTest both[] = {
        cmocka_unit_test(secrets_rotate_without_a_pause),
        cmocka_unit_test(a_row_without_roles_lets_nobody_in),
        cmocka_unit_test(cancels_are_silent_at_every_moment),
        cmocka_unit_test(a_stream_given_up_as_it_begins_asks_nothing_of_a_queue_that_ends),
        cmocka_unit_test(a_server_that_goes_ends_its_streams),
    };
    const struct CMUnitTest bulk[] = {
        cmocka_unit_test(a_slow_reader_stops_the_sender),
        cmocka_unit_test(a_foreign_client_gets_what_it_may),
    };
    int failed = 0;

    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    test_address_tcp(address);
    loop = loop_new();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += cmocka_run_group_tests_name("tcp", both, NULL, NULL);
    if (!TOO_SLOW) {
        failed += cmocka_run_group_tests(bulk, NULL, NULL);
    }
    test_address_unix(address);
    failed += cmocka_run_group_tests_name("unix", both, NULL, NULL);
    test_address_remove(address);
    loop_free(&loop);
    remove_files();
    return failed;
}
