/* registry over gRPC: what nobody reports any more is in no answer. What the calls say: test/flow/test_databroker.py. */
#include <unistd.h>

#include <event2/event.h>

#include "registry.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/client.h"
#include "common/rpc/scan.h"
#include "databroker/service.h"
#include "databroker/service_int.h"
#include "test/support/address.h"
#include "test/support/cmocka.h"

enum { TTL_MS = 100, TURNS_MAX = 20000, NOT_YET = -1 };

struct world {
    struct loop *loop;
    struct keys *keys;
    struct rpc *rpc;
    struct rpc_identity *databroker;
    struct rpc_identity *cli;
    struct broker_service *service;
    struct rpc_server *server;
    struct rpc_client *client;
    struct rpc_pending *watch;
    struct event *look;
    char at[TEST_ADDRESS];
    int listed;  /* services of the last answer */
    int watched; /* of the watcher's last message */
    bool saw_it; /* one of them had a service */
    bool done;
};

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg; /* it only ends a turn */
}

static void run_until(struct world *w, bool (*until)(const struct world *w))
{
    for (int turn = 0; !until(w) && turn < TURNS_MAX; turn++) {
        (void)event_base_loop(loop_base(w->loop), EVLOOP_ONCE);
    }
    assert_true(until(w));
}

static void world_init(struct world *w, int64_t ttl_ms)
{
    struct secret *secret = secret_new(sv_of("0123456789abcdef0123456789abcdef", 32));
    const struct secret *view[] = { secret };
    const struct broker_store_opts store = { .target = NULL };
    const struct timeval often = { .tv_usec = 2000 };
    struct rpc_server_opts opts = { .address = w->at };
    struct diag d = { .text = "" };

    *w = (struct world){ .listed = NOT_YET, .watched = NOT_YET };
    assert_int_equal(keys_new(view, 1, &w->keys), ERR_OK);
    secret_free(&secret);
    w->loop = loop_new();
    w->rpc = rpc_new(w->loop);
    w->databroker = rpc_identity_new(w->keys, RPC_DATABROKER);
    w->cli = rpc_identity_new(w->keys, RPC_CLI);
    w->look = event_new(loop_base(w->loop), -1, EV_PERSIST, on_look, w);
    assert_int_equal(event_add(w->look, &often), 0);
    assert_int_equal(broker_service_new(w->loop, &broker_store_sqlite, &store, &w->service, &d),
                     ERR_OK);
    broker_registry_free(&w->service->registry);
    w->service->registry = broker_registry_new(w->service, ttl_ms);
    test_address_unix(w->at);
    opts.identity = w->databroker;
    opts.methods = broker_service_methods(&opts.n_methods);
    opts.arg = w->service;
    assert_int_equal(rpc_server_new(w->rpc, &opts, &w->server, &d), ERR_OK);
    w->client = rpc_client_new(
        w->rpc,
        &(struct rpc_client_opts){ .target = w->at, .server = RPC_DATABROKER, .identity = w->cli });
}

static bool is_done(const struct world *w)
{
    return w->done;
}

static void on_stopped(void *arg)
{
    ((struct world *)arg)->done = true;
}

static void world_deinit(struct world *w)
{
    rpc_pending_cancel(&w->watch);
    w->done = false;
    broker_service_stop(w->service, on_stopped, w);
    run_until(w, is_done);
    rpc_client_free(&w->client);
    rpc_server_free(&w->server);
    broker_service_free(&w->service);
    event_free(w->look);
    test_address_remove(w->at);
    rpc_free(&w->rpc);
    loop_free(&w->loop);
    rpc_identity_free(&w->databroker);
    rpc_identity_free(&w->cli);
    keys_free(&w->keys);
}

static void on_reported(void *arg, enum rpc_status status, const char *text,
                        const ProtobufCMessage *response)
{
    (void)text;
    (void)response;
    assert_int_equal(status, RPC_OK);
    ((struct world *)arg)->done = true;
}

static void report(struct world *w)
{
    Registry__RegisterRequest request = REGISTRY__REGISTER_REQUEST__INIT;
    Registry__Service service = REGISTRY__SERVICE__INIT;
    Registry__Service *services[] = { &service };

    service.kind = REGISTRY__SERVICE_KIND__PROXY;
    service.endpoint = base_unconst("https://proxy.test");
    request.n_services = 1;
    request.services = services;
    w->done = false;
    (void)rpc_client_call(w->client, "/registry.Registry/Report", &request.base,
                          &registry__register_response__descriptor, 60000, on_reported, w);
    run_until(w, is_done);
}

static void on_listed(void *arg, enum rpc_status status, const char *text,
                      const ProtobufCMessage *response)
{
    struct world *w = arg;

    (void)text;
    assert_int_equal(status, RPC_OK);
    w->listed = (int)((const Registry__ServiceList *)(const void *)response)->n_services;
    w->done = true;
}

static int list(struct world *w)
{
    Registry__ListRequest request = REGISTRY__LIST_REQUEST__INIT;

    w->done = false;
    (void)rpc_client_call(w->client, "/registry.Registry/List", &request.base,
                          &registry__service_list__descriptor, 60000, on_listed, w);
    run_until(w, is_done);
    return w->listed;
}

static void on_message(void *arg, struct sv bytes)
{
    struct world *w = arg;
    ProtobufCMessage *m = NULL;

    assert_int_equal(rpc_unpack(&registry__service_list__descriptor, bytes, NULL, &m), ERR_OK);
    w->watched = (int)((const Registry__ServiceList *)(const void *)m)->n_services;
    w->saw_it = w->saw_it || w->watched == 1;
    protobuf_c_message_free_unpacked(m, NULL);
}

static void on_end(void *arg, enum rpc_status status, const char *text)
{
    (void)arg;
    fail_msg("the watch ended: %d %s", (int)status, text);
}

static void watch(struct world *w)
{
    static const struct rpc_follow_ops ops = { .on_message = on_message, .on_end = on_end };
    Registry__ListRequest request = REGISTRY__LIST_REQUEST__INIT;

    w->watch = rpc_client_follow(w->client, "/registry.Registry/Watch", &request.base, &ops, w);
}

static bool has_one(const struct world *w)
{
    return w->watched == 1;
}

static bool has_word(const struct world *w)
{
    return w->watched != NOT_YET;
}

static bool saw_it_go(const struct world *w)
{
    return w->saw_it && w->watched == 0;
}

static void wait_out(void)
{
    int64_t until_ms = clock_mono_ms() + TTL_MS;

    while (clock_mono_ms() <= until_ms) {
        (void)usleep(10000);
    }
}

static void what_is_reported_is_there(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, BROKER_REGISTRY_TTL_MS);
    report(&w);
    assert_int_equal(list(&w), 1);
    watch(&w);
    run_until(&w, has_one);
    world_deinit(&w);
}

static void a_watcher_hears_that_nobody_reports_it_any_more(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, TTL_MS);
    watch(&w);
    run_until(&w, has_word);
    report(&w);
    run_until(&w, saw_it_go); /* nobody calls: by the service's own clock */
    world_deinit(&w);
}

static void what_nobody_reports_any_more_is_in_no_list(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, TTL_MS);
    report(&w);
    wait_out();
    assert_int_equal(list(&w), 0);
    world_deinit(&w);
}

static void who_begins_to_watch_is_not_told_of_it(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, TTL_MS);
    report(&w);
    wait_out();
    watch(&w);
    run_until(&w, has_word);
    assert_int_equal(w.watched, 0);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_reported_is_there),
        cmocka_unit_test(a_watcher_hears_that_nobody_reports_it_any_more),
        cmocka_unit_test(what_nobody_reports_any_more_is_in_no_list),
        cmocka_unit_test(who_begins_to_watch_is_not_told_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
