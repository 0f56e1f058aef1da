/* registry.Registry: who serves what, as Pomerium's services report it and its console asks. It is in
 * memory and is forgotten with the process: whoever is there reports again within half a minute. All on
 * the loop. A watcher is sent the whole list whenever it changes:
 *
 *   Report, or an end --> changed --> each watcher that can take it: the list; the others when they can */
#include "registry.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "databroker/service_int.h"

enum {
    CALL_BACK_S = 30,
    SERVICES_MAX = 1024,
    REPORT_MAX = 64, /* services of one report */
    WATCHERS_MAX = 64,
    KINDS_MAX = 32
};

struct entry {
    Registry__ServiceKind kind;
    char *endpoint;
    int64_t until_ms;
};

struct broker_registry {
    struct broker_service *service;
    int64_t ttl_ms;
    struct entry entries[SERVICES_MAX];
    size_t count;
    uint64_t generation; /* grows with each change */
    struct list watchers;
    size_t n_watchers;
};

struct watcher {
    struct broker_registry *registry;
    struct list in_registry;
    struct rpc_call *call;
    uint32_t kinds; /* BIT of each */
    uint64_t seen;
    bool finished;
    bool closed;
};

/* ---- the list -------------------------------------------------------------------------------- */

static struct entry *find(struct broker_registry *registry, const Registry__Service *service)
{
    for (size_t i = 0; i < registry->count; i++) {
        struct entry *e = &registry->entries[i];

        if (e->kind == service->kind && sv_eq(sv_from(e->endpoint), sv_from(service->endpoint))) {
            return e;
        }
    }
    return NULL;
}

static void forget_ended(struct broker_registry *registry)
{
    int64_t now = clock_mono_ms();
    size_t kept = 0;

    for (size_t i = 0; i < registry->count; i++) {
        if (registry->entries[i].until_ms > now) {
            registry->entries[kept++] = registry->entries[i];
        } else {
            mem_free(&registry->entries[i].endpoint);
        }
    }
    registry->generation += kept < registry->count ? 1 : 0;
    registry->count = kept;
}

static enum err report(struct broker_registry *registry, const Registry__Service *service)
{
    struct entry *e = find(registry, service);

    if (e == NULL && registry->count == SERVICES_MAX) {
        return ERR_LIMIT;
    }
    if (e == NULL) {
        e = &registry->entries[registry->count++];
        *e = (struct entry){ .kind = service->kind, .endpoint = mem_strdup(service->endpoint) };
        registry->generation++;
    }
    e->until_ms = clock_mono_ms() + registry->ttl_ms;
    return ERR_OK;
}

/* In arena; borrows the endpoints. */
static void list_fill(const struct broker_registry *registry, uint32_t kinds, struct arena *arena,
                      Registry__ServiceList *list)
{
    list->services = arena_alloc(arena, (registry->count + 1) * sizeof(void *));
    for (size_t i = 0; i < registry->count; i++) {
        const struct entry *e = &registry->entries[i];
        Registry__Service *service = NULL;

        if ((kinds & BIT(e->kind)) != 0) {
            service = arena_alloc(arena, sizeof(*service));
            registry__service__init(service);
            service->kind = e->kind;
            service->endpoint = e->endpoint;
            list->services[list->n_services++] = service;
        }
    }
}

/* ---- watching -------------------------------------------------------------------------------- */

static void show(struct watcher *w)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    Registry__ServiceList list = REGISTRY__SERVICE_LIST__INIT;
    size_t size = 0;
    uint8_t *bytes = NULL;

    if (w->closed || w->finished || w->seen == w->registry->generation ||
        !rpc_call_can_send(w->call)) {
        return;
    }
    arena_init(&arena);
    w->seen = w->registry->generation;
    list_fill(w->registry, w->kinds, &arena, &list);
    size = registry__service_list__get_packed_size(&list);
    bytes = arena_alloc(&arena, size + 1);
    (void)registry__service_list__pack(&list, bytes);
    rpc_call_send(w->call, sv_of(bytes, size));
}

static void on_writable(void *arg)
{
    show(arg);
}

static void on_closed(void *arg)
{
    struct watcher *w = arg;
    struct broker_service *service = w->registry->service;

    list_remove(&w->in_registry);
    w->registry->n_watchers--;
    mem_free(&w);
    broker_service_call_over(service);
}

static const struct rpc_stream_ops watcher_ops = { .on_writable = on_writable,
                                                   .on_closed = on_closed };

static void show_all(struct broker_registry *registry)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &registry->watchers) {
        show(LIST_ENTRY(it, struct watcher, in_registry));
    }
}

static void finish(struct watcher *w, enum rpc_status status, const char *text)
{
    if (!w->finished) {
        w->finished = true;
        rpc_call_finish(w->call, status, text); /* w may be gone when it returns */
    }
}

void broker_registry_stop(struct broker_registry *registry)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &registry->watchers) {
        finish(LIST_ENTRY(it, struct watcher, in_registry), RPC_UNAVAILABLE,
               "the databroker stops");
    }
}

void broker_registry_drop(struct broker_registry *registry, struct sv token_id)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &registry->watchers) {
        struct watcher *w = LIST_ENTRY(it, struct watcher, in_registry);

        if (sv_eq(sv_from(rpc_call_who(w->call)), token_id)) {
            finish(w, RPC_UNAUTHENTICATED, "the token was revoked");
        }
    }
}

/* ---- the calls ------------------------------------------------------------------------------- */

static bool is_kind(Registry__ServiceKind kind)
{
    return kind > REGISTRY__SERVICE_KIND__UNDEFINED_DO_NOT_USE && (int)kind < KINDS_MAX;
}

static enum err report_check(const Registry__RegisterRequest *in, struct diag *d)
{
    enum err err = ERR_OK;

    if (in->n_services == 0 || in->n_services > REPORT_MAX) {
        diag_set(d, "services: 1 to %d", REPORT_MAX);
        return in->n_services == 0 ? ERR_INVALID : ERR_LIMIT;
    }
    for (size_t i = 0; i < in->n_services && err == ERR_OK; i++) {
        if (!is_kind(in->services[i]->kind)) {
            diag_set(d, "a service without a kind");
            return ERR_INVALID;
        }
        err = broker_name_check(sv_from(in->services[i]->endpoint), "endpoint", d);
    }
    return err;
}

void broker_on_report(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Registry__RegisterRequest *in = (const Registry__RegisterRequest *)(const void *)request;
    struct broker_service *service = arg;
    Registry__RegisterResponse response = REGISTRY__REGISTER_RESPONSE__INIT;
    Google__Protobuf__Duration again = GOOGLE__PROTOBUF__DURATION__INIT;
    struct diag d = { .text = "" };
    enum err err = report_check(in, &d);

    forget_ended(service->registry);
    for (size_t i = 0; i < in->n_services && err == ERR_OK; i++) {
        err = report(service->registry, in->services[i]);
        if (err != ERR_OK) {
            diag_set(&d, "more than %d services", SERVICES_MAX);
        }
    }
    show_all(service->registry);
    if (err != ERR_OK) {
        rpc_call_fail(call, rpc_status_of(err), d.text);
        return;
    }
    again.seconds = CALL_BACK_S;
    response.call_back_after = &again;
    rpc_call_reply(call, &response.base);
}

/* No kinds: all. False: it was answered. */
static bool kinds_read(struct rpc_call *call, const Registry__ListRequest *in, uint32_t *kinds_out)
{
    *kinds_out = in->n_kinds == 0 ? UINT32_MAX : 0;
    for (size_t i = 0; i < in->n_kinds; i++) {
        if (!is_kind(in->kinds[i])) {
            rpc_call_fail(call, RPC_INVALID_ARGUMENT, "no such kind of service");
            return false;
        }
        *kinds_out |= BIT(in->kinds[i]);
    }
    return true;
}

void broker_on_list_services(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    struct broker_service *service = arg;
    Registry__ServiceList list = REGISTRY__SERVICE_LIST__INIT;
    uint32_t kinds = 0;

    arena_init(&arena);
    if (!kinds_read(call, (const Registry__ListRequest *)(const void *)request, &kinds)) {
        return;
    }
    forget_ended(service->registry);
    list_fill(service->registry, kinds, &arena, &list);
    rpc_call_reply(call, &list.base);
}

void broker_on_watch_services(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct broker_service *service = arg;
    struct broker_registry *registry = service->registry;
    struct watcher *w = NULL;
    uint32_t kinds = 0;

    if (!kinds_read(call, (const Registry__ListRequest *)(const void *)request, &kinds)) {
        return;
    }
    if (service->stopping || registry->n_watchers == WATCHERS_MAX) {
        rpc_call_fail(call, service->stopping ? RPC_UNAVAILABLE : RPC_RESOURCE_EXHAUSTED,
                      service->stopping ? "the databroker stops" : "too many watch");
        return;
    }
    w = MEM_NEW(struct watcher);
    w->registry = registry;
    w->call = call;
    w->kinds = kinds;
    list_push_back(&registry->watchers, &w->in_registry);
    registry->n_watchers++;
    service->open_calls++;
    rpc_call_stream(call, &watcher_ops, w);
    broker_registry_tick(registry);
}

/* ---- life ------------------------------------------------------------------------------------ */

void broker_registry_tick(struct broker_registry *registry)
{
    forget_ended(registry);
    show_all(registry);
}

struct broker_registry *broker_registry_new(struct broker_service *service, int64_t ttl_ms)
{
    struct broker_registry *registry = MEM_NEW(struct broker_registry);

    registry->service = service;
    registry->ttl_ms = ttl_ms;
    registry->generation = 1;
    list_init(&registry->watchers);
    return registry;
}

void broker_registry_free(struct broker_registry **registry)
{
    struct broker_registry *r = TAKE(*registry);

    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->count; i++) {
        mem_free(&r->entries[i].endpoint);
    }
    mem_free(&r);
}
