#include "common/health.h"

#include <string.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/http.h>

#include "common/listen.h"
#include "common/mem.h"

enum { BODY_MAX = 65536, HEADERS_MAX = 8192, TIMEOUT_S = 10 };

struct health {
    struct evhttp *http;
    health_fn answer;
    void *arg;
    char *socket; /* to be removed at the end; NULL: none */
};

static void reply(struct evhttp_request *req, int status, const char *type, struct sv body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    struct evbuffer *out = evbuffer_new();

    CHECK(out != NULL);
    (void)evhttp_add_header(headers, "Content-Type", type);
    (void)evhttp_add_header(headers, "Cache-Control", "no-store");
    (void)evhttp_add_header(headers, "Connection", "close");
    (void)evbuffer_add(out, body.p, body.n);
    evhttp_send_reply(req, status, NULL, out);
    evbuffer_free(out);
}

static void on_request(struct evhttp_request *req, void *arg)
{
    static const struct {
        const char *path;
        enum health_question question;
    } paths[] = { { "/healthz", HEALTH_LIVE },
                  { "/readyz", HEALTH_READY },
                  { "/startupz", HEALTH_STARTED },
                  { "/status", HEALTH_STATUS } };
    struct health *h = arg;
    const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
    struct buf body;

    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        if (path != NULL && strcmp(path, paths[i].path) == 0) {
            bool ok = false;

            buf_init(&body, BODY_MAX);
            ok = h->answer(paths[i].question, &body, h->arg);
            reply(req, ok ? 200 : 503, "application/json", buf_sv(&body));
            buf_deinit(&body);
            return;
        }
    }
    reply(req, 404, "text/plain", SV("there are /healthz, /readyz, /startupz and /status\n"));
}

enum err health_new(struct loop *loop, struct sv address, health_fn answer, void *arg,
                    struct health **health_out, struct diag *d)
{
    struct health *h = NULL;
    struct listen_set set = { .n = 0 };
    enum err err = listen_named("health", address, &set, d);
    bool taken = true;

    if (err != ERR_OK) {
        return err;
    }
    h = MEM_NEW(struct health);
    h->answer = answer;
    h->arg = arg;
    h->http = evhttp_new(loop_base(loop));
    CHECK(h->http != NULL);
    evhttp_set_allowed_methods(h->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(h->http, HEADERS_MAX);
    evhttp_set_max_body_size(h->http, 0);
    evhttp_set_timeout(h->http, TIMEOUT_S);
    evhttp_set_gencb(h->http, on_request, h);
    while (set.n > 0 && taken) {
        taken = evhttp_accept_socket(h->http, set.fd[set.n - 1]) == 0;
        set.n -= taken ? 1 : 0;
    }
    if (!taken) {
        diag_set(d, "cannot listen on %.*s", SV_ARG(address));
        listen_set_close(&set);
        health_free(&h);
        return ERR_IO;
    }
    if (!set.passed && sv_starts(address, SV("unix:"))) {
        h->socket = mem_svdup(sv_from_at(address, 5));
    }
    *health_out = h;
    return ERR_OK;
}

void health_free(struct health **health)
{
    struct health *h = TAKE(*health);

    if (h == NULL) {
        return;
    }
    evhttp_free(h->http);
    if (h->socket != NULL) {
        (void)unlink(h->socket);
        mem_free(&h->socket);
    }
    mem_free(&h);
}
