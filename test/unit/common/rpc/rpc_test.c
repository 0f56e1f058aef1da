/* Two programs of one secret speak; everybody else is turned away, each for his own reason. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "authorize.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "health.pb-c.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/mem.h"
#include "common/rpc/client.h"
#include "common/rpc/scan.h"
#include "common/rpc/server.h"
#include "test/support/address.h"
#include "test/support/cmocka.h"

enum { PATIENCE_MS = 60000 }; /* for what must come, also on a busy machine */

static struct loop *loop;
static struct keys *keys;
static struct keys *foreign_keys;
static char address[TEST_ADDRESS]; /* the group runs twice: on a unix socket and over TCP */

static struct keys *make_keys(const char *secret)
{
    struct secret *s = secret_new(sv_of(secret, KEYS_SECRET_BYTES));
    const struct secret *view[1] = { s };
    struct keys *k = NULL;

    assert_int_equal(keys_new(view, 1, &k), ERR_OK);
    secret_free(&s);
    return k;
}

/* ---- the server: answers with what it was asked, streams back what it hears ------------------- */

struct echo {
    struct rpc_call *call;
    struct buf held;
    bool has_held;
    bool closed;
};

static struct echo echo;
static uint64_t followed;
static struct rpc_call *follower;
static bool follower_closed;

static struct rpc *serving;

static void answer_late(void *arg)
{
    rpc_call_fail(arg, RPC_UNAVAILABLE, "late");
}

static void on_check(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__CheckRequest *check = (const Postern__CheckRequest *)(const void *)request;
    Postern__Reply reply = POSTERN__REPLY__INIT;
    Postern__CheckAnswer answer = POSTERN__CHECK_ANSWER__INIT;

    (void)arg;
    if (check->id == 13) {
        rpc_call_fail(call, RPC_FAILED_PRECONDITION, "thirteen");
        return;
    }
    if (check->id == 14) { /* long after the caller has gone */
        rpc_run(serving, 100, answer_late, call);
        return;
    }
    reply.id = check->id + 1;
    answer.reply = &reply;
    rpc_call_reply(call, &answer.base);
}

static void echo_message(void *arg, struct sv bytes)
{
    (void)arg;
    if (rpc_call_can_send(echo.call)) {
        rpc_call_send(echo.call, bytes);
        return;
    }
    buf_reset(&echo.held);
    buf_add_sv(&echo.held, bytes);
    echo.has_held = true;
}

static void echo_writable(void *arg)
{
    (void)arg;
    if (echo.has_held) {
        echo.has_held = false;
        rpc_call_send(echo.call, buf_sv(&echo.held));
    }
}

static void echo_closed(void *arg)
{
    (void)arg;
    echo.closed = true;
}

static const struct rpc_stream_ops echo_ops = { .on_message = echo_message,
                                                .on_writable = echo_writable,
                                                .on_closed = echo_closed };

static void on_check_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    (void)arg;
    assert_null(request);
    echo.call = call;
    echo.closed = false;
    rpc_call_stream(call, &echo_ops, NULL);
}

static void follow_more(void *arg)
{
    char text[16];

    (void)arg;
    if (followed == 2000) {
        rpc_call_finish(follower, RPC_ABORTED, "that was all");
        return;
    }
    (void)snprintf(text, sizeof(text), "%d", (int)followed);
    followed++;
    rpc_call_send(follower, sv_from(text));
}

static void follow_closed(void *arg)
{
    (void)arg;
    follower_closed = true;
}

static const struct rpc_stream_ops follow_ops = { .on_writable = follow_more,
                                                  .on_closed = follow_closed };

static void on_follow(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    (void)request;
    follower = call;
    followed = 0;
    follower_closed = false;
    rpc_call_stream(call, &follow_ops, arg);
    follow_more(arg);
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
};

struct world {
    struct rpc *server_rpc;
    struct rpc *rpc;
    struct rpc_identity *server_id;
    struct rpc_server *server;
};

static void world_up(struct world *w, bool own_thread)
{
    struct diag d = { .line = 0 };

    w->rpc = rpc_new(loop);
    w->server_rpc = own_thread ? rpc_new(NULL) : w->rpc;
    serving = w->server_rpc;
    w->server_id = rpc_identity_new(keys, RPC_AUTHORIZE);
    assert_int_equal(rpc_server_new(w->server_rpc,
                                    &(struct rpc_server_opts){ .address = address,
                                                               .identity = w->server_id,
                                                               .methods = methods,
                                                               .n_methods = ARRAY_LEN(methods) },
                                    &w->server, &d),
                     ERR_OK);
}

static void world_down(struct world *w)
{
    rpc_server_free(&w->server);
    if (w->server_rpc != w->rpc) {
        rpc_free(&w->server_rpc);
    }
    rpc_free(&w->rpc);
    rpc_identity_free(&w->server_id);
}

/* ---- the client ------------------------------------------------------------------------------ */

struct outcome {
    bool over;
    enum rpc_status status;
    uint64_t id;
    uint64_t messages;
    char text[RPC_TEXT_MAX];
};

static void on_answer(void *arg, enum rpc_status status, const char *text,
                      const ProtobufCMessage *response)
{
    struct outcome *o = arg;
    const Postern__CheckAnswer *answer = (const Postern__CheckAnswer *)(const void *)response;

    o->over = true;
    o->status = status;
    o->id = answer == NULL ? 0 : answer->reply->id;
    (void)snprintf(o->text, sizeof(o->text), "%s", text);
}

static void spin(const bool *over)
{
    int64_t end = clock_mono_ms() + 2 * (int64_t)PATIENCE_MS;

    while (!__atomic_load_n(over, __ATOMIC_ACQUIRE) && clock_mono_ms() < end) {
        struct timeval tick = { .tv_usec = 20000 };

        (void)event_base_loopexit(loop_base(loop), &tick);
        (void)event_base_dispatch(loop_base(loop));
    }
    assert_true(*over);
}

static struct outcome ask(struct rpc_client *client, const char *path, uint64_t id,
                          int64_t timeout_ms)
{
    struct outcome o = { .over = false };
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

    check.id = id;
    (void)rpc_client_call(client, path, &check.base, &postern__check_answer__descriptor, timeout_ms,
                          on_answer, &o);
    spin(&o.over);
    return o;
}

static struct rpc_client *client_as(struct world *w, struct rpc_identity *id)
{
    return rpc_client_new(w->rpc, &(struct rpc_client_opts){
                                      .target = address, .server = RPC_AUTHORIZE, .identity = id });
}

static void calls_answer_fail_and_time_out(void **state)
{
    int own = 0;

    (void)state;
    for (own = 0; own < 2; own++) {
        struct world w = { .rpc = NULL };
        struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
        struct rpc_client *client = NULL;
        struct outcome o;

        world_up(&w, own == 1);
        client = client_as(&w, id);
        o = ask(client, "/postern.Authorize/Check", 41, PATIENCE_MS);
        assert_int_equal(o.status, RPC_OK);
        assert_int_equal(o.id, 42);
        o = ask(client, "/postern.Authorize/Check", 13, PATIENCE_MS);
        assert_int_equal(o.status, RPC_FAILED_PRECONDITION);
        assert_string_equal(o.text, "thirteen");
        assert_int_equal(ask(client, "/postern.Authorize/Nothing", 1, PATIENCE_MS).status,
                         RPC_UNIMPLEMENTED);
        assert_int_equal(ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status, RPC_OK);
        rpc_client_free(&client);
        rpc_identity_free(&id);
        world_down(&w);
    }
}

/* What a client without our secret gets: no connection over TCP, a word on a socket of ours. */
static enum rpc_status unknown(void)
{
    return strncmp(address, "unix:", 5) == 0 ? RPC_UNAUTHENTICATED : RPC_DEADLINE_EXCEEDED;
}

static void roles_and_strangers_are_turned_away(void **state)
{
    struct world w = { .rpc = NULL };
    struct rpc_identity *cli = rpc_identity_new(keys, RPC_CLI);
    struct rpc_identity *foreign = rpc_identity_new(foreign_keys, RPC_PROXY);
    struct rpc_client *client = NULL;

    (void)state;
    world_up(&w, false);
    client = client_as(&w, cli);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status,
                     RPC_PERMISSION_DENIED);
    rpc_client_free(&client);
    client = client_as(&w, foreign);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, 1500).status, unknown());
    rpc_client_free(&client);
    client = rpc_client_new(
        w.rpc,
        &(struct rpc_client_opts){ .target = address, .server = RPC_DATABROKER, .identity = cli });
    /* A server of another role than expected is no server of ours. */
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, 1500).status, unknown());
    rpc_client_free(&client);
    rpc_identity_free(&cli);
    rpc_identity_free(&foreign);
    world_down(&w);
}

static enum rpc_status with_token(struct world *w, const struct keys *maker, enum token_role role,
                                  int64_t shift_s)
{
    struct buf text;
    struct rpc_client *client = NULL;
    enum rpc_status status = RPC_UNKNOWN;

    buf_init(&text, TOKEN_TEXT_MAX);
    if (maker != NULL) {
        assert_int_equal(token_make(maker, role, 60, NULL, &text), ERR_OK);
    }
    clock_test_shift(shift_s * 1000);
    client = rpc_client_new(
        w->rpc, &(struct rpc_client_opts){ .target = address,
                                           .server = RPC_AUTHORIZE,
                                           .ca_pem = rpc_identity_ca_pem(w->server_id),
                                           .token = maker == NULL ? NULL : buf_cstr(&text) });
    status = ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status;
    clock_test_shift(-shift_s * 1000);
    rpc_client_free(&client);
    buf_deinit(&text);
    return status;
}

static void tokens_open_what_their_role_may(void **state)
{
    struct world w = { .rpc = NULL };

    (void)state;
    world_up(&w, false);
    assert_int_equal(with_token(&w, keys, TOKEN_ROLE_READER, 0), RPC_OK);
    assert_int_equal(with_token(&w, keys, TOKEN_ROLE_SESSION_ADMIN, 0), RPC_PERMISSION_DENIED);
    assert_int_equal(with_token(&w, foreign_keys, TOKEN_ROLE_READER, 0), RPC_UNAUTHENTICATED);
    assert_int_equal(with_token(&w, keys, TOKEN_ROLE_READER, 130), RPC_UNAUTHENTICATED);
    assert_int_equal(with_token(&w, NULL, TOKEN_ROLE_NONE, 0), RPC_UNAUTHENTICATED);
    world_down(&w);
}

static void follow_message(void *arg, struct sv bytes)
{
    struct outcome *o = arg;
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", (int)o->messages);
    assert_true(sv_eq(bytes, sv_from(text)));
    o->messages++;
}

static void follow_end(void *arg, enum rpc_status status, const char *text)
{
    struct outcome *o = arg;

    o->status = status;
    (void)snprintf(o->text, sizeof(o->text), "%s", text);
    o->over = true;
}

static const struct rpc_follow_ops follows = { follow_message, follow_end };

static void streams_deliver_in_order_and_end_with_a_status(void **state)
{
    int own = 0;

    (void)state;
    for (own = 0; own < 2; own++) {
        struct world w = { .rpc = NULL };
        struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
        struct rpc_client *client = NULL;
        struct outcome o = { .over = false };
        Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

        world_up(&w, own == 1);
        client = client_as(&w, id);
        (void)rpc_client_follow(client, "/test/Follow", &check.base, &follows, &o);
        spin(&o.over);
        assert_int_equal(o.messages, 2000);
        assert_int_equal(o.status, RPC_ABORTED);
        assert_string_equal(o.text, "that was all");
        rpc_client_free(&client);
        rpc_identity_free(&id);
        world_down(&w);
        assert_true(follower_closed);
    }
}

static void a_cancelled_stream_is_silent_and_its_server_learns(void **state)
{
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;
    struct outcome o = { .over = false };
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    struct rpc_pending *pending = NULL;
    struct rpc_pending *unary = NULL;

    (void)state;
    world_up(&w, false);
    client = client_as(&w, id);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status, RPC_OK);
    pending = rpc_client_follow(client, "/test/Follow", &check.base, &follows, &o);
    rpc_pending_cancel(&pending);
    check.id = 14;
    unary = rpc_client_call(client, "/postern.Authorize/Check", &check.base,
                            &postern__check_answer__descriptor, 60000, on_answer, &o);
    rpc_pending_cancel(&unary);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status, RPC_OK);
    assert_false(o.over);
    rpc_client_free(&client);
    rpc_identity_free(&id);
    world_down(&w);
    assert_false(o.over);
}

static void a_call_waits_for_a_server_that_comes_back(void **state)
{
    struct world w = { .rpc = NULL };
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    struct rpc_client *client = NULL;
    struct diag d = { .line = 0 };

    (void)state;
    world_up(&w, false);
    client = client_as(&w, id);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status, RPC_OK);
    rpc_server_free(&w.server);
    /* The first may leave on the old connection, before its end has come: UNAVAILABLE. */
    assert_int_not_equal(ask(client, "/postern.Authorize/Check", 1, 300).status, RPC_OK);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, 300).status, RPC_DEADLINE_EXCEEDED);
    assert_int_equal(rpc_server_new(w.rpc,
                                    &(struct rpc_server_opts){ .address = address,
                                                               .identity = w.server_id,
                                                               .methods = methods,
                                                               .n_methods = ARRAY_LEN(methods) },
                                    &w.server, &d),
                     ERR_OK);
    assert_int_equal(ask(client, "/postern.Authorize/Check", 1, PATIENCE_MS).status, RPC_OK);
    rpc_client_free(&client);
    rpc_identity_free(&id);
    world_down(&w);
}

static void health_is_open_to_anyone(void **state)
{
    struct world w = { .rpc = NULL };
    struct rpc_client_opts opts = { .target = address, .server = RPC_AUTHORIZE };
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    char text[RPC_TEXT_MAX];

    (void)state;
    world_up(&w, true);
    opts.ca_pem = rpc_identity_ca_pem(w.server_id);
    assert_int_equal(rpc_call_wait(&opts, "/grpc.health.v1.Health/Check", &request.base,
                                   &grpc__health__v1__health_check_response__descriptor,
                                   PATIENCE_MS, &answer, text),
                     RPC_OK);
    protobuf_c_message_free_unpacked(answer, NULL);
    world_down(&w);
}

static void a_task_runs_on_its_thread_in_time(void *arg)
{
    __atomic_store_n((bool *)arg, true, __ATOMIC_RELEASE);
}

static void tasks_run_even_when_the_rpc_ends(void **state)
{
    struct rpc *rpc = rpc_new(NULL);
    bool soon = false;
    bool late = false;

    (void)state;
    rpc_run(rpc, 3600000, a_task_runs_on_its_thread_in_time, &late);
    rpc_run(rpc, 1, a_task_runs_on_its_thread_in_time, &soon);
    spin(&soon);
    assert_false(late);
    rpc_free(&rpc);
    assert_true(late);
}

/* ---- hostile bytes --------------------------------------------------------------------------- */

/* A google.protobuf.Value of levels lists inside one another. */
static void nest(struct buf *out, int levels)
{
    struct buf inner;
    int i = 0;

    buf_init(&inner, 1 << 20);
    for (i = 0; i < levels; i++) {
        struct buf list;
        struct sv body = buf_sv(&inner);

        buf_init(&list, 1 << 20); /* ListValue { values = 1 }, then Value { list_value = 6 } */
        buf_add_char(&list, 0x0a);
        for (; body.n >= 128; body.n >>= 7U) {
            buf_add_char(&list, (char)(0x80 | (body.n & 0x7fU)));
        }
        buf_add_char(&list, (char)body.n);
        buf_add_sv(&list, buf_sv(&inner));
        buf_reset(&inner);
        buf_add_char(&inner, 0x32);
        body = buf_sv(&list);
        for (; body.n >= 128; body.n >>= 7U) {
            buf_add_char(&inner, (char)(0x80 | (body.n & 0x7fU)));
        }
        buf_add_char(&inner, (char)body.n);
        buf_add_sv(&inner, buf_sv(&list));
        buf_deinit(&list);
    }
    buf_add_sv(out, buf_sv(&inner));
    buf_deinit(&inner);
}

static void deep_nesting_is_refused_before_it_is_unpacked(void **state)
{
    static const struct {
        int levels;
        enum err err;
    } rows[] = { { 1, ERR_OK }, { 31, ERR_OK }, { 32, ERR_LIMIT }, { 5000, ERR_LIMIT } };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        ProtobufCMessage *m = NULL;
        struct buf bytes;

        buf_init(&bytes, 1 << 20);
        nest(&bytes, rows[i].levels);
        assert_int_equal(rpc_unpack(&google__protobuf__value__descriptor, buf_sv(&bytes), NULL, &m),
                         rows[i].err);
        if (m != NULL) {
            protobuf_c_message_free_unpacked(m, NULL);
        }
        buf_deinit(&bytes);
    }
}

static void bad_text_and_cut_messages_are_refused(void **state)
{
    static const struct {
        struct sv bytes;
        enum err err;
    } rows[] = {
        { { "\x1a\x05hel", 5 }, ERR_INVALID }, /* a length beyond the end */
        { { "\x22\x03"
            "a\0b",
            5 },
          ERR_INVALID },                            /* session is text: no NUL */
        { { "\x22\x02\xc3\x28", 4 }, ERR_INVALID }, /* and UTF-8 */
        { { "\x3a\x02\xc3\x28", 4 }, ERR_OK },      /* path is bytes */
        { { "\x0b", 1 }, ERR_INVALID },             /* a group */
        { { "\x00", 1 }, ERR_INVALID },             /* field 0 */
        { { "\x08", 1 }, ERR_INVALID },             /* no value */
        { { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 }, ERR_INVALID },
        { { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11 }, ERR_INVALID }, /* 65 bits */
        { { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 }, ERR_OK },
        { { "\x08\x07", 2 }, ERR_OK },
    };

    ProtobufCMessage *m = NULL;
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(rpc_scan(&postern__check_request__descriptor, rows[i].bytes), rows[i].err);
    }
    assert_int_equal(rpc_unpack(&postern__check_request__descriptor, SV("\x08\x07"), NULL, &m),
                     ERR_OK);
    assert_int_equal(((Postern__CheckRequest *)(void *)m)->id, 7);
    protobuf_c_message_free_unpacked(m, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_answer_fail_and_time_out),
        cmocka_unit_test(roles_and_strangers_are_turned_away),
        cmocka_unit_test(tokens_open_what_their_role_may),
        cmocka_unit_test(streams_deliver_in_order_and_end_with_a_status),
        cmocka_unit_test(a_cancelled_stream_is_silent_and_its_server_learns),
        cmocka_unit_test(a_call_waits_for_a_server_that_comes_back),
        cmocka_unit_test(health_is_open_to_anyone),
        cmocka_unit_test(tasks_run_even_when_the_rpc_ends),
        cmocka_unit_test(deep_nesting_is_refused_before_it_is_unpacked),
        cmocka_unit_test(bad_text_and_cut_messages_are_refused),
    };
    int failed = 0;

    test_address_unix(address);
    keys = make_keys("0123456789abcdef0123456789abcdef");
    foreign_keys = make_keys("ffffffffffffffffffffffffffffffff");
    loop = loop_new();
    buf_init(&echo.held, 1 << 20);
    failed = cmocka_run_group_tests_name("unix", tests, NULL, NULL);
    test_address_remove(address);
    test_address_tcp(address);
    failed += cmocka_run_group_tests_name("tcp", tests, NULL, NULL);
    buf_deinit(&echo.held);
    loop_free(&loop);
    keys_free(&keys);
    keys_free(&foreign_keys);
    return failed;
}
