/* authz_client beside authorizes that we play: checks are spread, what one does not answer another
 * does, and without an answer nobody gets in. */
#include "proxy/authz_client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/policy/reason.h"
#include "common/rpc/scan.h"
#include "common/rpc/server.h"
#include "common/rpc/wire.h"
#include "test/support/address.h"
#include "test/support/cmocka.h"

enum { FAKES = 2, CHECKS = 200, TURNS_MAX = 20000 };

enum manner { ANSWERS = 0, IS_SILENT, ANSWERS_FOR_THE_OTHER, IS_BEHIND };

struct fake {
    struct world *world;
    struct rpc_server *server;
    struct rpc_call *call; /* the open stream */
    enum manner manner;
    uint64_t asked[CHECKS * 2];
    size_t n_asked;
    struct buf out;
    char address[96];
};

struct check {
    struct world *world;
    unsigned answers;
    enum proxy_verdict verdict;
};

struct world {
    struct loop *loop;
    struct keys *keys;
    struct rpc *rpc;
    struct rpc_identity *authorize;
    struct rpc_identity *proxy;
    struct fake fakes[FAKES];
    char socket[TEST_ADDRESS]; /* of the first one */
    struct proxy_sockaddr at[FAKES];
    struct proxy_authz *authz;
    struct check checks[CHECKS];
    size_t n_sent;
    size_t n_answered;
    bool up;
    unsigned all_changed;
    int64_t stood_still_ms; /* the longest turn */
    struct event *look;
};

/* ---- authorize, played ----------------------------------------------------------------------- */

static void add_reply(struct fake *f, uint64_t id)
{
    static const char behind = POLICY_REASON_STORE_BEHIND;
    bool knows = f->manner != IS_BEHIND;
    char reply[4 * RPC_WIRE_FIELD_MAX];
    char *end = rpc_wire_put_number(reply, 1, id);
    size_t n = 0;

    end = rpc_wire_put_number(end, 2,
                              knows ? POSTERN__DECISION__ALLOW : POSTERN__DECISION__UNAVAILABLE);
    end = rpc_wire_put_bytes(end, 4, sv_of(&behind, knows ? 0 : 1));
    n = (size_t)(end - reply);
    rpc_wire_add_head(&f->out, 1, rpc_wire_head_size(2, n) + n);
    rpc_wire_add_head(&f->out, 2, n);
    buf_add(&f->out, reply, n);
}

static void flush(void *arg)
{
    struct fake *f = arg;

    if (f->out.n > 0 && rpc_call_can_send(f->call)) {
        rpc_call_send(f->call, buf_sv(&f->out));
        buf_reset(&f->out);
    }
}

static void on_message(void *arg, struct sv bytes)
{
    struct fake *f = arg;
    struct fake *other = &f->world->fakes[f == &f->world->fakes[0] ? 1 : 0];
    ProtobufCMessage *m = NULL;
    const Postern__CheckBatch *batch = NULL;

    assert_int_equal(rpc_unpack(&postern__check_batch__descriptor, bytes, NULL, &m), ERR_OK);
    batch = (const Postern__CheckBatch *)(const void *)m;
    for (size_t i = 0; f->manner == ANSWERS_FOR_THE_OTHER && i < other->n_asked; i++) {
        add_reply(f, other->asked[i]);
    }
    for (size_t i = 0; i < batch->n_checks; i++) {
        assert_true(f->n_asked < ARRAY_LEN(f->asked));
        f->asked[f->n_asked++] = batch->checks[i]->id;
        if (f->manner != IS_SILENT) {
            add_reply(f, batch->checks[i]->id);
        }
    }
    protobuf_c_message_free_unpacked(m, NULL);
    flush(f);
}

static void on_closed(void *arg)
{
    ((struct fake *)arg)->call = NULL;
}

static void on_stream(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const struct rpc_stream_ops ops = { .on_message = on_message,
                                               .on_writable = flush,
                                               .on_closed = on_closed };
    struct fake *f = arg;

    (void)request;
    f->call = call;
    rpc_call_stream(call, &ops, f);
}

static const struct rpc_method methods[] = {
    { .path = "/postern.Authorize/CheckStream",
      .roles = BIT(RPC_PROXY),
      .client_streams = true,
      .request = &postern__check_batch__descriptor,
      .handler = on_stream },
};

/* NULL: an authorize without the socket for it. */
static const struct rpc_method *direct;

static void fake_up(struct world *w, size_t i, const char *address)
{
    struct fake *f = &w->fakes[i];
    struct diag d = { .line = 0 };

    f->world = w;
    buf_deinit(&f->out); /* a second life */
    buf_init(&f->out, 1 << 20);
    (void)snprintf(f->address, sizeof(f->address), "%s", address);
    assert_int_equal(rpc_server_new(w->rpc,
                                    &(struct rpc_server_opts){ .address = f->address,
                                                               .identity = w->authorize,
                                                               .methods = methods,
                                                               .n_methods = ARRAY_LEN(methods),
                                                               .direct = direct,
                                                               .arg = f },
                                    &f->server, &d),
                     ERR_OK);
}

/* ---- the worker, played ---------------------------------------------------------------------- */

static void on_answer(void *arg, const struct proxy_answer *answer)
{
    struct check *c = arg;

    c->answers++;
    c->verdict = answer->verdict;
    c->world->n_answered++;
}

static void ask(struct world *w, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++) {
        Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

        w->checks[i].world = w;
        w->n_sent++;
        assert_true(proxy_authz_check(w->authz, &check, on_answer, &w->checks[i]) != 0);
    }
}

static void on_changed(void *arg, const struct sv *sessions, size_t n, bool all)
{
    (void)sessions;
    (void)n;
    ((struct world *)arg)->all_changed += all ? 1 : 0;
}

static void on_link(void *arg, bool up)
{
    ((struct world *)arg)->up = up;
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg; /* it only ends a turn */
}

/* Turns are counted, of which a timer ends one every 2 ms: a machine that stands still takes none away. */
static void run_until(struct world *w, bool (*until)(struct world *w))
{
    int64_t began_ms = clock_mono_ms();

    for (int turn = 0; !until(w) && turn < TURNS_MAX; turn++) {
        int64_t now_ms = 0;

        (void)event_base_loop(loop_base(w->loop), EVLOOP_ONCE);
        proxy_authz_flush(w->authz);
        now_ms = clock_mono_ms();
        w->stood_still_ms = MAX(w->stood_still_ms, now_ms - began_ms);
        began_ms = now_ms;
    }
    assert_true(until(w));
}

static void world_init(struct world *w)
{
    struct secret *secret = secret_new(sv_of("0123456789abcdef0123456789abcdef", 32));
    const struct secret *view[] = { secret };
    struct timeval often = { .tv_usec = 2000 };

    memset(w, 0, sizeof(*w));
    assert_int_equal(keys_new(view, 1, &w->keys), ERR_OK);
    secret_free(&secret);
    w->loop = loop_new();
    w->rpc = rpc_new(w->loop);
    w->authorize = rpc_identity_new(w->keys, RPC_AUTHORIZE);
    w->proxy = rpc_identity_new(w->keys, RPC_PROXY);
    w->look = event_new(loop_base(w->loop), -1, EV_PERSIST, on_look, w);
    assert_int_equal(event_add(w->look, &often), 0);
    for (size_t i = 0; i < FAKES; i++) {
        w->fakes[i].world = w;
    }
}

static void connect_to(struct world *w, const struct proxy_sockaddr *v, size_t n,
                       int64_t timeout_ms)
{
    w->authz = proxy_authz_new(&(struct proxy_authz_opts){ .loop = w->loop,
                                                           .identity = w->proxy,
                                                           .timeout_ms = timeout_ms,
                                                           .on_changed = on_changed,
                                                           .on_link = on_link,
                                                           .arg = w });
    proxy_authz_set(w->authz, v, n);
}

static void world_deinit(struct world *w)
{
    event_free(w->look);
    proxy_authz_free(&w->authz);
    for (size_t i = 0; i < FAKES; i++) {
        rpc_server_free(&w->fakes[i].server);
        buf_deinit(&w->fakes[i].out);
    }
    test_address_remove(w->socket);
    rpc_free(&w->rpc);
    loop_free(&w->loop);
    rpc_identity_free(&w->authorize);
    rpc_identity_free(&w->proxy);
    keys_free(&w->keys);
}

/* Two authorizes, one on a unix socket and one over TCP, both streams up. */
static bool both_up(struct world *w)
{
    return w->fakes[0].call != NULL && w->fakes[1].call != NULL && w->all_changed == 2;
}

static void two_up(struct world *w, int64_t timeout_ms)
{
    char tcp[TEST_ADDRESS];

    world_init(w);
    test_address_unix(w->socket);
    fake_up(w, 0, w->socket);
    if (direct != NULL) { /* the one beside it must do */
        assert_int_equal(unlink(w->socket + strlen("unix:")), 0);
    }
    w->at[0] = proxy_sockaddr_unix(w->socket + strlen("unix:"));
    test_address_tcp(tcp);
    fake_up(w, 1, tcp);
    assert_true(proxy_sockaddr_literal(
        SV("127.0.0.1"), (uint16_t)strtoul(strchr(tcp, ':') + 1, NULL, 10), &w->at[1]));
    connect_to(w, w->at, 2, timeout_ms);
    run_until(w, both_up);
    assert_true(w->up);
}

static bool all_answered(struct world *w)
{
    return w->n_answered == CHECKS;
}

static bool all_so_far_answered(struct world *w)
{
    return w->n_answered == w->n_sent;
}

static void all_are_let_in_once(const struct world *w)
{
    for (size_t i = 0; i < CHECKS; i++) {
        assert_int_equal(w->checks[i].answers, 1);
        assert_int_equal(w->checks[i].verdict, PROXY_VERDICT_ALLOW);
    }
}

static void checks_are_spread_evenly(void **state)
{
    struct world w;

    (void)state;
    two_up(&w, 60000);
    for (size_t i = 0; i < CHECKS; i++) { /* each is a message of its own */
        ask(&w, i, 1);
        run_until(&w, all_so_far_answered);
    }
    all_are_let_in_once(&w);
    assert_int_equal(w.fakes[0].n_asked, CHECKS / 2);
    assert_int_equal(w.fakes[1].n_asked, CHECKS / 2);
    world_deinit(&w);
}

static bool all_asked(struct world *w)
{
    return w->fakes[0].n_asked + w->fakes[1].n_asked == w->n_sent;
}

/* Half of the checks goes to one, half to the other. */
static void ask_both(struct world *w)
{
    ask(w, 0, CHECKS / 2);
    run_until(w, all_asked);
    ask(w, CHECKS / 2, CHECKS / 2);
    run_until(w, all_asked);
    assert_int_equal(w->fakes[0].n_asked, CHECKS / 2);
}

static void a_broken_stream_hands_its_checks_to_another_at_once(void **state)
{
    struct world w;

    (void)state;
    two_up(&w, 60000);
    w.fakes[0].manner = IS_SILENT;
    ask_both(&w);
    rpc_call_finish(w.fakes[0].call, RPC_UNAVAILABLE, "going");
    run_until(&w, all_answered);
    all_are_let_in_once(&w);
    assert_true(w.up);
    world_deinit(&w);
}

/* Whether the machine gave it the time that it takes: it is given up after three quarters of 6 s. */
static bool a_silent_one_is_given_up(void)
{
    struct world w;
    bool in_time = false;

    two_up(&w, 6000);
    w.fakes[0].manner = IS_SILENT;
    ask_both(&w);
    run_until(&w, all_answered);
    in_time = w.stood_still_ms < 500;
    if (in_time) {
        all_are_let_in_once(&w);
    }
    world_deinit(&w);
    return in_time;
}

static void a_silent_one_is_given_up_while_another_can_still_answer(void **state)
{
    int tries = 1;

    (void)state;
    while (!a_silent_one_is_given_up()) {
        assert_true(tries < 10);
        tries++;
    }
}

static void without_an_answer_nobody_gets_in(void **state)
{
    struct world w;

    (void)state;
    two_up(&w, 300);
    w.fakes[0].manner = IS_SILENT;
    w.fakes[1].manner = IS_SILENT;
    ask(&w, 0, CHECKS);
    run_until(&w, all_answered);
    for (size_t i = 0; i < CHECKS; i++) {
        assert_int_equal(w.checks[i].answers, 1);
        assert_int_equal(w.checks[i].verdict, PROXY_VERDICT_NONE);
    }
    world_deinit(&w);
}

static bool half_answered(struct world *w)
{
    return w->n_answered >= CHECKS / 2;
}

static void who_was_not_asked_has_no_say(void **state)
{
    struct world w;

    (void)state;
    two_up(&w, 60000);
    w.fakes[0].manner = IS_SILENT;
    w.fakes[1].manner = ANSWERS_FOR_THE_OTHER;
    ask_both(&w);
    run_until(&w, half_answered);
    assert_int_equal(w.n_answered, CHECKS / 2); /* its own, though it answered all */
    world_deinit(&w);
}

static void for_one_that_knows_no_store_another_answers(void **state)
{
    struct world w;

    (void)state;
    two_up(&w, 60000);
    w.fakes[0].manner = IS_BEHIND;
    ask(&w, 0, CHECKS);
    run_until(&w, all_answered);
    all_are_let_in_once(&w);
    assert_true(w.fakes[0].n_asked > 0);
    assert_int_equal(w.fakes[1].n_asked, CHECKS);
    world_deinit(&w);
}

static void where_none_knows_the_store_nobody_gets_in(void **state)
{
    struct world w;

    (void)state;
    two_up(&w, 60000);
    w.fakes[0].manner = IS_BEHIND;
    w.fakes[1].manner = IS_BEHIND;
    for (size_t i = 0; i < CHECKS; i++) {
        ask(&w, i, 1);
        run_until(&w, all_so_far_answered);
        assert_int_equal(w.checks[i].answers, 1);
        assert_int_equal(w.checks[i].verdict, PROXY_VERDICT_UNAVAILABLE);
    }
    world_deinit(&w);
}

static void one_that_is_no_longer_named_hands_its_checks_over(void **state)
{
    struct world w;
    void *kept = NULL;

    (void)state;
    two_up(&w, 60000);
    w.fakes[0].manner = IS_SILENT;
    ask_both(&w);
    kept = w.fakes[1].call;
    proxy_authz_set(w.authz, &w.at[1], 1);
    run_until(&w, all_answered);
    all_are_let_in_once(&w);
    assert_ptr_equal(w.fakes[1].call, kept); /* its stream has stayed */
    assert_true(w.up);
    world_deinit(&w);
}

static void of_too_many_the_first_ones_count(void **state)
{
    struct proxy_sockaddr many[PROXY_AUTHZ_PEERS_MAX + 1];
    struct world w;

    (void)state;
    two_up(&w, 60000);
    many[0] = w.at[0];
    for (size_t i = 1; i < ARRAY_LEN(many); i++) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/run/authz-client-test-%d-none-%zu", (int)getpid(), i);
        many[i] = proxy_sockaddr_unix(path);
    }
    proxy_authz_set(w.authz, many, ARRAY_LEN(many));
    ask(&w, 0, CHECKS);
    run_until(&w, all_answered);
    all_are_let_in_once(&w);
    assert_int_equal(w.fakes[1].n_asked, 0);
    proxy_authz_set(w.authz, NULL, 0);
    assert_false(w.up);
    world_deinit(&w);
}

static bool is_down(struct world *w)
{
    return !w->up;
}

static void checks_outlive_a_time_without_any_authorize(void **state)
{
    char address[96];
    struct world w;

    (void)state;
    two_up(&w, 60000);
    memcpy(address, w.fakes[1].address, sizeof(address));
    rpc_server_free(&w.fakes[0].server);
    rpc_server_free(&w.fakes[1].server);
    run_until(&w, is_down);
    ask(&w, 0, CHECKS);
    fake_up(&w, 1, address);
    run_until(&w, all_answered);
    all_are_let_in_once(&w);
    world_deinit(&w);
}

static bool is_asked(struct world *w)
{
    return w->fakes[0].n_asked == w->n_sent;
}

/* Direct: the answer has left when the turn ends in which the question came. */
static void an_answer_that_is_there_needs_no_event(void **state)
{
    struct world w;

    (void)state;
    if (direct == NULL) {
        skip();
    }
    two_up(&w, 60000);
    ask(&w, 0, 2);
    proxy_authz_flush(w.authz);
    assert_false(proxy_authz_is_awaited(w.authz)); /* there are two */
    proxy_authz_look(w.authz);
    run_until(&w, all_so_far_answered);
    proxy_authz_set(w.authz, &w.at[0], 1);
    assert_false(proxy_authz_is_awaited(w.authz));
    w.fakes[0].n_asked = 0;
    w.n_sent = 0;
    w.n_answered = 0;
    ask(&w, 2, 1);
    assert_false(proxy_authz_is_awaited(w.authz)); /* it has not left */
    proxy_authz_flush(w.authz);
    assert_true(proxy_authz_is_awaited(w.authz));
    proxy_authz_look(w.authz);
    assert_int_equal(w.n_answered, 0);
    assert_int_equal(w.checks[2].verdict, PROXY_VERDICT_NONE);
    run_until(&w, is_asked);
    assert_int_equal(w.n_answered, 0);
    proxy_authz_look(w.authz);
    assert_int_equal(w.n_answered, 1);
    assert_int_equal(w.checks[2].verdict, PROXY_VERDICT_ALLOW);
    assert_false(proxy_authz_is_awaited(w.authz));
    proxy_authz_look(w.authz);
    (void)event_base_loop(loop_base(w.loop), EVLOOP_ONCE); /* the event tells of nothing new */
    assert_int_equal(w.n_answered, 1);
    assert_true(w.up);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_are_spread_evenly),
        cmocka_unit_test(a_broken_stream_hands_its_checks_to_another_at_once),
        cmocka_unit_test(a_silent_one_is_given_up_while_another_can_still_answer),
        cmocka_unit_test(without_an_answer_nobody_gets_in),
        cmocka_unit_test(who_was_not_asked_has_no_say),
        cmocka_unit_test(for_one_that_knows_no_store_another_answers),
        cmocka_unit_test(where_none_knows_the_store_nobody_gets_in),
        cmocka_unit_test(one_that_is_no_longer_named_hands_its_checks_over),
        cmocka_unit_test(an_answer_that_is_there_needs_no_event),
        cmocka_unit_test(of_too_many_the_first_ones_count),
        cmocka_unit_test(checks_outlive_a_time_without_any_authorize),
    };

    int failed = 0;

    (void)signal(SIGPIPE, SIG_IGN); /* as every daemon does: OpenSSL writes to sockets */
    failed = cmocka_run_group_tests_name("gRPC core", tests, NULL, NULL);
    direct = &methods[0];
    return failed + cmocka_run_group_tests_name("direct", tests, NULL, NULL);
}
