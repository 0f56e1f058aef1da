/* postern demo-app: an upstream to look at: shows the request as it arrived and who it thinks you
 * are, streams events, echoes a WebSocket. On libevent's evhttp; it trusts the proxy in front. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <openssl/sha.h>

#include "cli/command.h"
#include "common/b64.h"
#include "common/clock.h"
#include "common/http/page.h"
#include "common/loop.h"
#include "common/mem.h"

enum { PAGE_MAX = 262144, HEADS_MAX = 65536, FRAME_MAX = 65536, EVENTS_MAX = 3600 };

static const char help[] = "usage: postern demo-app [--listen 127.0.0.1:8000 | unix:/path]\n\n"
                           "  /        the request, and who you are\n"
                           "  /events  server-sent events, one a second\n"
                           "  /ws      a WebSocket that says what you said\n";

struct demo {
    struct loop *loop;
    bool ending;
    struct evhttp *http;
};

/* ---- the page -------------------------------------------------------------------------------- */

static struct sv header_of(struct evhttp_request *request, const char *name)
{
    return sv_from(evhttp_find_header(evhttp_request_get_input_headers(request), name));
}

static void who(struct buf *page, struct evhttp_request *request)
{
    struct sv email = header_of(request, "X-Pomerium-Claim-Email");

    if (email.n != 0) {
        buf_add_str(page, "<p>You are <strong>");
        buf_add_html(page, email);
        buf_add_str(page, "</strong>. The proxy says so, in headers that nobody else can set.</p>");
    } else {
        buf_add_str(page, "<p>I do not know who you are: this address is open to everybody, or its "
                          "route passes no identity.</p>");
    }
    buf_add_str(page,
                "<p><a href=\"/.pomerium/\">My session</a> · <a href=\"/events\">Events</a> · "
                "<a href=\"/.pomerium/sign_out\">Sign out</a></p><h2>The request as it "
                "arrived here</h2>");
}

static void show_request(struct evhttp_request *request, void *arg)
{
    struct buf page;
    struct evbuffer *body = evbuffer_new();
    struct evkeyvalq *answer = evhttp_request_get_output_headers(request);
    const struct evkeyval *field = NULL;
    struct buf csp;

    (void)arg;
    buf_init(&page, PAGE_MAX);
    buf_init(&csp, 1024);
    http_page_begin(&page, SV("Postern's demo app"));
    who(&page, request);
    http_page_facts_begin(&page);
    http_page_fact(&page, SV("request"), sv_from(evhttp_request_get_uri(request)));
    for (field = evhttp_request_get_input_headers(request)->tqh_first; field != NULL;
         field = field->next.tqe_next) {
        http_page_fact(&page, sv_from(field->key), sv_from(field->value));
    }
    http_page_facts_end(&page);
    http_page_end(&page, header_of(request, "X-Request-Id"));
    http_page_csp(&csp, NULL, 0);
    (void)evhttp_add_header(answer, "Content-Type", "text/html; charset=utf-8");
    (void)evhttp_add_header(answer, "Content-Security-Policy", buf_cstr(&csp));
    (void)evhttp_add_header(answer, "Cache-Control", "no-store");
    (void)evbuffer_add(body, page.p, page.n);
    evhttp_send_reply(request, 200, "OK", body);
    evbuffer_free(body);
    buf_deinit(&page);
    buf_deinit(&csp);
}

/* ---- events ---------------------------------------------------------------------------------- */

struct events {
    const struct demo *demo;
    struct evhttp_request *request;
    struct event *timer;
    unsigned n;
};

static void events_end(struct events *e)
{
    event_free(e->timer);
    mem_free(&e);
}

static void on_events_closed(struct evhttp_connection *connection, void *arg)
{
    struct events *e = arg;

    (void)connection;
    /* When the client left, libevent hands the unanswered request to us. When we end, it has already
     * freed the request. */
    if (!e->demo->ending && evhttp_request_get_connection(e->request) == NULL) {
        evhttp_request_free(e->request);
    }
    events_end(e);
}

static void on_event_due(evutil_socket_t fd, short what, void *arg)
{
    struct events *e = arg;
    struct evbuffer *line = evbuffer_new();
    char now[CLOCK_TEXT_SIZE];

    (void)fd;
    (void)what;
    e->n++;
    (void)evbuffer_add_printf(line, "id: %u\ndata: %u %s\n\n", e->n, e->n,
                              clock_format(clock_wall_ms(), now));
    evhttp_send_reply_chunk(e->request, line);
    evbuffer_free(line);
    if (e->n == EVENTS_MAX) {
        evhttp_connection_set_closecb(evhttp_request_get_connection(e->request), NULL, NULL);
        evhttp_send_reply_end(e->request);
        events_end(e);
    }
}

static void stream_events(struct evhttp_request *request, void *arg)
{
    struct demo *demo = arg;
    struct events *e = MEM_NEW(struct events);
    struct evkeyvalq *answer = evhttp_request_get_output_headers(request);
    struct timeval second = { .tv_sec = 1 };

    e->demo = demo;
    e->request = request;
    e->timer = event_new(loop_base(demo->loop), -1, EV_PERSIST, on_event_due, e);
    CHECK(e->timer != NULL);
    (void)event_add(e->timer, &second);
    (void)evhttp_add_header(answer, "Content-Type", "text/event-stream");
    (void)evhttp_add_header(answer, "Cache-Control", "no-store");
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_events_closed, e);
    evhttp_send_reply_start(request, 200, "OK");
    on_event_due(-1, 0, e);
}

/* ---- WebSocket (RFC 6455) --------------------------------------------------------------------- */

/* One frame from the client: masked, whole. 0: more bytes are needed; SIZE_MAX: not a frame. */
static size_t frame_size(struct evbuffer *in, size_t *head_out, size_t *payload_out)
{
    unsigned char head[14];
    ev_ssize_t got = evbuffer_copyout(in, head, sizeof(head));
    size_t n = got < 0 ? 0 : (size_t)got;
    size_t payload = 0;
    size_t size = 6;

    if (n < 6) {
        return 0;
    }
    payload = head[1] & 0x7fU;
    if ((head[1] & 0x80U) == 0 || payload == 127) {
        return SIZE_MAX;
    }
    if (payload == 126) {
        size = 8;
        if (n < size) {
            return 0;
        }
        payload = (size_t)head[2] << 8U | head[3];
    }
    *head_out = size;
    *payload_out = payload;
    return evbuffer_get_length(in) < size + payload ? 0 : size + payload;
}

static void echo_frame(struct bufferevent *peer, const unsigned char *frame, size_t head,
                       size_t payload)
{
    unsigned char out[FRAME_MAX + 4];
    const unsigned char *mask = frame + head - 4;
    size_t at = 0;
    size_t i = 0;
    unsigned opcode = frame[0] & 0x0fU;

    out[at++] = (unsigned char)(0x80U | (opcode == 9 ? 10U : opcode)); /* a ping gets its pong */
    if (payload < 126) {
        out[at++] = (unsigned char)payload;
    } else {
        out[at++] = 126;
        out[at++] = (unsigned char)(payload >> 8U);
        out[at++] = (unsigned char)(payload & 0xffU);
    }
    for (i = 0; i < payload; i++) {
        out[at++] = frame[head + i] ^ mask[i % 4];
    }
    (void)bufferevent_write(peer, out, at);
}

static void on_ws_event(struct bufferevent *peer, short what, void *arg)
{
    (void)peer;
    (void)what;
    evhttp_connection_free(arg);
}

static void on_ws_read(struct bufferevent *peer, void *arg)
{
    struct evbuffer *in = bufferevent_get_input(peer);

    for (;;) {
        size_t head = 0;
        size_t payload = 0;
        size_t size = frame_size(in, &head, &payload);
        const unsigned char *frame = NULL;
        bool closing = false;

        if (size == 0) {
            return;
        }
        if (size == SIZE_MAX) {
            on_ws_event(peer, 0, arg);
            return;
        }
        frame = evbuffer_pullup(in, (ev_ssize_t)size);
        closing = (frame[0] & 0x0fU) == 8;
        echo_frame(peer, frame, head, payload);
        (void)evbuffer_drain(in, size);
        if (closing) {
            (void)bufferevent_flush(peer, EV_WRITE, BEV_FINISHED);
            return;
        }
    }
}

static void open_websocket(struct evhttp_request *request, void *arg)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    struct sv key = header_of(request, "Sec-WebSocket-Key");
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct bufferevent *peer = evhttp_connection_get_bufferevent(connection);
    unsigned char digest[SHA_DIGEST_LENGTH];
    struct buf text;

    (void)arg;
    if (key.n != 24) {
        evhttp_send_error(request, 400, "Bad Request");
        return;
    }
    buf_init(&text, HEADS_MAX);
    buf_add_sv(&text, key);
    buf_add_str(&text, guid);
    (void)SHA1((const unsigned char *)text.p, text.n, digest);
    buf_reset(&text);
    buf_add_str(&text, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                       "Upgrade\r\nSec-WebSocket-Accept: ");
    b64_std_add(&text, sv_of(digest, sizeof(digest)));
    buf_add_str(&text, "\r\n\r\n");
    bufferevent_setcb(peer, on_ws_read, NULL, on_ws_event, connection);
    (void)bufferevent_enable(peer, EV_READ | EV_WRITE);
    (void)bufferevent_write(peer, text.p, text.n);
    buf_deinit(&text);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct demo *demo = arg;

    (void)sig;
    (void)what;
    loop_stop(demo->loop);
}

static int listen_unix(const char *path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t before = umask(0077);
    bool fine = fd >= 0;

    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    (void)unlink(path);
    fine = fine && bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0 && listen(fd, 64) == 0;
    (void)umask(before);
    return fine ? fd : -1;
}

static bool listen_at(struct demo *demo, const char *address)
{
    const char *colon = strrchr(address, ':');
    char host[256];
    uint64_t port = 0;

    if (strncmp(address, "unix:", 5) == 0) {
        int fd = listen_unix(address + 5);

        return fd >= 0 && evhttp_accept_socket(demo->http, fd) == 0;
    }
    if (colon == NULL || (size_t)(colon - address) >= sizeof(host) ||
        sv_u64(sv_from(colon + 1), UINT16_MAX, &port) != ERR_OK) {
        return false;
    }
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    return evhttp_bind_socket(demo->http, host[0] == '\0' ? "0.0.0.0" : host, (uint16_t)port) == 0;
}

static int run(const char *address)
{
    struct demo demo = { .loop = loop_new() };
    struct event *term = evsignal_new(loop_base(demo.loop), SIGTERM, on_signal, &demo);
    struct event *interrupt = evsignal_new(loop_base(demo.loop), SIGINT, on_signal, &demo);
    int code = 0;

    demo.http = evhttp_new(loop_base(demo.loop));
    CHECK(term != NULL && interrupt != NULL && demo.http != NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)evsignal_add(term, NULL);
    (void)evsignal_add(interrupt, NULL);
    evhttp_set_max_headers_size(demo.http, HEADS_MAX);
    evhttp_set_max_body_size(demo.http, PAGE_MAX);
    evhttp_set_timeout(demo.http, 3600);
    evhttp_set_allowed_methods(demo.http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                              EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                              EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
    (void)evhttp_set_cb(demo.http, "/events", stream_events, &demo);
    (void)evhttp_set_cb(demo.http, "/ws", open_websocket, &demo);
    evhttp_set_gencb(demo.http, show_request, &demo);
    if (listen_at(&demo, address)) {
        loop_run(demo.loop);
    } else {
        code = cli_fail(1, "the demo app cannot listen on %s", address);
    }
    demo.ending = true;
    evhttp_free(demo.http);
    event_free(term);
    event_free(interrupt);
    loop_free(&demo.loop);
    return code;
}

int cli_demo_main(int argc, char **argv)
{
    static const struct option options[] = { { "listen", required_argument, NULL, 'l' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    const char *address = "127.0.0.1:8000";
    int option = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'l') {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
        address = optarg;
    }
    return run(address);
}
