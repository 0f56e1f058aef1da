#include "cli/tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "cli/command.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/http/head.h"
#include "common/http/url.h"
#include "common/listen.h"
#include "common/mem.h"
#include "common/secret.h"
#include "common/service.h"

/* PIECE: what a pipe that can be written takes without blocking (PIPE_BUF). */
enum { HEAD_MAX = 65536, BODY_MAX = 8192, FIELDS = 64, WAIT_S = 15, ROOM = 32768, PIECE = 4096 };

/* One direction: bytes[start..end) wait to be written. */
struct flow {
    char bytes[ROOM];
    size_t start;
    size_t end;
    bool eof;  /* its source said no more */
    bool done; /* and its reader was told */
};

struct cli_tunnel {
    int fd;
    SSL *ssl;
    short wants; /* what TLS waits for */
    struct flow up;
    struct flow down;
};

/* ---- the way --------------------------------------------------------------------------------- */

static enum err canonical(struct sv text, uint16_t port_default, struct sv *host_out,
                          char room[HTTP_HOST_MAX + 1], uint16_t *port_out)
{
    struct http_authority auth = { 0 };

    if (http_authority_parse(text, &auth) != ERR_OK ||
        http_host_canonical(auth.host, room, host_out) != ERR_OK) {
        return ERR_INVALID;
    }
    *port_out = auth.port != 0 ? auth.port : port_default;
    return *port_out == 0 ? ERR_INVALID : ERR_OK;
}

static enum err set_proxy(struct cli_tunnel_way *way, struct sv text)
{
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };

    if (canonical(text, 443, &host, room, &way->port) != ERR_OK) {
        return ERR_INVALID;
    }
    (void)snprintf(way->host, sizeof(way->host), "%.*s", SV_ARG(host));
    return ERR_OK;
}

enum err cli_tunnel_way(const char *dest, const char *proxy, struct cli_tunnel_way *way,
                        struct diag *d)
{
    const struct sv scheme = SV("tcp+https://");
    struct sv rest = sv_from(dest);
    struct sv front = { 0 };
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    uint16_t port = 0;

    if (sv_istarts(rest, scheme)) {
        rest = sv_from_at(rest, scheme.n);
        front = sv_cut(&rest, '/');
        rest = rest.n == 0 ? front : rest;
        front = rest.p == front.p ? (struct sv){ 0 } : front;
    }
    if (canonical(rest, 0, &host, room, &port) != ERR_OK) {
        diag_set(d, "'%s' is neither HOST:PORT nor tcp+https://PROXY/HOST:PORT", dest);
        return ERR_INVALID;
    }
    (void)snprintf(way->authority, sizeof(way->authority), "%.*s:%u", SV_ARG(host), port);
    if (proxy != NULL) {
        struct sv url = sv_from(proxy);

        url = sv_istarts(url, SV("https://")) ? sv_from_at(url, 8) : url;
        front = sv_ends(url, SV("/")) ? sv_head(url, url.n - 1) : url;
    }
    if (set_proxy(way, proxy == NULL && front.n == 0 ? host : front) != ERR_OK) {
        diag_set(d, "the proxy's address is not https://HOST or https://HOST:PORT");
        return ERR_INVALID;
    }
    return ERR_OK;
}

void cli_tunnel_proxy_url(const struct cli_tunnel_way *way, struct buf *out)
{
    buf_printf(out, "https://%s", way->host);
    if (way->port != 443) {
        buf_printf(out, ":%u", way->port);
    }
}

static enum err use_own(SSL_CTX *tls, const struct cli_tunnel_files *files, struct diag *d)
{
    if (files->cert == NULL && files->key == NULL) {
        return ERR_OK;
    }
    if (files->cert == NULL || files->key == NULL) {
        diag_set(d, "--client-cert and --client-key belong together");
        return ERR_INVALID;
    }
    if (SSL_CTX_use_certificate_chain_file(tls, files->cert) != 1) {
        diag_set(d, "no certificate can be read from %s", files->cert);
        return ERR_IO;
    }
    if (SSL_CTX_use_PrivateKey_file(tls, files->key, SSL_FILETYPE_PEM) != 1) {
        diag_set(d, "%s is not the key of the certificate in %s, or cannot be read", files->key,
                 files->cert);
        return ERR_CRYPTO;
    }
    return ERR_OK;
}

enum err cli_tunnel_trust(struct cli_tunnel_way *way, const struct cli_tunnel_files *files,
                          struct diag *d)
{
    const char *ca = files->ca;
    static const unsigned char h1[] = "\x08http/1.1";

    way->tls = SSL_CTX_new(TLS_client_method());
    CHECK(way->tls != NULL && SSL_CTX_set_min_proto_version(way->tls, TLS1_2_VERSION) == 1);
    CHECK(SSL_CTX_set_alpn_protos(way->tls, h1, sizeof(h1) - 1) == 0);
    SSL_CTX_set_verify(way->tls, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_mode(way->tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                         SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
    if (ca == NULL ? SSL_CTX_set_default_verify_paths(way->tls) != 1
                   : SSL_CTX_load_verify_file(way->tls, ca) != 1) {
        diag_set(d, "no certificates to trust can be read from %s", ca == NULL ? "the system" : ca);
        return ERR_IO;
    }
    return use_own(way->tls, files, d);
}

/* ---- opening --------------------------------------------------------------------------------- */

static enum err dial(const struct cli_tunnel_way *way, int *fd_out, struct diag *d)
{
    const struct timeval wait = { .tv_sec = WAIT_S };
    const int on = 1;
    const int idle_s = 60; /* then TCP asks whether the proxy is still there */
    char address[CLI_TUNNEL_TEXT_MAX + 8];
    struct sv host = sv_from(way->host);

    if (sv_eq(host, SV("localhost")) || sv_ends(host, SV(".localhost"))) {
        host = SV("127.0.0.1"); /* RFC 6761 §6.3: never asked about */
    }
    (void)snprintf(address, sizeof(address), "%.*s:%u", SV_ARG(host), way->port);
    if (listen_connect(sv_from(address), fd_out, d) != ERR_OK) {
        return ERR_UNAVAILABLE;
    }
    (void)setsockopt(*fd_out, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    (void)setsockopt(*fd_out, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    (void)setsockopt(*fd_out, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(*fd_out, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(*fd_out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return ERR_OK;
}

static enum err handshake(struct cli_tunnel *t, const struct cli_tunnel_way *way, struct diag *d)
{
    char name[CLI_TUNNEL_TEXT_MAX];
    struct in6_addr address;
    bool literal = false;
    size_t n = strlen(way->host);

    (void)snprintf(name, sizeof(name), "%s", way->host);
    if (name[0] == '[') {
        memmove(name, name + 1, n);
        name[n - 2] = '\0';
    }
    literal = inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
    t->ssl = SSL_new(way->tls);
    CHECK(t->ssl != NULL && SSL_set_fd(t->ssl, t->fd) == 1);
    if (literal ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name) != 1
                : SSL_set1_host(t->ssl, name) != 1 || SSL_set_tlsext_host_name(t->ssl, name) != 1) {
        diag_set(d, "%s cannot be a name in a certificate", way->host);
        return ERR_INVALID;
    }
    ERR_clear_error();
    if (SSL_connect(t->ssl) != 1) {
        long verdict = SSL_get_verify_result(t->ssl);

        if (verdict != X509_V_OK) {
            diag_set(d, "the certificate of %s is not trusted (%s); --ca names other authorities",
                     way->host, X509_verify_cert_error_string(verdict));
            return ERR_CRYPTO;
        }
        diag_set(d, "%s does not answer in TLS", way->host);
        return ERR_UNAVAILABLE;
    }
    return ERR_OK;
}

static bool say_connect(struct cli_tunnel *t, const struct cli_tunnel_way *way, const char *token)
{
    struct buf head;
    bool sent = false;

    buf_init(&head, HEAD_MAX);
    buf_printf(&head,
               "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: postern/%s\r\nAccept: "
               "application/json\r\n",
               way->authority, way->authority, service_version);
    if (token != NULL && token[0] != '\0') {
        buf_printf(&head, "Authorization: Pomerium %s\r\n", token);
    }
    buf_add_str(&head, "\r\n");
    sent = head.err == ERR_OK && SSL_write(t->ssl, head.p, (int)head.n) == (int)head.n;
    secret_wipe(head.p, head.n);
    buf_deinit(&head);
    return sent;
}

/* Reads more of the answer into the down flow, which holds it until the tunnel is open. */
static bool read_more(struct cli_tunnel *t)
{
    size_t n = 0;

    if (t->down.end == ROOM ||
        SSL_read_ex(t->ssl, t->down.bytes + t->down.end, ROOM - t->down.end, &n) != 1) {
        return false;
    }
    t->down.end += n;
    return true;
}

/* Why the proxy said no, in its own words as far as they are words. */
static void read_reason(struct cli_tunnel *t, const struct http_head *head, char code[64],
                        char request_id[64])
{
    size_t want = (size_t)MIN(head->content_length, (uint64_t)BODY_MAX);
    json_t *body = NULL;
    const char *texts[2] = { NULL };
    char *out[2] = { code, request_id };

    while (t->down.end - t->down.start < want && read_more(t)) {
    }
    body = json_loadb(t->down.bytes + t->down.start, t->down.end - t->down.start, 0, NULL);
    texts[0] = json_string_value(json_object_get(body, "code"));
    texts[1] = json_string_value(json_object_get(body, "request_id"));
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(out[i], 64, "%s", texts[i] == NULL ? "unknown" : texts[i]);
        (void)cli_tame(out[i]);
    }
    json_decref(body);
}

static enum err explain(struct cli_tunnel *t, const struct cli_tunnel_way *way,
                        const struct http_head *head, struct diag *d)
{
    char code[64];
    char id[64];

    read_reason(t, head, code, id);
    switch (head->status) {
    case 401:
        diag_set(d, "%s wants a login for %s", way->host, way->authority);
        return ERR_DENIED;
    case 403:
        diag_set(d,
                 "you are not allowed to reach %s (%s). If you need to, ask whoever runs the "
                 "service and give them the request id %s",
                 way->authority, code, id);
        return ERR_INVALID;
    case 404:
        diag_set(d, "%s has no tunnel to %s. Check host and port; --proxy-url names another proxy",
                 way->host, way->authority);
        return ERR_INVALID;
    case 502:
    case 503:
    case 504:
        diag_set(d, "the tunnel to %s cannot be opened now (%s, request id %s). Try again later",
                 way->authority, code, id);
        return ERR_UNAVAILABLE;
    default:
        diag_set(d, "%s answered %u (%s, request id %s)", way->host, head->status, code, id);
        return ERR_UNAVAILABLE;
    }
}

static enum err hear_answer(struct cli_tunnel *t, const struct cli_tunnel_way *way, struct diag *d)
{
    struct http_field fields[FIELDS];
    struct http_head head;
    enum http_step step = HTTP_MORE;

    http_head_init_response(&head, NULL, HTTP_CONNECT, fields, FIELDS);
    while (step == HTTP_MORE && read_more(t)) {
        step = http_head_parse(&head, sv_of(t->down.bytes, t->down.end));
    }
    if (step != HTTP_DONE) {
        diag_set(d, "%s gave no answer that makes sense; is it a proxy of Postern?", way->host);
        return ERR_UNAVAILABLE;
    }
    t->down.start = head.size;
    return head.status == 200 ? ERR_OK : explain(t, way, &head, d);
}

enum err cli_tunnel_open(const struct cli_tunnel_way *way, const char *token,
                         struct cli_tunnel **tunnel_out, struct diag *d)
{
    CLEANUP(cli_tunnel_free) struct cli_tunnel *t = MEM_NEW(struct cli_tunnel);
    enum err err = ERR_OK;

    t->fd = -1;
    err = dial(way, &t->fd, d);
    err = err != ERR_OK ? err : handshake(t, way, d);
    if (err == ERR_OK && !say_connect(t, way, token)) {
        diag_set(d, "the connection to %s broke", way->host);
        err = ERR_UNAVAILABLE;
    }
    err = err != ERR_OK ? err : hear_answer(t, way, d);
    if (err == ERR_OK) {
        *tunnel_out = TAKE(t);
    }
    return err;
}

void cli_tunnel_free(struct cli_tunnel **tunnel)
{
    struct cli_tunnel *t = TAKE(*tunnel);

    if (t == NULL) {
        return;
    }
    SSL_free(t->ssl);
    if (t->fd >= 0) {
        (void)close(t->fd);
    }
    mem_free(&t);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

enum step { STEP_NONE = 0, STEP_MOVED, STEP_BROKEN };

static enum step tls_step(struct cli_tunnel *t, int code)
{
    switch (SSL_get_error(t->ssl, code)) {
    case SSL_ERROR_WANT_READ:
        t->wants |= POLLIN;
        return STEP_NONE;
    case SSL_ERROR_WANT_WRITE:
        t->wants |= POLLOUT;
        return STEP_NONE;
    default:
        return STEP_BROKEN;
    }
}

static enum step read_local(struct flow *up, int in, bool ready)
{
    ssize_t n = 0;

    if (up->start != up->end || up->eof || !ready) {
        return STEP_NONE;
    }
    n = read(in, up->bytes, ROOM);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? STEP_NONE : STEP_BROKEN;
    }
    up->start = 0;
    up->end = (size_t)n;
    up->eof = n == 0;
    return STEP_MOVED;
}

static enum step write_tls(struct cli_tunnel *t)
{
    struct flow *up = &t->up;
    size_t n = 0;
    int code = 0;

    if (up->start != up->end) {
        ERR_clear_error();
        if (SSL_write_ex(t->ssl, up->bytes + up->start, up->end - up->start, &n) != 1) {
            return tls_step(t, 0);
        }
        up->start += n;
        return STEP_MOVED;
    }
    if (!up->eof || up->done) {
        return STEP_NONE;
    }
    ERR_clear_error();
    code = SSL_shutdown(t->ssl); /* close_notify: our direction ends, theirs goes on */
    if (code < 0) {
        return tls_step(t, code);
    }
    up->done = true;
    return STEP_MOVED;
}

static enum step read_tls(struct cli_tunnel *t)
{
    struct flow *down = &t->down;
    size_t n = 0;

    if (down->start != down->end || down->eof) {
        return STEP_NONE;
    }
    ERR_clear_error();
    down->start = 0;
    down->end = 0;
    if (SSL_read_ex(t->ssl, down->bytes, ROOM, &n) != 1) {
        if (SSL_get_error(t->ssl, 0) == SSL_ERROR_ZERO_RETURN) {
            down->eof = true;
            return STEP_MOVED;
        }
        return tls_step(t, 0);
    }
    down->end = n;
    return STEP_MOVED;
}

static enum step write_local(struct flow *down, int in, int out, bool ready)
{
    ssize_t n = 0;

    if (down->start != down->end) {
        if (!ready) {
            return STEP_NONE;
        }
        n = write(out, down->bytes + down->start,
                  MIN(down->end - down->start, in == out ? (size_t)ROOM : (size_t)PIECE));
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR ? STEP_NONE : STEP_BROKEN;
        }
        down->start += (size_t)n;
        return STEP_MOVED;
    }
    if (!down->eof || down->done) {
        return STEP_NONE;
    }
    if (in != out) {
        (void)close(out);
    } else {
        (void)shutdown(out, SHUT_WR);
    }
    down->done = true;
    return STEP_MOVED;
}

static bool is_over(const struct cli_tunnel *t)
{
    return t->up.done && t->down.done;
}

/* Waits for what could move next. */
static bool wait_for_more(struct cli_tunnel *t, int in, int out, short *in_out, short *out_out)
{
    bool read_in = !t->up.eof && t->up.start == t->up.end;
    bool write_out = !t->down.done && t->down.start != t->down.end;
    struct pollfd p[3] = {
        { .fd = t->wants != 0 ? t->fd : -1, .events = t->wants },
        { .fd = read_in ? in : -1, .events = POLLIN },
        { .fd = write_out ? out : -1, .events = POLLOUT },
    };

    while (poll(p, 3, -1) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    *in_out = p[1].revents;
    *out_out = p[2].revents;
    return true;
}

static enum err pump(struct cli_tunnel *t, int in, int out)
{
    bool socket = in == out; /* never blocks: it may be tried at any time */
    short in_ready = 0;
    short out_ready = 0;

    while (!is_over(t)) {
        enum step steps[4];
        bool moved = false;

        t->wants = 0;
        steps[0] = read_local(&t->up, in, socket || in_ready != 0);
        steps[1] = write_tls(t);
        steps[2] = read_tls(t);
        steps[3] = write_local(&t->down, in, out, socket || out_ready != 0);
        in_ready = 0;
        out_ready = 0;
        for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
            if (steps[i] == STEP_BROKEN) {
                return ERR_IO;
            }
            moved = moved || steps[i] == STEP_MOVED;
        }
        if (!moved && !wait_for_more(t, in, out, &in_ready, &out_ready)) {
            return ERR_IO;
        }
    }
    return ERR_OK;
}

/* Neither side may take a cut for an end. */
static void cut(int fd)
{
    const struct linger at_once = { .l_onoff = 1 };

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

enum err cli_tunnel_run(struct cli_tunnel *tunnel, int in, int out)
{
    enum err err = ERR_OK;
    int flags = fcntl(tunnel->fd, F_GETFL);

    (void)fcntl(tunnel->fd, F_SETFL, flags | O_NONBLOCK);
    if (in == out) { /* a socket of ours; standard input and output belong to others, too */
        (void)fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
    }
    err = pump(tunnel, in, out);
    if (err != ERR_OK) {
        cut(tunnel->fd);
        cut(in);
    }
    if (in != out && !tunnel->down.done) {
        (void)close(out);
    }
    (void)close(in);
    return err;
}
