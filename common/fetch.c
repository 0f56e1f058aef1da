#include "common/fetch.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <curl/curl.h>
#include <openssl/ssl.h>

#include "common/buf.h"
#include "common/list.h"
#include "common/mem.h"
#include "common/secret.h"

struct fetcher {
    struct loop *loop;
    CURLM *multi;
    struct event *timer;
    char *ca_file;
    struct list open;
    bool closing; /* freed by its owner: goes with its last fetch */
};

struct fetch {
    struct list node;
    struct fetcher *fetcher;
    CURL *easy;
    struct curl_slist *headers;
    struct buf body;
    char *post;
    size_t post_n;
    struct curl_slist *connect_to;
    SSL_CTX *tls;
    int grpc_status;
    char error[CURL_ERROR_SIZE];
    fetch_done_fn done;
    void *arg;
    struct event *refused; /* answers a request that never began */
};

struct fetch_socket {
    struct event *event;
};

static void fetcher_destroy(void *arg)
{
    struct fetcher *fetcher = arg;

    (void)curl_multi_cleanup(fetcher->multi);
    event_free(fetcher->timer);
    mem_free(&fetcher->ca_file);
    mem_free(&fetcher);
    curl_global_cleanup();
}

static void fetch_free(struct fetch *f)
{
    struct fetcher *fetcher = f->fetcher;

    list_remove(&f->node);
    if (f->easy != NULL) {
        (void)curl_multi_remove_handle(f->fetcher->multi, f->easy);
        curl_easy_cleanup(f->easy);
    }
    for (struct curl_slist *h = f->headers; h != NULL; h = h->next) {
        secret_wipe(h->data, strlen(h->data));
    }
    curl_slist_free_all(f->headers);
    if (f->post != NULL) {
        secret_wipe(f->post, f->post_n);
    }
    curl_slist_free_all(f->connect_to);
    SSL_CTX_free(f->tls);
    mem_free(&f->post);
    if (f->body.p != NULL) {
        secret_wipe(f->body.p, f->body.n);
    }
    buf_deinit(&f->body);
    if (f->refused != NULL) {
        event_free(f->refused);
    }
    mem_free(&f);
    if (fetcher->closing && list_empty(&fetcher->open)) {
        fetcher->closing = false;
        loop_defer(fetcher->loop, fetcher_destroy, fetcher); /* curl may be up the stack */
    }
}

static enum err code_err(CURLcode code)
{
    if (code == CURLE_OK) {
        return ERR_OK;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return ERR_TIMEOUT;
    }
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) {
        return ERR_CRYPTO;
    }
    if (code == CURLE_WRITE_ERROR || code == CURLE_FILESIZE_EXCEEDED) {
        return ERR_LIMIT;
    }
    return code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ? ERR_INVALID
                                                                             : ERR_UNAVAILABLE;
}

static struct sv header_of(const struct fetch *f, const char *name, size_t max)
{
    struct curl_header *h = NULL;
    bool is_there = curl_easy_header(f->easy, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK;
    struct sv value = is_there ? sv_from(h->value) : SV("");

    return value.n <= max ? value : SV("");
}

static bool is_framed(const struct fetch *f)
{
    long version = CURL_HTTP_VERSION_NONE;

    (void)curl_easy_getinfo(f->easy, CURLINFO_HTTP_VERSION, &version);
    return version >= CURL_HTTP_VERSION_2_0 || header_of(f, "Content-Length", SIZE_MAX).n != 0 ||
           header_of(f, "Transfer-Encoding", SIZE_MAX).n != 0;
}

static void fetch_finish(struct fetch *f, CURLcode code)
{
    struct fetch_answer answer = { .err = code_err(code), .grpc_status = -1, .text = "" };
    fetch_done_fn done = f->done;
    void *arg = f->arg;

    if (answer.err == ERR_OK) {
        (void)curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &answer.status);
        answer.body = buf_sv(&f->body);
        answer.grpc_status = f->grpc_status;
        answer.type = header_of(f, "Content-Type", FETCH_VALIDATOR_MAX);
        answer.etag = header_of(f, "ETag", FETCH_VALIDATOR_MAX);
        answer.last_modified = header_of(f, "Last-Modified", FETCH_VALIDATOR_MAX);
        answer.is_framed = is_framed(f);
    } else {
        answer.text = f->error[0] != '\0' ? f->error : curl_easy_strerror(code);
    }
    done(arg, &answer);
    fetch_free(f);
}

static void collect(struct fetcher *fetcher)
{
    CURLMsg *msg = NULL;
    int left = 0;

    for (msg = curl_multi_info_read(fetcher->multi, &left); msg != NULL;
         msg = curl_multi_info_read(fetcher->multi, &left)) {
        struct fetch *f = NULL;

        if (msg->msg == CURLMSG_DONE) {
            CURLcode code = msg->data.result;

            (void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&f);
            fetch_finish(f, code);
        }
    }
}

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
    struct fetcher *fetcher = arg;
    int mask = ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) |
               ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0);
    int running = 0;

    (void)curl_multi_socket_action(fetcher->multi, fd, mask, &running);
    collect(fetcher);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct fetcher *fetcher = arg;
    int running = 0;

    (void)fd;
    (void)what;
    (void)curl_multi_socket_action(fetcher->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(fetcher);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct fetcher *fetcher = arg;
    struct timeval tv = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };

    (void)multi;
    if (timeout_ms < 0) {
        (void)event_del(fetcher->timer);
    } else {
        (void)event_add(fetcher->timer, &tv);
    }
    return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct fetcher *fetcher = arg;
    struct fetch_socket *s = socket_arg;
    short events = EV_PERSIST;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s != NULL) {
            event_free(s->event);
            mem_free(&s);
            (void)curl_multi_assign(fetcher->multi, fd, NULL);
        }
        return 0;
    }
    if (s == NULL) {
        s = MEM_NEW(struct fetch_socket);
        (void)curl_multi_assign(fetcher->multi, fd, s);
    } else {
        event_free(s->event);
    }
    events = (short)(events | ((what & CURL_POLL_IN) != 0 ? EV_READ : 0) |
                     ((what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0));
    s->event = event_new(loop_base(fetcher->loop), fd, events, on_socket_event, fetcher);
    CHECK(s->event != NULL && event_add(s->event, NULL) == 0);
    return 0;
}

#define SET(option, value) ok = ok && curl_multi_setopt(fetcher->multi, option, value) == CURLM_OK

static void multi_set_up(
    struct fetcher *fetcher) /* NOLINT(readability-function-cognitive-complexity): a list */
{
    bool ok = true;

    SET(CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    SET(CURLMOPT_SOCKETDATA, fetcher);
    SET(CURLMOPT_TIMERFUNCTION, on_curl_timer);
    SET(CURLMOPT_TIMERDATA, fetcher);
    SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, 64L);
    SET(CURLMOPT_MAXCONNECTS, 8L);
    CHECK(ok);
}

#undef SET

struct fetcher *fetcher_new(struct loop *loop, const char *ca_file)
{
    struct fetcher *fetcher = MEM_NEW(struct fetcher);

    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    fetcher->loop = loop;
    fetcher->multi = curl_multi_init();
    fetcher->timer = event_new(loop_base(loop), -1, 0, on_timer, fetcher);
    CHECK(fetcher->multi != NULL && fetcher->timer != NULL);
    fetcher->ca_file = ca_file == NULL ? NULL : mem_strdup(ca_file);
    list_init(&fetcher->open);
    multi_set_up(fetcher);
    return fetcher;
}

void fetcher_set_max(struct fetcher *fetcher, long connections)
{
    CHECK(curl_multi_setopt(fetcher->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections) ==
          CURLM_OK);
}

void fetcher_free(struct fetcher **fetcher)
{
    if (*fetcher == NULL) {
        return;
    }
    if (list_empty(&(*fetcher)->open)) {
        fetcher_destroy(*fetcher);
    } else {
        (*fetcher)->closing = true;
    }
    *fetcher = NULL;
}

static size_t on_body(const char *p, size_t size, size_t n, void *arg)
{
    struct fetch *f = arg;

    buf_add(&f->body, p, size * n);
    return f->body.err == ERR_OK ? size * n : 0;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct fetch *f = arg;
    struct sv line = sv_of(p, size * n); /* with its line end */
    struct sv name = sv_cut(&line, ':');
    uint64_t status = 0;

    while (line.n != 0 && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n')) {
        line.n--;
    }
    if (sv_ieq(name, SV("grpc-status")) && line.p != NULL &&
        sv_u64(sv_trim(line), 1000, &status) == ERR_OK) {
        f->grpc_status = (int)status;
    }
    return size * n;
}

static bool host_is_local(struct sv host)
{
    return sv_ieq(host, SV("localhost")) || sv_ends(host, SV(".localhost")) ||
           sv_starts(host, SV("127.")) || sv_eq(host, SV("[::1]"));
}

static struct sv url_host(struct sv url)
{
    size_t at = sv_search(url, SV("://"));
    struct sv rest = at == SIZE_MAX ? (struct sv){ .p = NULL } : sv_from_at(url, at + 3);
    size_t end = 0;

    while (end < rest.n && rest.p[end] != '/' && rest.p[end] != '?' && rest.p[end] != '#') {
        end++;
    }
    rest = sv_head(rest, end);
    if (sv_find(rest, '@') != SIZE_MAX) {
        return (struct sv){ .p = NULL }; /* user information hides the host */
    }
    if (rest.n > 0 && rest.p[0] == '[') {
        size_t close = sv_find(rest, ']');

        return close == SIZE_MAX ? rest : sv_head(rest, close + 1);
    }
    end = sv_find(rest, ':');
    return end == SIZE_MAX ? rest : sv_head(rest, end);
}

static bool url_allowed(struct sv url)
{
    struct sv host = url_host(url);

    return host.n > 0 && (sv_istarts(url, SV("https://")) ||
                          (sv_istarts(url, SV("http://")) && host_is_local(host)));
}

#define SET(option, value) ok = ok && curl_easy_setopt(f->easy, option, value) == CURLE_OK

/* The trust and the client certificate of another context, for libcurl's own. */
static CURLcode on_tls(CURL *easy, void *ctx, void *arg)
{
    const struct fetch *f = arg;
    X509 *cert = SSL_CTX_get0_certificate(f->tls);

    STACK_OF(X509) *chain = NULL;

    (void)easy;
    SSL_CTX_set1_cert_store(ctx, SSL_CTX_get_cert_store(f->tls));
    if (cert != NULL &&
        (SSL_CTX_get0_chain_certs(f->tls, &chain) != 1 || SSL_CTX_use_certificate(ctx, cert) != 1 ||
         SSL_CTX_set1_chain(ctx, chain) != 1 ||
         SSL_CTX_use_PrivateKey(ctx, SSL_CTX_get0_privatekey(f->tls)) != 1)) {
        return CURLE_SSL_CERTPROBLEM;
    }
    return CURLE_OK;
}

static bool prepare_via(struct fetch *f, const struct fetch_via *via)
{
    bool ok = true;
    struct buf to;

    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_HTTP_VERSION,
        via->http2 ? (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE : (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, f);
    if (!via->verify) {
        SET(CURLOPT_SSL_VERIFYPEER, 0L);
        SET(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (via->tls != NULL) {
        CHECK(SSL_CTX_up_ref(via->tls) == 1);
        f->tls = via->tls;
        SET(CURLOPT_SSL_CTX_FUNCTION, on_tls);
        SET(CURLOPT_SSL_CTX_DATA, f);
    }
    if (via->socket != NULL) {
        SET(CURLOPT_UNIX_SOCKET_PATH, via->socket);
        return ok;
    }
    buf_init(&to, 256);
    buf_printf(&to, "::%s", via->address);
    f->connect_to = curl_slist_append(NULL, buf_cstr(&to));
    buf_deinit(&to);
    CHECK(f->connect_to != NULL);
    SET(CURLOPT_CONNECT_TO, f->connect_to);
    return ok;
}

/* Link-local addresses (RFC 3927, RFC 4291 §2.5.6): there the metadata services of clouds hand out
 * credentials to whoever asks from this machine. */
static bool is_of_link(const struct sockaddr *to)
{
    if (to->sa_family == AF_INET) {
        uint32_t address = ntohl(((const struct sockaddr_in *)(const void *)to)->sin_addr.s_addr);

        return address >> 16U == 0xa9feU;
    }
    if (to->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)to)->sin6_addr;

        return IN6_IS_ADDR_LINKLOCAL(a) ||
               (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 169 && a->s6_addr[13] == 254);
    }
    return false;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    (void)arg;
    (void)purpose;
    return is_of_link(&to->addr) ? CURL_SOCKET_BAD
                                 : socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

static bool prepare_tls(struct fetch *f, const struct fetch_tls *tls)
{
    bool ok = true;

    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    if (tls->ca_file != NULL) {
        SET(CURLOPT_CAINFO, tls->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    if (tls->cert_file != NULL) {
        SET(CURLOPT_SSLCERT, tls->cert_file);
        SET(CURLOPT_SSLKEY, tls->key_file);
    }
    if (tls->skip_verify) {
        SET(CURLOPT_SSL_VERIFYPEER, 0L);
        SET(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    return ok;
}

static bool prepare(struct fetch *f, const struct fetch_request *request)
{
    bool ok = true;

    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PRIVATE, f);
    SET(CURLOPT_ERRORBUFFER, f->error);
    SET(CURLOPT_PROTOCOLS_STR, "https,http");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)FETCH_CONNECT_MS);
    SET(CURLOPT_TIMEOUT_MS,
        (long)(request->timeout_ms > 0 ? request->timeout_ms : FETCH_TIMEOUT_MS));
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, f);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, 5L);
    SET(CURLOPT_USERAGENT, "postern");
    if (f->fetcher->ca_file != NULL) {
        SET(CURLOPT_CAINFO, f->fetcher->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    if (host_is_local(url_host(sv_from(request->url)))) {
        SET(CURLOPT_PROXY, "");
    }
    if (f->post != NULL) {
        SET(CURLOPT_POSTFIELDSIZE, (long)f->post_n);
        SET(CURLOPT_POSTFIELDS, f->post);
    }
    SET(CURLOPT_HTTPHEADER, f->headers);
    return ok;
}

#undef SET

static void add_header(struct fetch *f, const char *text)
{
    struct curl_slist *grown = curl_slist_append(f->headers, text);

    CHECK(grown != NULL);
    f->headers = grown;
}

static void add_named(struct fetch *f, const char *name, const char *value)
{
    struct buf line;

    buf_init(&line, 1024);
    buf_printf(&line, "%s: %s", name, value);
    add_header(f, buf_cstr(&line));
    buf_deinit(&line);
}

static void add_secret(struct fetch *f, const char *name, const char *value)
{
    struct buf line;

    if (value == NULL) {
        return;
    }
    buf_init(&line, 65536);
    buf_add_str(&line, name);
    buf_add_str(&line, value);
    add_header(f, buf_cstr(&line));
    secret_wipe(line.p, line.n);
    buf_deinit(&line);
}

static void add_via_headers(struct fetch *f, const struct fetch_via *via)
{
    if (via->host != NULL) {
        add_named(f, "Host", via->host);
    }
    if (via->type != NULL) {
        add_named(f, "Content-Type", via->type);
        add_header(f, "TE: trailers"); /* gRPC asks for it */
    }
}

static void on_refused(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    fetch_finish(arg, CURLE_URL_MALFORMAT);
}

struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_request *request,
                          fetch_done_fn done, void *arg)
{
    struct fetch *f = MEM_NEW(struct fetch);
    struct timeval now = { 0, 0 };

    LOOP_CHECK_THREAD(fetcher->loop);
    f->fetcher = fetcher;
    f->done = done;
    f->arg = arg;
    buf_init(&f->body, request->max_bytes != 0 ? request->max_bytes : FETCH_BODY_MAX);
    list_push_back(&fetcher->open, &f->node);
    f->easy = curl_easy_init();
    CHECK(f->easy != NULL);
    f->grpc_status = -1;
    f->post = request->body.p == NULL ? NULL : mem_dup(request->body.p, request->body.n);
    f->post_n = request->body.n;
    add_named(f, "Accept", request->accept != NULL ? request->accept : "application/json");
    if (request->via != NULL) {
        add_via_headers(f, request->via);
    }
    if (request->type != NULL) {
        add_named(f, "Content-Type", request->type);
    }
    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++) {
        add_header(f, request->headers[i]);
    }
    add_secret(f, "Authorization: ", request->authorization);
    add_secret(f, "Cookie: ", request->cookie);
    if ((request->via == NULL && !url_allowed(sv_from(request->url))) || !prepare(f, request) ||
        (request->via != NULL && !prepare_via(f, request->via)) ||
        (request->tls != NULL && !prepare_tls(f, request->tls)) ||
        curl_multi_add_handle(fetcher->multi, f->easy) != CURLM_OK) {
        f->refused = event_new(loop_base(fetcher->loop), -1, 0, on_refused, f);
        CHECK(f->refused != NULL && event_add(f->refused, &now) == 0);
    }
    return f;
}

void fetch_cancel(struct fetch **fetch)
{
    if (*fetch != NULL) {
        fetch_free(*fetch);
        *fetch = NULL;
    }
}

void fetch_headers(struct sv text, struct buf *room, const char *out[FETCH_HEADERS_MAX + 1])
{
    size_t starts[FETCH_HEADERS_MAX];
    size_t n = 0;

    while (text.p != NULL && n < FETCH_HEADERS_MAX) {
        struct sv value = sv_cut(&text, ',');
        struct sv name = sv_trim(sv_cut(&value, '='));

        if (name.n != 0) {
            starts[n++] = room->n;
            buf_add_sv(room, name);
            buf_add_str(room, ": ");
            buf_add_sv(room, sv_trim(value));
            buf_add_char(room, '\0');
        }
    }
    CHECK(room->err == ERR_OK);
    for (size_t i = 0; i < n; i++) {
        out[i] = room->p + starts[i];
    }
    out[n] = NULL;
}
