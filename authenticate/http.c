#include "authenticate/http.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "authenticate/endpoints.h"
#include "authenticate/oidc.h"
#include "authenticate/request.h"
#include "common/http/cookie.h"
#include "common/http/url.h"
#include "common/log.h"
#include "common/mem.h"

struct authn_http {
    struct authn *app;
    struct evhttp *server;
    struct evhttp_bound_socket *bound;
    struct list open;
    size_t n_open;
    char *socket; /* file to remove in the end */
    void (*idle)(void *arg);
    void *idle_arg;
};

static void request_free(struct authn_request *req)
{
    struct authn_http *http = req->app->http;

    CHECK(req->jobs == 0);
    rpc_pending_cancel(&req->call);
    fetch_cancel(&req->fetch);
    authn_exchange_free(&req->exchange);
    list_remove(&req->node);
    list_remove(&req->waiter.node);
    http->n_open--;
    arena_deinit(&req->arena);
    config_unref(&req->config);
    mem_free(&req);
    if (http->n_open == 0 && http->idle != NULL) {
        void (*idle)(void *) = http->idle;

        http->idle = NULL;
        idle(http->idle_arg);
    }
}

void authn_request_resumed(struct authn_request *req)
{
    req->call = NULL;
    req->fetch = NULL;
}

/* --- reading ------------------------------------------------------------------------------------- */

struct sv authn_request_header(const struct authn_request *req, const char *name)
{
    return sv_from(evhttp_find_header(evhttp_request_get_input_headers(req->http), name));
}

struct sv authn_request_cookie(const struct authn_request *req, struct sv name)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(req->http);
    struct sv found = { .p = NULL };
    size_t n = 0;
    struct evkeyval *h = NULL;

    for (h = headers->tqh_first; h != NULL; h = h->next.tqe_next) {
        struct sv rest = sv_from(h->value);
        struct sv key;
        struct sv value;

        if (!sv_ieq(sv_from(h->key), SV("cookie"))) {
            continue;
        }
        while (http_cookie_next(&rest, &key, &value, NULL)) {
            if (sv_eq(key, name)) {
                found = value;
                n++;
            }
        }
    }
    return n == 1 ? found : (struct sv){ .p = NULL };
}

/* The last one is what the proxy saw; those before it are hearsay. */
static struct sv client_address(const struct authn_request *req)
{
    struct sv list = authn_request_header(req, "X-Forwarded-For");
    size_t at = sv_rfind(list, ',');

    return sv_trim(at == SIZE_MAX ? list : sv_from_at(list, at + 1));
}

static bool host_read(struct authn_request *req)
{
    const struct config_url *own = &req->config->authenticate_service_url;
    struct sv text = authn_request_header(req, "X-Forwarded-Host");
    struct http_authority authority;
    char room[HTTP_HOST_MAX + 1];
    struct sv host;

    if (text.n == 0) {
        text = authn_request_header(req, "Host");
    }
    if (http_authority_parse(text, &authority) != ERR_OK ||
        http_host_canonical(authority.host, room, &host) != ERR_OK) {
        return false;
    }
    req->host = arena_sv(&req->arena, host);
    if (authority.port == 0) {
        authority.port = own->tls ? 443 : 80;
    }
    req->own_host = sv_eq(req->host, own->host) && authority.port == own->port;
    return true;
}

static void method_read(struct authn_request *req)
{
    enum evhttp_cmd_type cmd = evhttp_request_get_command(req->http);

    req->head_only = cmd == EVHTTP_REQ_HEAD;
    req->method = cmd == EVHTTP_REQ_POST                    ? AUTHN_POST
                  : cmd == EVHTTP_REQ_GET || req->head_only ? AUTHN_GET
                                                            : AUTHN_METHOD_OTHER;
}

static void body_read(struct authn_request *req)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(req->http);
    size_t n = evbuffer_get_length(in);
    char *bytes = NULL;

    if (n > 0 && n <= AUTHN_BODY_MAX) {
        bytes = arena_alloc(&req->arena, n);
        req->body = sv_of(bytes, (size_t)evbuffer_remove(in, bytes, n));
    }
}

static void on_request(struct evhttp_request *raw, void *arg)
{
    struct authn_http *http = arg;
    struct authn_request *req = NULL;
    struct sv rest;

    if (http->n_open >= AUTHN_REQUESTS_MAX || http->idle != NULL) {
        evhttp_send_error(raw, 503, NULL);
        return;
    }
    req = MEM_NEW(struct authn_request);
    req->app = http->app;
    req->http = raw;
    req->config = config_ref(http->app->config);
    arena_init(&req->arena);
    list_push_back(&http->open, &req->node);
    list_init(&req->waiter.node);
    http->n_open++;
    req->target = arena_sv(&req->arena, sv_from(evhttp_request_get_uri(raw)));
    rest = req->target;
    req->path = sv_cut(&rest, '?');
    req->query = rest;
    req->request_id = authn_request_header(req, "X-Request-Id");
    req->address = client_address(req);
    method_read(req);
    body_read(req);
    if (!host_read(req)) {
        authn_reply_text(req, 400, "text/plain; charset=utf-8", SV("bad host\n"));
        return;
    }
    authn_endpoints_handle(req);
}

/* --- answering ----------------------------------------------------------------------------------- */

void authn_reply_header(struct authn_request *req, const char *name, const char *value)
{
    /* Refused are values with CR or LF: then the field is missing, which is the safe way. */
    (void)evhttp_add_header(evhttp_request_get_output_headers(req->http), name, value);
}

void authn_reply_cookie(struct authn_request *req, const char *name, struct sv value,
                        int64_t max_age_s)
{
    struct http_set_cookie cookie = { .name = sv_from(name),
                                      .value = value,
                                      .max_age_s = max_age_s };
    CLEANUP(buf_deinit) struct buf line;

    buf_init(&line, HTTP_SET_COOKIE_MAX);
    if (http_set_cookie_add(&line, &cookie) == ERR_OK) {
        authn_reply_header(req, "Set-Cookie", buf_cstr(&line));
    } else {
        log_error("cookie.not_set", KV_STR("name", name));
    }
}

static void reply(struct authn_request *req, int status, struct sv body)
{
    struct evbuffer *out = evbuffer_new();
    char length[24];
    size_t n_headers = 0;
    const struct http_page_header *headers = http_page_headers(&n_headers);

    CHECK(out != NULL);
    for (size_t i = 0; i < n_headers; i++) {
        authn_reply_header(req, headers[i].name, headers[i].value);
    }
    (void)snprintf(length, sizeof length, "%zu", body.n);
    authn_reply_header(req, "Content-Length", length);
    if (!req->head_only && body.n > 0) {
        CHECK(evbuffer_add(out, body.p, body.n) == 0);
    }
    log_debug("request.answered", KV_SV("path", req->path), KV_I64("status", status),
              KV_SV("request_id", req->request_id));
    evhttp_send_reply(req->http, status, NULL, out);
    evbuffer_free(out);
    request_free(req);
}

void authn_reply_redirect(struct authn_request *req, struct sv url)
{
    authn_reply_header(req, "Location", arena_str(&req->arena, url));
    reply(req, req->method == AUTHN_POST ? 303 : 302, (struct sv){ .p = NULL });
}

void authn_reply_text(struct authn_request *req, int status, const char *type, struct sv text)
{
    authn_reply_header(req, "Content-Type", type);
    reply(req, status, text);
}

void authn_reply_page(struct authn_request *req, int status, const struct buf *page,
                      struct sv form_origin)
{
    CLEANUP(buf_deinit) struct buf csp;
    struct sv body = { .p = NULL };

    buf_init(&csp, 4096);
    http_page_csp(&csp, &form_origin, form_origin.n > 0 ? 1 : 0);
    authn_reply_header(req, "Content-Security-Policy", buf_cstr(&csp));
    authn_reply_header(req, "Content-Type", HTTP_PAGE_TYPE.p);
    if (buf_finish(page, &body) != ERR_OK) {
        log_error("page.too_large", KV_SV("path", req->path));
        body = SV("This page has grown too large to be shown.\n");
        status = 500;
    }
    reply(req, status, body);
}

static bool wants_json(const struct authn_request *req)
{
    struct sv accept = authn_request_header(req, "Accept");

    return sv_search(accept, SV("application/json")) != SIZE_MAX &&
           sv_search(accept, SV("text/html")) == SIZE_MAX;
}

void authn_reply_problem(struct authn_request *req, const struct authn_problem *problem)
{
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, HTTP_PAGE_MAX);
    log_info("request.refused", KV_STR("code", problem->code), KV_I64("status", problem->status),
             KV_SV("path", req->path), KV_SV("request_id", req->request_id),
             KV_SV("address", req->address));
    if (problem->retry_after_s > 0) {
        char seconds[16];

        (void)snprintf(seconds, sizeof seconds, "%d", problem->retry_after_s);
        authn_reply_header(req, "Retry-After", seconds);
    }
    if (wants_json(req)) {
        buf_add_str(&text, "{\"error\":");
        buf_add_json(&text, sv_from(problem->what));
        buf_add_str(&text, ",\"code\":");
        buf_add_json(&text, sv_from(problem->code));
        buf_add_str(&text, ",\"request_id\":");
        buf_add_json(&text, req->request_id);
        buf_add_str(&text, "}\n");
        authn_reply_text(req, problem->status, "application/json", buf_sv(&text));
        return;
    }
    http_page_problem(&text,
                      &(struct http_page_problem){ .title = sv_from(problem->title),
                                                   .what = sv_from(problem->what),
                                                   .todo = sv_from(problem->todo),
                                                   .code = sv_from(problem->code),
                                                   .request_id = req->request_id,
                                                   .link = problem->link,
                                                   .link_text = sv_from(problem->link_text) });
    authn_reply_page(req, problem->status, &text, (struct sv){ .p = NULL });
}

void authn_reply_store_down(struct authn_request *req)
{
    authn_reply_problem(
        req, &(struct authn_problem){ .status = 503,
                                      .code = "store-unavailable",
                                      .title = "Please try again in a moment",
                                      .what = "Sessions cannot be read or written right now.",
                                      .todo = "Nothing is lost. Reload this page in a few seconds.",
                                      .retry_after_s = 5 });
}

/* --- the server ---------------------------------------------------------------------------------- */

static enum err bind_unix(struct authn_http *http, const struct config_url *url, int *fd_out)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = -1;

    if (url->socket.n >= sizeof sa.sun_path) {
        return ERR_LIMIT;
    }
    memcpy(sa.sun_path, url->socket.p, url->socket.n);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return ERR_IO;
    }
    (void)unlink(sa.sun_path);
    if (bind(fd, (const struct sockaddr *)&sa, sizeof sa) != 0 || chmod(sa.sun_path, 0660) != 0 ||
        listen(fd, 512) != 0) {
        (void)close(fd);
        return ERR_IO;
    }
    http->socket = mem_svdup(url->socket);
    *fd_out = fd;
    return ERR_OK;
}

static enum err bind_tcp(const struct config_url *url, int *fd_out)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list = NULL;
    struct sv host = url->host;
    char port[8];
    CLEANUP(mem_free) char *name = NULL;
    int fd = -1;

    if (host.n > 2 && host.p[0] == '[') {
        host = sv_of(host.p + 1, host.n - 2);
    }
    name = mem_svdup(host);
    (void)snprintf(port, sizeof port, "%u", url->port);
    if (getaddrinfo(name, port, &hints, &list) != 0) {
        return ERR_IO;
    }
    for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next) {
        int on = 1;

        fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
                        bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, 512) != 0)) {
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    *fd_out = fd;
    return fd < 0 ? ERR_IO : ERR_OK;
}

static void server_limits(struct evhttp *server)
{
    evhttp_set_max_headers_size(server, AUTHN_HEAD_MAX);
    evhttp_set_max_body_size(server, AUTHN_BODY_MAX);
    evhttp_set_timeout(server, AUTHN_TIMEOUT_S);
    evhttp_set_default_content_type(server, NULL);
    evhttp_set_allowed_methods(server, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST);
}

enum err authn_http_new(struct authn *app, struct authn_http **http_out, struct diag *d)
{
    const struct config_url *url = &app->config->authenticate_internal_url;
    struct authn_http *http = MEM_NEW(struct authn_http);
    int fd = -1;
    enum err err = ERR_OK;

    if (url->tls) {
        diag_set(d,
                 "authenticate_internal_service_url %.*s: https is not served here; use unix:, or "
                 "http: on a private network",
                 SV_ARG(url->text));
        mem_free(&http);
        return ERR_UNSUPPORTED;
    }
    http->app = app;
    list_init(&http->open);
    http->server = evhttp_new(loop_base(app->loop));
    CHECK(http->server != NULL);
    server_limits(http->server);
    evhttp_set_gencb(http->server, on_request, http);
    err = url->scheme == CONFIG_SCHEME_UNIX ? bind_unix(http, url, &fd) : bind_tcp(url, &fd);
    if (err == ERR_OK) {
        http->bound = evhttp_accept_socket_with_handle(http->server, fd);
        err = http->bound == NULL ? ERR_IO : ERR_OK;
    }
    if (err != ERR_OK) {
        diag_set(d, "cannot listen on authenticate_internal_service_url %.*s: %s",
                 SV_ARG(url->text), strerrordesc_np(errno));
        authn_http_free(&http);
        return err;
    }
    *http_out = http;
    return ERR_OK;
}

void authn_http_stop(struct authn_http *http, void (*idle)(void *arg), void *arg)
{
    if (http->bound != NULL) {
        evhttp_del_accept_socket(http->server, http->bound);
        http->bound = NULL;
    }
    if (http->n_open == 0) {
        idle(arg);
        return;
    }
    http->idle = idle;
    http->idle_arg = arg;
}

void authn_http_free(struct authn_http **http)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    if (*http == NULL) {
        return;
    }
    (*http)->idle = NULL;
    LIST_FOREACH_SAFE(it, tmp, &(*http)->open) {
        request_free(LIST_ENTRY(it, struct authn_request, node));
    }
    evhttp_free((*http)->server);
    if ((*http)->socket != NULL) {
        (void)unlink((*http)->socket);
    }
    mem_free(&(*http)->socket);
    mem_free(http);
}
