#include "proxy/probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "health.pb-c.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/fetch.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

/* RECEIVE_MAX: a server that talks without end has failed the check. */
enum { PROBES_MAX = 1024, URL_ROOM = 8192, RECEIVE_MAX = 65536, GRPC_PREFIX = 5 };

struct proxy_prober {
    struct loop *loop;
    struct fetcher *fetcher;
};

struct proxy_probe {
    struct proxy_prober *prober;
    const struct config_health_check *conf;
    struct proxy_endpoint *endpoint;
    proxy_probe_fn done;
    void *arg;
    struct fetch *fetch; /* HTTP, GRPC */
    int fd;              /* TCP */
    struct event *event;
    size_t sent;
    struct buf got;
    size_t at; /* got is matched up to here */
    size_t n_matched;
    int64_t deadline_ms;
};

static void probe_free(struct proxy_probe *p)
{
    fetch_cancel(&p->fetch);
    if (p->event != NULL) {
        event_free(p->event);
    }
    if (p->fd >= 0) {
        (void)close(p->fd);
    }
    buf_deinit(&p->got);
    proxy_endpoint_unref(&p->endpoint);
    mem_free(&p);
}

static void finish(struct proxy_probe *p, enum proxy_health_result result, const char *why)
{
    proxy_probe_fn done = p->done;
    void *arg = p->arg;

    done(arg, result, why);
    probe_free(p);
}

/* ---- HTTP and gRPC --------------------------------------------------------------------------- */

static void on_http(void *arg, const struct fetch_answer *answer)
{
    struct proxy_probe *p = arg;
    char why[64];

    p->fetch = NULL;
    if (answer->err != ERR_OK) {
        finish(p, PROXY_HEALTH_FAILED, answer->text);
    } else if (proxy_health_expects(p->conf, answer->status)) {
        finish(p, PROXY_HEALTH_PASSED, "");
    } else {
        (void)snprintf(why, sizeof(why), "status %ld", answer->status);
        finish(p, PROXY_HEALTH_REFUSED, why);
    }
}

/* One uncompressed message (gRPC over HTTP/2, "Length-Prefixed-Message"). */
static bool is_serving(struct sv body)
{
    Grpc__Health__V1__HealthCheckResponse *answer = NULL;
    ProtobufCMessage *message = NULL;
    bool serving = false;

    if (body.n < GRPC_PREFIX || body.p[0] != 0 ||
        rpc_unpack(&grpc__health__v1__health_check_response__descriptor,
                   sv_from_at(body, GRPC_PREFIX), NULL, &message) != ERR_OK) {
        return false;
    }
    answer = (Grpc__Health__V1__HealthCheckResponse *)(void *)message;
    serving = answer->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    protobuf_c_message_free_unpacked(message, NULL);
    return serving;
}

static void on_grpc(void *arg, const struct fetch_answer *answer)
{
    struct proxy_probe *p = arg;
    char why[64];

    p->fetch = NULL;
    if (answer->err != ERR_OK) {
        finish(p, PROXY_HEALTH_FAILED, answer->text);
    } else if (answer->status != 200 || answer->grpc_status != 0) {
        (void)snprintf(why, sizeof(why), "status %ld, grpc-status %d", answer->status,
                       answer->grpc_status);
        finish(p, PROXY_HEALTH_FAILED, why);
    } else if (is_serving(answer->body)) {
        finish(p, PROXY_HEALTH_PASSED, "");
    } else {
        finish(p, PROXY_HEALTH_FAILED, "it says that it does not serve");
    }
}

static struct sv grpc_body(const struct config_health_check *conf, uint8_t *room)
{
    Grpc__Health__V1__HealthCheckRequest ask = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    size_t n = 0;

    ask.service = conf->service.p == NULL ? ask.service : base_unconst(conf->service.p);
    n = grpc__health__v1__health_check_request__pack(&ask, room + GRPC_PREFIX);
    memset(room, 0, GRPC_PREFIX);
    room[GRPC_PREFIX - 2] = (uint8_t)(n >> 8U);
    room[GRPC_PREFIX - 1] = (uint8_t)n;
    return sv_of(room, GRPC_PREFIX + n);
}

static void start_fetch(struct proxy_probe *p)
{
    const struct proxy_target *t = p->endpoint->target;
    bool grpc = p->conf->kind == CONFIG_CHECK_GRPC;
    bool is_unix = t->url.scheme == CONFIG_SCHEME_UNIX;
    uint8_t body[512];
    char url[URL_ROOM];
    const struct fetch_via via = {
        .address = is_unix ? NULL : p->endpoint->text,
        .socket = is_unix ? t->url.socket.p : NULL,
        .tls = t->tls,
        .verify = t->verify,
        .http2 = grpc || t->url.h2c || p->conf->codec == CONFIG_CODEC_HTTP2,
        .host = p->conf->host.n != 0 ? p->conf->host.p : t->host_header,
        .type = grpc ? "application/grpc" : NULL,
    };
    struct fetch_request request = { .url = url, .timeout_ms = p->conf->timeout_ms, .via = &via };

    (void)snprintf(url, sizeof(url), "http%s://%s%s", t->tls != NULL ? "s" : "",
                   t->tls != NULL ? t->server_name : t->host_header,
                   grpc ? "/grpc.health.v1.Health/Check" : p->conf->path.p);
    if (grpc) {
        request.body = grpc_body(p->conf, body);
    }
    p->fetch = fetch_start(p->prober->fetcher, &request, grpc ? on_grpc : on_http, p);
}

/* ---- TCP ------------------------------------------------------------------------------------- */

static void watch_socket(struct proxy_probe *p, short what);

/* What was received holds the texts in their order. */
static bool match(struct proxy_probe *p)
{
    while (p->n_matched < p->conf->receive.n) {
        struct sv wanted = p->conf->receive.v[p->n_matched];
        size_t at = sv_search(sv_from_at(buf_sv(&p->got), p->at), wanted);

        if (at == SIZE_MAX) {
            return false;
        }
        p->at += at + wanted.n;
        p->n_matched++;
    }
    return true;
}

static void tcp_read(struct proxy_probe *p)
{
    char bytes[4096];
    ssize_t n = recv(p->fd, bytes, sizeof(bytes), 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        watch_socket(p, EV_READ);
        return;
    }
    if (n > 0) {
        buf_add(&p->got, bytes, (size_t)n);
    }
    if (match(p)) {
        finish(p, PROXY_HEALTH_PASSED, "");
    } else if (n <= 0 || p->got.err != ERR_OK) {
        finish(p, PROXY_HEALTH_FAILED, "it did not say what it should");
    } else {
        watch_socket(p, EV_READ);
    }
}

static void tcp_write(struct proxy_probe *p)
{
    struct sv rest = sv_from_at(p->conf->send, p->sent);
    ssize_t n = rest.n == 0 ? 0 : send(p->fd, rest.p, rest.n, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        finish(p, PROXY_HEALTH_FAILED, "the connection was cut");
        return;
    }
    p->sent += n < 0 ? 0 : (size_t)n;
    if (p->sent < p->conf->send.n) {
        watch_socket(p, EV_WRITE);
    } else if (p->conf->receive.n == 0) {
        finish(p, PROXY_HEALTH_PASSED, "");
    } else {
        watch_socket(p, EV_READ);
    }
}

static void on_tcp(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_probe *p = arg;
    int error = 0;
    socklen_t size = sizeof(error);

    if (fd < 0) {
        finish(p, PROXY_HEALTH_FAILED, "no connection");
    } else if ((what & EV_TIMEOUT) != 0) {
        finish(p, PROXY_HEALTH_FAILED, "timeout");
    } else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        finish(p, PROXY_HEALTH_FAILED, "the connection was refused");
    } else if ((what & EV_WRITE) != 0) {
        tcp_write(p);
    } else {
        tcp_read(p);
    }
}

/* timeout counts from the beginning, not from the last byte. */
static void watch_socket(struct proxy_probe *p, short what)
{
    int64_t left = MAX(p->deadline_ms - clock_mono_ms(), INT64_C(1));
    struct timeval tv = { .tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 };

    if (p->event != NULL) {
        event_free(p->event);
    }
    p->event = event_new(loop_base(p->prober->loop), p->fd, what, on_tcp, p);
    CHECK(p->event != NULL && event_add(p->event, &tv) == 0);
}

static void start_tcp(struct proxy_probe *p)
{
    const struct proxy_sockaddr *to = &p->endpoint->address;

    p->deadline_ms = clock_mono_ms() + p->conf->timeout_ms;
    p->fd = socket(to->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd >= 0 && connect(p->fd, (const struct sockaddr *)&to->at, to->size) != 0 &&
        errno != EINPROGRESS) {
        (void)close(p->fd);
        p->fd = -1;
    }
    if (p->fd >= 0) {
        watch_socket(p, EV_WRITE);
        return;
    }
    p->deadline_ms = 0; /* tell it in a moment: never from within start */
    watch_socket(p, 0);
}

/* ---- all ------------------------------------------------------------------------------------- */

struct proxy_probe *proxy_probe_start(struct proxy_prober *prober,
                                      const struct config_health_check *conf,
                                      struct proxy_endpoint *endpoint, proxy_probe_fn done,
                                      void *arg)
{
    struct proxy_probe *p = MEM_NEW(struct proxy_probe);

    p->prober = prober;
    p->conf = conf;
    p->endpoint = proxy_endpoint_ref(endpoint);
    p->done = done;
    p->arg = arg;
    p->fd = -1;
    buf_init(&p->got, RECEIVE_MAX);
    if (conf->kind == CONFIG_CHECK_TCP) {
        start_tcp(p);
    } else {
        start_fetch(p);
    }
    return p;
}

void proxy_probe_cancel(struct proxy_probe **probe)
{
    struct proxy_probe *p = TAKE(*probe);

    if (p != NULL) {
        probe_free(p);
    }
}

struct proxy_prober *proxy_prober_new(struct loop *loop)
{
    struct proxy_prober *prober = MEM_NEW(struct proxy_prober);

    prober->loop = loop;
    prober->fetcher = fetcher_new(loop, NULL);
    fetcher_set_max(prober->fetcher, PROBES_MAX);
    return prober;
}

void proxy_prober_free(struct proxy_prober **prober)
{
    struct proxy_prober *p = TAKE(*prober);

    if (p != NULL) {
        fetcher_free(&p->fetcher);
        mem_free(&p);
    }
}
