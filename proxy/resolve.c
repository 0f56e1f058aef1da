#include "proxy/resolve.h"

#include <ares.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"

/* OPEN_MAX lookups are under way at once; the rest waits its turn. TTL_MAX_S: a record that says "a week"
 * is looked at once an hour all the same. */
enum { OPEN_MAX = 64, TTL_MIN_MS = 1000, TTL_MAX_S = 3600, SERVERS_TEXT = 1024 };

/* A name, shared by all who watch it. */
struct entry {
    struct list in_queue;  /* waits to be asked about */
    struct list in_asking; /* with an open lookup, or else alone */
    struct proxy_resolver *resolver;
    char *host;
    struct list watchers;
    struct event *again;
    bool told;                        /* there was an answer, or a first failure */
    bool second;                      /* the first family had no address */
    bool freed;                       /* nobody watches any more, but a lookup is open */
    int status;                       /* of c-ares; what the last lookup ended with */
    struct proxy_sockaddr *addresses; /* sorted */
    size_t n;
};

struct proxy_name {
    struct list in_entry;
    struct entry *entry;
    proxy_name_fn changed;
    void *arg;
    struct event *known; /* tells what was known already, once */
};

struct watched_socket {
    struct list in_resolver;
    struct proxy_resolver *resolver;
    ares_socket_t fd;
    struct event *event;
};

struct proxy_resolver {
    struct loop *loop;
    struct config_dns conf;
    char servers[SERVERS_TEXT];
    ares_channel channel;
    bool stale; /* a lookup failed: read /etc/resolv.conf again when no lookup is open */
    struct event *timer;
    struct list sockets;
    struct map *entries;
    struct list queue;
    struct list asking;
    size_t n_asking;
};

static void ask_next(struct proxy_resolver *r);

/* ---- c-ares on the loop ---------------------------------------------------------------------- */

static void arm_timer(struct proxy_resolver *r)
{
    struct timeval longest = { .tv_sec = 1 };
    struct timeval left;
    struct timeval *wait = ares_timeout(r->channel, &longest, &left);

    if (r->n_asking == 0) {
        (void)event_del(r->timer);
    } else {
        (void)event_add(r->timer, wait);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_resolver *r = arg;

    (void)fd;
    (void)what;
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    ask_next(r);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct watched_socket *s = arg;
    struct proxy_resolver *r = s->resolver;

    ares_process_fd(r->channel, (what & EV_READ) != 0 ? fd : ARES_SOCKET_BAD,
                    (what & EV_WRITE) != 0 ? fd : ARES_SOCKET_BAD);
    ask_next(r); /* s may be gone */
}

static struct watched_socket *find_socket(struct proxy_resolver *r, ares_socket_t fd)
{
    struct list *it = NULL;

    LIST_FOREACH(it, &r->sockets) {
        struct watched_socket *s = LIST_ENTRY(it, struct watched_socket, in_resolver);

        if (s->fd == fd) {
            return s;
        }
    }
    return NULL;
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct proxy_resolver *r = arg;
    struct watched_socket *s = find_socket(r, fd);

    if (s != NULL) {
        event_free(s->event);
        list_remove(&s->in_resolver);
        mem_free(&s);
    }
    if (readable == 0 && writable == 0) {
        return;
    }
    s = MEM_NEW(struct watched_socket);
    s->resolver = r;
    s->fd = fd;
    s->event = event_new(
        loop_base(r->loop), fd,
        (short)(EV_PERSIST | (readable != 0 ? EV_READ : 0) | (writable != 0 ? EV_WRITE : 0)),
        on_socket, s);
    CHECK(s->event != NULL && event_add(s->event, NULL) == 0);
    list_push_back(&r->sockets, &s->in_resolver);
}

static void open_channel(struct proxy_resolver *r)
{
    struct ares_options options = {
        .flags = r->conf.use_tcp ? ARES_FLAG_USEVC : 0,
        .timeout = (int)r->conf.query_timeout_ms,
        .tries = (int)r->conf.query_tries,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = r,
    };
    int code = ares_init_options(&r->channel, &options,
                                 ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                     ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE);

    CHECK(code == ARES_SUCCESS); /* it fails for want of memory only */
    if (r->servers[0] != '\0') {
        code = ares_set_servers_ports_csv(r->channel, r->servers);
        CHECK(code == ARES_SUCCESS); /* the configuration was checked */
    }
    r->stale = false;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void entry_free(struct entry *e)
{
    list_remove(&e->in_queue);
    event_free(e->again);
    mem_free(&e->addresses);
    mem_free(&e->host);
    mem_free(&e);
}

static void ask_in(struct entry *e, int64_t ms)
{
    struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(e->again, &tv);
}

static void tell(struct entry *e)
{
    const struct proxy_addresses addresses = { e->addresses, e->n };
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &e->watchers) {
        struct proxy_name *name = LIST_ENTRY(it, struct proxy_name, in_entry);

        (void)event_del(name->known);
        name->changed(name->arg, &addresses);
    }
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct proxy_sockaddr));
}

/* In one order, whatever the server's: a rotated answer is no change. Returns the number. */
static size_t sorted(const struct ares_addrinfo *found, struct proxy_sockaddr *out, int64_t *ttl_s)
{
    const struct ares_addrinfo_node *node = NULL;
    size_t n = 0;
    size_t kept = 0;
    size_t i = 0;

    for (node = found->nodes; node != NULL && n < PROXY_ADDRESSES_MAX; node = node->ai_next) {
        if (node->ai_addrlen <= sizeof(out[n].at)) {
            memcpy(&out[n].at, node->ai_addr, node->ai_addrlen);
            out[n++].size = node->ai_addrlen;
            *ttl_s = MIN(*ttl_s, (int64_t)node->ai_ttl);
        }
    }
    qsort(out, n, sizeof(*out), by_bytes);
    for (i = 0; i < n; i++) {
        if (kept == 0 || by_bytes(&out[kept - 1], &out[i]) != 0) {
            out[kept++] = out[i];
        }
    }
    return kept;
}

static void take_answer(struct entry *e, const struct ares_addrinfo *found)
{
    struct proxy_sockaddr *fresh = mem_array(PROXY_ADDRESSES_MAX, sizeof(*fresh));
    int64_t ttl_s = TTL_MAX_S;
    size_t n = sorted(found, fresh, &ttl_s);
    bool same = e->told && n == e->n && memcmp(fresh, e->addresses, n * sizeof(*fresh)) == 0;

    ask_in(e, ttl_s <= 0 ? e->resolver->conf.refresh_ms : MAX(ttl_s * 1000, (int64_t)TTL_MIN_MS));
    if (e->status != ARES_SUCCESS) {
        log_info("name.found", KV_STR("host", e->host), KV_U64("addresses", n));
    }
    e->status = ARES_SUCCESS;
    if (same) {
        mem_free(&fresh);
        return;
    }
    mem_free(&e->addresses);
    e->addresses = fresh;
    e->n = n;
    e->told = true;
    tell(e);
}

static void take_failure(struct entry *e, int status)
{
    if (e->status != status) { /* once, not with every try */
        log_warn("name.not-found", KV_STR("host", e->host), KV_STR("why", ares_strerror(status)),
                 KV_U64("kept", e->n));
    }
    e->status = status;
    e->resolver->stale = status != ARES_ENOTFOUND && status != ARES_ENODATA;
    ask_in(e, e->resolver->conf.failure_refresh_ms);
    if (!e->told) {
        e->told = true;
        tell(e);
    }
}

static bool has_second_family(enum config_family family)
{
    return family == CONFIG_FAMILY_V4_PREFERRED || family == CONFIG_FAMILY_AUTO;
}

static void enqueue(struct entry *e)
{
    if (list_empty(&e->in_queue) && list_empty(&e->in_asking)) {
        list_push_back(&e->resolver->queue, &e->in_queue);
    }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    struct entry *e = arg;
    bool empty = status != ARES_SUCCESS || found->nodes == NULL;

    (void)timeouts;
    list_remove(&e->in_asking);
    e->resolver->n_asking--;
    if (e->freed) {
        entry_free(e);
    } else if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
        enqueue(e); /* the channel was replaced */
    } else if (!empty) {
        e->second = false;
        take_answer(e, found);
    } else if (!e->second && has_second_family(e->resolver->conf.family) &&
               (status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND)) {
        e->second = true;
        enqueue(e);
    } else {
        e->second = false;
        take_failure(e, status == ARES_SUCCESS ? ARES_ENODATA : status);
    }
    ares_freeaddrinfo(found);
}

static int family_of(const struct entry *e)
{
    switch (e->resolver->conf.family) {
    case CONFIG_FAMILY_V4_PREFERRED:
        return e->second ? AF_INET6 : AF_INET;
    case CONFIG_FAMILY_AUTO:
        return e->second ? AF_INET : AF_INET6;
    case CONFIG_FAMILY_V4_ONLY:
        return AF_INET;
    case CONFIG_FAMILY_V6_ONLY:
        return AF_INET6;
    case CONFIG_FAMILY_ALL:
        break;
    }
    return AF_UNSPEC;
}

static void ask(struct entry *e)
{
    const struct ares_addrinfo_hints hints = { .ai_flags = ARES_AI_NOSORT,
                                               .ai_family = family_of(e),
                                               .ai_socktype = SOCK_STREAM };

    list_push_back(&e->resolver->asking, &e->in_asking);
    e->resolver->n_asking++;
    ares_getaddrinfo(e->resolver->channel, e->host, NULL, &hints, on_answer, e);
}

static void ask_next(struct proxy_resolver *r)
{
    if (r->stale && r->n_asking == 0 && !list_empty(&r->queue)) {
        ares_destroy(r->channel);
        open_channel(r);
    }
    while (r->n_asking < OPEN_MAX && !list_empty(&r->queue)) {
        struct entry *e = LIST_ENTRY(r->queue.next, struct entry, in_queue);

        list_remove(&e->in_queue);
        ask(e);
    }
    arm_timer(r);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct entry *e = arg;

    (void)fd;
    (void)what;
    enqueue(e);
    ask_next(e->resolver);
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct entry *entry_of(struct proxy_resolver *r, const char *host)
{
    struct entry *e = map_get(r->entries, sv_from(host));

    if (e != NULL) {
        return e;
    }
    e = MEM_NEW(struct entry);
    e->resolver = r;
    e->host = mem_strdup(host);
    list_init(&e->watchers);
    list_init(&e->in_queue);
    list_init(&e->in_asking);
    e->again = event_new(loop_base(r->loop), -1, 0, on_again, e);
    CHECK(e->again != NULL);
    (void)map_set(r->entries, sv_from(host), e);
    ask_in(e, 0);
    return e;
}

static void on_known(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_name *name = arg;
    const struct proxy_addresses addresses = { name->entry->addresses, name->entry->n };

    (void)fd;
    (void)what;
    name->changed(name->arg, &addresses);
}

struct proxy_name *proxy_name_watch(struct proxy_resolver *resolver, const char *host,
                                    proxy_name_fn changed, void *arg)
{
    struct proxy_name *name = MEM_NEW(struct proxy_name);
    const struct timeval now = { 0 };

    name->entry = entry_of(resolver, host);
    name->changed = changed;
    name->arg = arg;
    name->known = event_new(loop_base(resolver->loop), -1, 0, on_known, name);
    CHECK(name->known != NULL);
    list_push_back(&name->entry->watchers, &name->in_entry);
    if (name->entry->told) {
        (void)event_add(name->known, &now);
    }
    return name;
}

void proxy_name_unwatch(struct proxy_name **name)
{
    struct proxy_name *n = TAKE(*name);
    struct entry *e = NULL;

    if (n == NULL) {
        return;
    }
    e = n->entry;
    list_remove(&n->in_entry);
    event_free(n->known);
    mem_free(&n);
    if (!list_empty(&e->watchers)) {
        return;
    }
    (void)map_take(e->resolver->entries, sv_from(e->host));
    if (list_empty(&e->in_asking)) {
        entry_free(e);
    } else {
        (void)event_del(e->again);
        e->freed = true;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void set_conf(struct proxy_resolver *r, const struct config_dns *conf)
{
    size_t at = 0;
    size_t i = 0;

    r->conf = *conf;
    r->conf.resolvers = (struct config_strings){ 0 }; /* the configuration's; ours is the text */
    r->servers[0] = '\0';
    for (i = 0; i < conf->resolvers.n && at < sizeof(r->servers); i++) {
        at += (size_t)snprintf(r->servers + at, sizeof(r->servers) - at, "%s%s", i == 0 ? "" : ",",
                               conf->resolvers.v[i].p);
    }
}

struct proxy_resolver *proxy_resolver_new(struct loop *loop, const struct config_dns *conf)
{
    struct proxy_resolver *r = MEM_NEW(struct proxy_resolver);

    CHECK(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS);
    r->loop = loop;
    list_init(&r->sockets);
    list_init(&r->queue);
    list_init(&r->asking);
    r->entries = map_new();
    r->timer = event_new(loop_base(loop), -1, 0, on_timer, r);
    CHECK(r->timer != NULL);
    set_conf(r, conf);
    open_channel(r);
    return r;
}

static void ask_again(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    ask_in(value, 0);
}

static bool same_conf(const struct config_dns *a, const struct config_dns *b)
{
    return a->family == b->family && a->query_timeout_ms == b->query_timeout_ms &&
           a->query_tries == b->query_tries && a->refresh_ms == b->refresh_ms &&
           a->failure_refresh_ms == b->failure_refresh_ms && a->use_tcp == b->use_tcp;
}

void proxy_resolver_set(struct proxy_resolver *resolver, const struct config_dns *conf)
{
    struct config_dns before = resolver->conf;
    char servers[SERVERS_TEXT];

    memcpy(servers, resolver->servers, sizeof(servers));
    set_conf(resolver, conf);
    if (same_conf(&before, conf) && strcmp(servers, resolver->servers) == 0) {
        return;
    }
    ares_destroy(resolver->channel); /* open lookups come back to the queue */
    open_channel(resolver);
    map_each(resolver->entries, ask_again, NULL);
    ask_next(resolver);
}

void proxy_resolver_free(struct proxy_resolver **resolver)
{
    struct proxy_resolver *r = TAKE(*resolver);

    if (r == NULL) {
        return;
    }
    CHECK(map_count(r->entries) == 0);
    ares_destroy(r->channel); /* entries that were let go while asked about end here */
    map_free(&r->entries);
    event_free(r->timer);
    ares_library_cleanup();
    mem_free(&r);
}
