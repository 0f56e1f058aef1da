#include "common/rpc/health.h"

#include "health.pb-c.h"

#include "common/mem.h"
#include "common/rpc/services.h"

struct watcher {
    struct list in_health;
    struct rpc_health *health;
    struct rpc_call *call;
    bool known; /* the server has this service */
    int told;   /* the status that was sent last */
};

enum {
    UNKNOWN_SERVICE = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN,
    SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING,
    NOT_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING,
    NOTHING_TOLD = -1
};

void rpc_health_init(struct rpc_health *health, const struct rpc_method *methods, size_t n)
{
    *health = (struct rpc_health){ .methods = methods, .n_methods = n };
    list_init(&health->watchers);
}

static bool is_known(const struct rpc_health *health, const ProtobufCMessage *request)
{
    const Grpc__Health__V1__HealthCheckRequest *r = (const void *)request;
    struct sv name = sv_from(r->service);

    return name.n == 0 || rpc_services_has(health->methods, health->n_methods, name);
}

static int status_of(const struct rpc_health *health, bool known)
{
    if (!known) {
        return UNKNOWN_SERVICE;
    }
    return health->serving ? SERVING : NOT_SERVING;
}

static void check(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const struct rpc_health *health = arg;
    Grpc__Health__V1__HealthCheckResponse r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (!is_known(health, request)) {
        rpc_call_fail(call, RPC_NOT_FOUND, "no such service");
        return;
    }
    r.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status_of(health, true);
    rpc_call_reply(call, &r.base);
}

/* What changes while a message is on its way is told when that has left. */
static void tell(struct watcher *w)
{
    Grpc__Health__V1__HealthCheckResponse r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    int status = status_of(w->health, w->known);
    uint8_t bytes[16];
    size_t n = 0;

    if (status == w->told || !rpc_call_can_send(w->call)) {
        return;
    }
    w->told = status;
    r.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    n = protobuf_c_message_get_packed_size(&r.base);
    CHECK(n <= sizeof(bytes));
    (void)protobuf_c_message_pack(&r.base, bytes);
    rpc_call_send(w->call, sv_of(bytes, n));
}

static void on_watch_writable(void *arg)
{
    tell(arg);
}

static void on_watch_closed(void *arg)
{
    struct watcher *w = arg;

    list_remove(&w->in_health);
    mem_free(&w);
}

static void watch(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const struct rpc_stream_ops ops = { .on_writable = on_watch_writable,
                                               .on_closed = on_watch_closed };
    struct rpc_health *health = arg;
    struct watcher *w = MEM_NEW(struct watcher);

    *w = (struct watcher){
        .health = health, .call = call, .known = is_known(health, request), .told = NOTHING_TOLD
    };
    list_push_back(&health->watchers, &w->in_health);
    rpc_call_stream(call, &ops, w);
    tell(w);
}

const struct rpc_method rpc_health_methods[RPC_HEALTH_METHODS] = {
    { .path = "/grpc.health.v1.Health/Check",
      .request = &grpc__health__v1__health_check_request__descriptor,
      .handler = check },
    { .path = "/grpc.health.v1.Health/Watch",
      .request = &grpc__health__v1__health_check_request__descriptor,
      .handler = watch },
};

void rpc_health_set(struct rpc_health *health, bool serving)
{
    struct list *it = NULL;

    health->serving = serving;
    LIST_FOREACH(it, &health->watchers) {
        tell(LIST_ENTRY(it, struct watcher, in_health));
    }
}
