#include "proxy/upstream.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/map.h"
#include "common/mem.h"
#include "proxy/h2.h"
#include "proxy/worker.h"

enum { DNS_GOOD_MS = 5000, ADDRESSES_MAX = 8 };

/* The connections of one key that may be used again. */
struct pool {
    struct list idle; /* HTTP/1 */
    size_t n;
    struct list shared; /* HTTP/2 */
};

/* A name that is being looked up on a job thread. */
struct resolve {
    struct proxy_upstream *up; /* NULL: nobody waits any more */
    char host[PROXY_HOST_MAX];
    char port[8];
    struct sockaddr_storage address;
    socklen_t size;
    bool found;
};

static void connect_to(struct proxy_upstream *up, const struct sockaddr *address, socklen_t size);

static struct pool *pool_of(struct proxy_worker *w, const char *key)
{
    struct pool *pool = map_get(w->pools, sv_from(key));

    if (pool == NULL) {
        pool = MEM_NEW(struct pool);
        list_init(&pool->idle);
        list_init(&pool->shared);
        (void)map_set(w->pools, sv_from(key), pool);
    }
    return pool;
}

void proxy_upstream_want(struct proxy_upstream *up, bool read, bool write)
{
    if (up->rd == NULL) {
        return;
    }
    if (read != up->rd_on) {
        (void)(read ? event_add(up->rd, NULL) : event_del(up->rd));
        up->rd_on = read;
    }
    if (write != up->wr_on) {
        (void)(write ? event_add(up->wr, NULL) : event_del(up->wr));
        up->wr_on = write;
    }
    if (read && up->io.ssl != NULL && SSL_has_pending(up->io.ssl) == 1) {
        event_active(up->rd, EV_READ, 0); /* OpenSSL's bytes raise no event of the socket */
    }
}

static void unpool(struct proxy_upstream *up)
{
    if (!list_empty(&up->in_pool)) {
        list_remove(&up->in_pool);
        if (up->h2 == NULL) {
            up->pool->n--;
        }
    }
}

static void free_later(void *arg)
{
    struct proxy_upstream *up = arg;

    proxy_window_deinit(&up->in);
    proxy_out_deinit(&up->out);
    mem_free(&up);
}

void proxy_upstream_close(struct proxy_upstream **up)
{
    struct proxy_upstream *u = TAKE(*up);

    if (u == NULL) {
        return;
    }
    unpool(u);
    list_remove(&u->in_worker);
    if (u->resolve != NULL) {
        u->resolve->up = NULL;
    }
    if (u->rd != NULL) {
        event_free(u->rd);
        event_free(u->wr);
    }
    u->owner = NULL;
    proxy_h2_free(&u->h2);
    proxy_io_close(&u->io);
    proxy_snapshot_unref(&u->snapshot);
    loop_defer(u->worker->loop, free_later, u); /* a callback up the stack may still look at it */
}

static void fail(struct proxy_upstream *up, const char *why)
{
    const struct proxy_upstream_hooks *hooks = up->hooks;
    void *owner = up->owner;

    proxy_upstream_close(&up);
    if (owner != NULL) {
        hooks->failed(owner, why);
    }
}

static void ready(struct proxy_upstream *up)
{
    bool h2 = up->target->url->h2c || proxy_io_speaks_h2(&up->io);

    up->connected = true;
    proxy_snapshot_unref(&up->snapshot);
    proxy_upstream_want(up, true, false);
    if (h2 && up->h1_only) {
        fail(up, "the upstream speaks HTTP/2 only, which has no upgrades");
        return;
    }
    if (h2) {
        up->h2 = proxy_h2_client_new(up->worker, &up->io, up->hooks->h2, up);
        up->deadline_ms = INT64_MAX;
    }
    if (up->owner != NULL) {
        up->hooks->ready(up->owner);
    }
}

static void go_on_with_handshake(struct proxy_upstream *up)
{
    enum proxy_io_result result = proxy_io_handshake(&up->io);

    if (result == PROXY_IO_AGAIN) {
        proxy_upstream_want(up, true, up->io.want_write);
    } else if (result != PROXY_IO_DONE) {
        fail(up, SSL_get_verify_result(up->io.ssl) == X509_V_OK
                     ? "the upstream's TLS handshake failed"
                     : "the upstream's certificate is not trusted");
    } else {
        up->handshaking = false;
        ready(up);
    }
}

static void begin_tls(struct proxy_upstream *up)
{
    up->io.ssl = SSL_new(up->target->tls);
    CHECK(up->io.ssl != NULL && SSL_set_fd(up->io.ssl, up->io.fd) == 1);
    if (up->target->server_name[0] != '[' &&
        SSL_set_tlsext_host_name(up->io.ssl, up->target->server_name) != 1) {
        fail(up, "the upstream's name cannot be asked for in TLS");
        return;
    }
    if (up->h1_only) {
        static const unsigned char h1[] = "\x08http/1.1";

        CHECK(SSL_set_alpn_protos(up->io.ssl, h1, sizeof(h1) - 1) == 0);
    }
    if (up->target->verify && SSL_set1_host(up->io.ssl, up->target->server_name) != 1) {
        fail(up, "the upstream's name cannot be verified");
        return;
    }
    SSL_set_connect_state(up->io.ssl);
    up->handshaking = true;
    go_on_with_handshake(up);
}

static void on_connected(struct proxy_upstream *up)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (getsockopt(up->io.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        fail(up, "the upstream refused the connection");
    } else if (up->target->tls != NULL) {
        begin_tls(up);
    } else {
        ready(up);
    }
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

void proxy_upstream_h2_want(void *up, bool write)
{
    proxy_upstream_want(up, true, write);
}

void proxy_upstream_h2_quiet(void *up)
{
    struct proxy_upstream *u = up;

    u->deadline_ms = clock_mono_ms() + PROXY_IDLE_MS;
}

void proxy_upstream_h2_broken(void *up)
{
    struct proxy_upstream *u = up;

    proxy_upstream_close(&u);
}

static void on_h2_event(struct proxy_upstream *up, short what)
{
    if (((what & EV_READ) != 0 || up->io.want_write) && !proxy_h2_read(up->h2)) {
        (void)!proxy_h2_flush(up->h2); /* why it ends may still be told */
        proxy_upstream_close(&up);
        return;
    }
    if (!proxy_h2_flush(up->h2)) {
        proxy_upstream_close(&up);
        return;
    }
    proxy_upstream_want(up, true, up->wr_on); /* OpenSSL may hold more */
}

struct proxy_h2 *proxy_upstream_shared(struct proxy_worker *worker,
                                       const struct proxy_target *target)
{
    struct pool *pool = pool_of(worker, target->key);
    struct list *it = NULL;

    LIST_FOREACH(it, &pool->shared) {
        struct proxy_upstream *up = LIST_ENTRY(it, struct proxy_upstream, in_pool);

        if (proxy_h2_has_room(up->h2)) {
            up->deadline_ms = INT64_MAX;
            return up->h2;
        }
    }
    return NULL;
}

struct proxy_h2 *proxy_upstream_share(struct proxy_upstream **up)
{
    struct proxy_upstream *u = TAKE(*up);

    u->owner = NULL;
    list_push_front(&u->pool->shared, &u->in_pool);
    return u->h2;
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_upstream *up = arg;

    (void)fd;
    if (!up->connected) {
        if (up->handshaking) {
            go_on_with_handshake(up);
        } else {
            on_connected(up);
        }
        return;
    }
    if (up->h2 != NULL) {
        on_h2_event(up, what);
        return;
    }
    if (up->owner == NULL) {
        proxy_upstream_close(&up); /* idle: whatever it says, it is no answer to anything */
        return;
    }
    if ((what & EV_WRITE) != 0 || up->io.want_write) {
        up->hooks->writable(up->owner);
        if ((what & EV_READ) == 0 || up->owner == NULL) {
            return; /* the exchange may be over now */
        }
    }
    if ((what & EV_READ) != 0) {
        up->hooks->readable(up->owner);
    }
}

static void connect_to(struct proxy_upstream *up, const struct sockaddr *address, socklen_t size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct event_base *base = loop_base(up->worker->loop);
    int on = 1;

    if (fd < 0) {
        fail(up, "no socket is to be had");
        return;
    }
    if (address->sa_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    proxy_io_init(&up->io, fd);
    up->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_event, up);
    up->wr = event_new(base, fd, EV_WRITE | EV_PERSIST, on_event, up);
    CHECK(up->rd != NULL && up->wr != NULL);
    if (connect(fd, address, size) != 0 && errno != EINPROGRESS) {
        fail(up, "the upstream refused the connection");
        return;
    }
    proxy_upstream_want(up, false, true);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void run_resolve(void *arg)
{
    struct resolve *r = arg;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found = NULL;

    if (getaddrinfo(r->host, r->port, &hints, &found) == 0 &&
        found->ai_addrlen <= sizeof(r->address)) {
        memcpy(&r->address, found->ai_addr, found->ai_addrlen);
        r->size = found->ai_addrlen;
        r->found = true;
    }
    if (found != NULL) {
        freeaddrinfo(found);
    }
}

static void resolve_done(void *arg)
{
    struct resolve *r = arg;
    struct proxy_upstream *up = r->up;

    if (up != NULL) {
        up->resolve = NULL;
        if (r->found) {
            connect_to(up, (const struct sockaddr *)&r->address, r->size);
        } else {
            fail(up, "the upstream's name has no address");
        }
    }
    mem_free(&r);
}

static void begin_resolve(struct proxy_upstream *up)
{
    const struct config_url *url = up->target->url;
    struct resolve *r = MEM_NEW(struct resolve);
    struct sv host = url->host;

    if (host.n > 2 && host.p[0] == '[') {
        host = sv_head(sv_from_at(host, 1), host.n - 2);
    }
    (void)snprintf(r->host, sizeof(r->host), "%.*s", SV_ARG(host));
    (void)snprintf(r->port, sizeof(r->port), "%u", url->port);
    r->up = up;
    up->resolve = r;
    if (job_submit(up->worker->jobs, run_resolve, resolve_done, r) != ERR_OK) {
        mem_free(&r);
        up->resolve = NULL;
        fail(up, "too many names are being looked up");
    }
}

static bool literal_address(const struct config_url *url, struct sockaddr_storage *out,
                            socklen_t *size)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char host[PROXY_HOST_MAX];
    char port[8];
    struct sv name = url->host;

    if (name.n > 2 && name.p[0] == '[') {
        name = sv_head(sv_from_at(name, 1), name.n - 2);
    }
    (void)snprintf(host, sizeof(host), "%.*s", SV_ARG(name));
    (void)snprintf(port, sizeof(port), "%u", url->port);
    if (getaddrinfo(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, port, &hints, &found) !=
        0) {
        return false;
    }
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *size = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void begin_connect(void *arg)
{
    struct proxy_upstream *up = arg;
    const struct config_url *url = NULL;
    struct sockaddr_storage address;
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    socklen_t size = 0;

    if (up->owner == NULL) {
        return; /* given up within the same turn */
    }
    url = up->target->url;
    if (url->scheme == CONFIG_SCHEME_UNIX) {
        (void)snprintf(path.sun_path, sizeof(path.sun_path), "%s", url->socket.p);
        connect_to(up, (const struct sockaddr *)&path, sizeof(path));
    } else if (literal_address(url, &address, &size)) {
        connect_to(up, (const struct sockaddr *)&address, size);
    } else {
        begin_resolve(up);
    }
}

/* ---- getting and giving back ----------------------------------------------------------------- */

static void tell_ready(void *arg)
{
    struct proxy_upstream *up = arg;

    if (up->owner != NULL) {
        up->hooks->ready(up->owner);
    }
}

struct proxy_upstream *proxy_upstream_get(struct proxy_worker *worker,
                                          struct proxy_snapshot *snapshot,
                                          struct proxy_target *target, unsigned flags,
                                          const struct proxy_upstream_hooks *hooks, void *owner)
{
    struct pool *pool = pool_of(worker, target->key);
    struct proxy_upstream *up = NULL;

    if ((flags & PROXY_UPSTREAM_FRESH) == 0 && !list_empty(&pool->idle)) {
        up = LIST_ENTRY(pool->idle.next, struct proxy_upstream, in_pool);
        unpool(up);
        up->reused = true;
        up->hooks = hooks;
        up->owner = owner;
        loop_defer(worker->loop, tell_ready, up);
        return up;
    }
    up = MEM_NEW(struct proxy_upstream);
    up->worker = worker;
    up->pool = pool;
    up->hooks = hooks;
    up->owner = owner;
    up->snapshot = proxy_snapshot_ref(snapshot);
    up->target = target;
    up->h1_only = (flags & PROXY_UPSTREAM_H1) != 0;
    up->deadline_ms = clock_mono_ms() + PROXY_CONNECT_MS;
    proxy_io_init(&up->io, -1);
    proxy_window_init(&up->in);
    proxy_out_init(&up->out);
    list_init(&up->in_pool);
    list_push_back(&worker->upstreams, &up->in_worker);
    loop_defer(worker->loop, begin_connect, up);
    return up;
}

void proxy_upstream_put(struct proxy_upstream **up)
{
    struct proxy_upstream *u = *up;

    if (u == NULL) {
        return;
    }
    if (!u->connected || u->in.start != u->in.end || !proxy_out_empty(&u->out) ||
        u->pool->n >= PROXY_IDLE_MAX || u->worker->stopping) {
        proxy_upstream_close(up);
        return;
    }
    *up = NULL;
    u->owner = NULL;
    u->deadline_ms = clock_mono_ms() + PROXY_IDLE_MS;
    proxy_upstream_want(u, true, false);
    list_push_front(&u->pool->idle, &u->in_pool);
    u->pool->n++;
}

void proxy_upstream_tick(struct proxy_worker *worker, int64_t now_ms)
{
    struct list *it = NULL;
    struct list *next = NULL;

    LIST_FOREACH_SAFE(it, next, &worker->upstreams) {
        struct proxy_upstream *up = LIST_ENTRY(it, struct proxy_upstream, in_worker);

        if (now_ms < up->deadline_ms) {
            continue;
        }
        if (!up->connected) {
            fail(up, "connecting to the upstream took too long");
        } else if (up->owner == NULL) {
            proxy_upstream_close(&up);
        }
    }
}
