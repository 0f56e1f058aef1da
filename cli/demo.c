/* postern demo-app: a small application to put behind the proxy: a page, a stream of events, a
 * WebSocket. It trusts whoever can reach it, as applications behind a proxy do: it listens on a unix
 * socket or on loopback. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "cli/command.h"
#include "cli/demo_page.h"
#include "cli/demo_ws.h"
#include "common/http/chunked.h"
#include "common/listen.h"
#include "common/loop.h"
#include "common/mem.h"

enum { OUT_MAX = 2 * 1024 * 1024, BACKLOG_MAX = 4 * 1024 * 1024, EVENT_MS = 500, IDLE_S = 3600 };

static const char help[] = "usage: postern demo-app [--listen 127.0.0.1:8000]\n\n"
                           "A small application to put behind the proxy.\n"
                           "  --listen   host:port or unix:/path\n\n"
                           "  /          shows who it thinks you are and what it was sent\n"
                           "  /events    an event twice a second\n"
                           "  /ws        a WebSocket that echoes\n";

enum conn_state { CONN_HEAD = 0, CONN_BODY, CONN_CHUNKS, CONN_EVENTS, CONN_WEBSOCKET, CONN_LAST };

struct conn {
    struct bufferevent *bev;
    struct event *timer;
    enum conn_state state;
    struct http_head head;
    struct http_field fields[HTTP_FIELDS_DEFAULT];
    struct http_chunked chunked;
    struct http_field trailers[HTTP_TRAILERS_MAX];
    uint64_t left;   /* of a body that has a length */
    struct buf page; /* the answer, made while the head is at hand, sent behind the body */
    bool keep_alive;
    uint64_t events;
};

struct demo {
    struct loop *loop;
    int fd;
    struct event *accept;
    struct event *signals[2];
};

static void conn_free(struct conn *c)
{
    if (c->timer != NULL) {
        event_free(c->timer);
    }
    bufferevent_free(c->bev);
    buf_deinit(&c->page);
    mem_free(&c);
}

static void conn_send(struct conn *c, const struct buf *out)
{
    (void)bufferevent_write(c->bev, out->p, out->n);
}

/* The last words; the connection goes when they are out. */
static void conn_finish(struct conn *c)
{
    c->state = CONN_LAST;
    (void)bufferevent_disable(c->bev, EV_READ);
}

/* --- stream of events ----------------------------------------------------------------------------- */

static void on_event_due(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    struct buf out;

    (void)fd;
    (void)what;
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) > BACKLOG_MAX) {
        return; /* the reader is slow: it misses some */
    }
    buf_init(&out, 1024);
    cli_demo_event(&out, ++c->events);
    conn_send(c, &out);
    buf_deinit(&out);
}

static void start_events(struct conn *c)
{
    struct timeval every = { 0, EVENT_MS * 1000L };
    struct buf out;

    c->state = CONN_EVENTS;
    buf_init(&out, 4096);
    cli_demo_events_head(&out);
    cli_demo_event(&out, ++c->events);
    conn_send(c, &out);
    buf_deinit(&out);
    c->timer = event_new(bufferevent_get_base(c->bev), -1, EV_PERSIST, on_event_due, c);
    CHECK(c->timer != NULL && event_add(c->timer, &every) == 0);
}

/* --- requests ------------------------------------------------------------------------------------- */

static void refuse(struct conn *c, int status, const char *text)
{
    struct buf out;

    buf_init(&out, 1024);
    cli_demo_error(&out, status, text);
    conn_send(c, &out);
    buf_deinit(&out);
    conn_finish(c);
}

static void start_websocket(struct conn *c)
{
    struct buf out;

    buf_init(&out, 1024);
    if (cli_demo_ws_accept(&out, &c->head) == ERR_OK) {
        c->state = CONN_WEBSOCKET;
        conn_send(c, &out);
    } else {
        refuse(c, 400, "Bad Request");
    }
    buf_deinit(&out);
}

static void send_page(struct conn *c)
{
    conn_send(c, &c->page);
    buf_deinit(&c->page);
    if (!c->keep_alive) {
        conn_finish(c);
        return;
    }
    c->state = CONN_HEAD;
    http_head_init(&c->head, HTTP_REQUEST, NULL, c->fields, ARRAY_LEN(c->fields));
}

/* Decides by the head; the bytes behind it stay in the buffer. */
static void on_head(struct conn *c)
{
    struct http_chunked_opts opts = { .trailers = c->trailers, .cap = ARRAY_LEN(c->trailers) };
    struct sv target = c->head.target;
    struct sv path = sv_cut(&target, '?');

    if (sv_eq(path, SV("/events"))) {
        start_events(c);
        return;
    }
    if (sv_eq(path, SV("/ws"))) {
        start_websocket(c);
        return;
    }
    buf_init(&c->page, OUT_MAX);
    cli_demo_page(&c->page, &c->head);
    c->keep_alive = c->head.keep_alive;
    c->left = c->head.framing == HTTP_BODY_LENGTH ? c->head.content_length : 0;
    c->state = c->head.framing == HTTP_BODY_CHUNKED ? CONN_CHUNKS : CONN_BODY;
    if (c->head.expect_continue) {
        (void)bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    http_chunked_init(&c->chunked, &opts);
}

/* Each step: true to be called again at once. */
static bool step_head(struct conn *c, struct evbuffer *in, struct sv bytes)
{
    if (bytes.n == 0) {
        return false;
    }
    switch (http_head_parse(&c->head, bytes)) {
    case HTTP_DONE:
        on_head(c);
        (void)evbuffer_drain(in, c->head.size);
        return true;
    case HTTP_ERROR:
        refuse(c, 400, "Bad Request");
        return false;
    case HTTP_MORE:
    case HTTP_DATA:
        break;
    }
    return false;
}

static bool step_body(struct conn *c, struct evbuffer *in, struct sv bytes)
{
    size_t n = (size_t)MIN((uint64_t)bytes.n, c->left);

    (void)evbuffer_drain(in, n);
    c->left -= n;
    if (c->left != 0) {
        return false;
    }
    send_page(c);
    return true;
}

static bool step_chunks(struct conn *c, struct evbuffer *in, struct sv bytes)
{
    struct sv rest = bytes;
    struct sv data = { 0 };
    enum http_step step = http_chunked_next(&c->chunked, &rest, &data);

    while (step == HTTP_DATA) {
        step = http_chunked_next(&c->chunked, &rest, &data);
    }
    (void)evbuffer_drain(in, bytes.n - rest.n);
    if (step == HTTP_ERROR) {
        refuse(c, 400, "Bad Request");
    } else if (step == HTTP_DONE) {
        send_page(c);
        return true;
    }
    return false;
}

static bool step_websocket(struct conn *c, struct evbuffer *in, struct sv bytes)
{
    struct buf out;
    size_t used = 0;
    enum err err = ERR_OK;

    if (evbuffer_get_length(bufferevent_get_output(c->bev)) > BACKLOG_MAX) {
        conn_finish(c); /* sends and does not read its echoes */
        return false;
    }
    buf_init(&out, OUT_MAX);
    err = cli_demo_ws_frame(bytes, &out, &used);
    conn_send(c, &out);
    buf_deinit(&out);
    (void)evbuffer_drain(in, used);
    if (err != ERR_OK && err != ERR_AGAIN) {
        conn_finish(c);
        return false;
    }
    return err == ERR_OK;
}

static void on_readable(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    bool again = true;

    while (again) {
        size_t n = evbuffer_get_length(in);
        struct sv bytes = sv_of(evbuffer_pullup(in, -1), n);

        switch (c->state) {
        case CONN_HEAD:
            again = step_head(c, in, bytes);
            break;
        case CONN_BODY:
            again = step_body(c, in, bytes);
            break;
        case CONN_CHUNKS:
            again = n != 0 && step_chunks(c, in, bytes);
            break;
        case CONN_WEBSOCKET:
            again = n != 0 && step_websocket(c, in, bytes);
            break;
        case CONN_EVENTS:
        case CONN_LAST:
            (void)evbuffer_drain(in, n);
            again = false;
            break;
        }
    }
    if (c->state == CONN_LAST && evbuffer_get_length(bufferevent_get_output(bev)) == 0) {
        conn_free(c);
    }
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;

    (void)bev;
    if (c->state == CONN_LAST) {
        conn_free(c);
    }
}

static void on_gone(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    (void)what;
    conn_free(arg);
}

/* --- life ----------------------------------------------------------------------------------------- */

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct demo *demo = arg;
    struct timeval idle = { IDLE_S, 0 };
    int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c = NULL;

    (void)what;
    if (peer < 0) {
        return;
    }
    c = MEM_NEW(struct conn);
    c->bev = bufferevent_socket_new(loop_base(demo->loop), peer, BEV_OPT_CLOSE_ON_FREE);
    CHECK(c->bev != NULL);
    http_head_init(&c->head, HTTP_REQUEST, NULL, c->fields, ARRAY_LEN(c->fields));
    bufferevent_setcb(c->bev, on_readable, on_written, on_gone, c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, OUT_MAX);
    (void)bufferevent_set_timeouts(c->bev, &idle, &idle);
    (void)bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
    struct demo *demo = arg;

    (void)fd;
    (void)what;
    loop_stop(demo->loop);
}

static int run(const char *address)
{
    struct demo demo = { .fd = -1 };
    struct diag d = { .line = 0 };
    struct sv at = sv_from(address);

    if (listen_open(at, false, &demo.fd, &d) != ERR_OK) {
        return cli_fail(1, "demo-app: %s", d.text);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    demo.loop = loop_new();
    demo.accept = event_new(loop_base(demo.loop), demo.fd, EV_READ | EV_PERSIST, on_accept, &demo);
    demo.signals[0] = evsignal_new(loop_base(demo.loop), SIGTERM, on_end, &demo);
    demo.signals[1] = evsignal_new(loop_base(demo.loop), SIGINT, on_end, &demo);
    CHECK(event_add(demo.accept, NULL) == 0 && event_add(demo.signals[0], NULL) == 0 &&
          event_add(demo.signals[1], NULL) == 0);
    loop_run(demo.loop);
    event_free(demo.accept);
    event_free(demo.signals[0]);
    event_free(demo.signals[1]);
    (void)close(demo.fd);
    if (sv_starts(at, SV("unix:"))) {
        (void)unlink(at.p + 5);
    }
    loop_free(&demo.loop);
    return 0;
}

int cli_demo_main(int argc, char **argv)
{
    static const struct option options[] = { { "listen", required_argument, NULL, 'l' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    const char *address = "127.0.0.1:8000";
    int option = 0;

    while ((option = getopt_long(argc, argv, "", options, NULL)) !=
           -1) { /* NOLINT(concurrency-mt-unsafe) */
        if (option != 'l') {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
        address = optarg;
    }
    if (optind != argc) {
        (void)fputs(help, stderr);
        return 2;
    }
    return run(address);
}
