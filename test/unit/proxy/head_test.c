/* head: the head that reaches the upstream, and the one that comes back, line by line. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "proxy/cors.h"
#include "proxy/forward.h"
#include "test/support/cmocka.h"

#define HEAD                                                           \
    "insecure_server: true\n"                                          \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"    \
    "authenticate_service_url: https://login.example.com\n"            \
    "authenticate_internal_service_url: unix:/run/authenticate.sock\n" \
    "authenticate_grpc_url: unix:/run/authenticate-grpc.sock\n"        \
    "authorize_service_url: unix:/run/authorize.sock\n"                \
    "databroker_service_url: unix:/run/databroker.sock\n"              \
    "idp_provider: local\n"                                            \
    "idp_local_users_file: /etc/hosts\n"                               \
    "headers_with_underscores_action: allow\n"                         \
    "jwt_claims_headers: {X-Who: email}\n"                             \
    "routes:\n"

static const char config_text[] =
    HEAD "  - {from: https://app.example.com, to: http://10.0.0.1:8080, "
         "set_request_headers: {X-Set: 'yes'}, remove_request_headers: [X-Gone], "
         "set_response_headers: {X-Answer: set}}\n"
         "  - {from: https://keep.example.com, to: http://10.0.0.1, preserve_host_header: true, "
         "prefix: /old/, prefix_rewrite: /new/}\n"
         "  - {from: https://cut.example.com, to: http://10.0.0.1, prefix: /old, "
         "prefix_rewrite: /}\n"
         "  - {from: https://base.example.com, to: http://10.0.0.1/base}\n"
         "  - {from: https://cors.example.com, to: http://10.0.0.1, "
         "cors: {allow_origins: ['https://spa.example.com']}}\n";

struct world {
    struct proxy_conn client;
    struct proxy_exchange exchange;
    struct proxy_worker *worker;
    struct http_field fields[64];
    struct http_field answer_fields[64];
    struct buf out;
};

static struct proxy_snapshot *make_snapshot(void)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct proxy_snapshot *s = NULL;
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];

    if (config_parse(sv_from(config_text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    if (proxy_snapshot_new(config, NULL, &s, &d) != ERR_OK) {
        fail_msg("%s", diag_format(&d, line));
    }
    config_unref(&config);
    return s;
}

/* A connection on which that request has just been read; its route is found. */
static struct world *world_new(const char *request)
{
    struct world *w = MEM_NEW(struct world);
    struct proxy_exchange *x = &w->exchange;
    bool unclear = false;

    w->worker = MEM_NEW(struct proxy_worker);
    x->worker = w->worker;
    x->snapshot = make_snapshot();
    arena_init(&x->arena);
    x->conn = &w->client;
    proxy_io_init(&x->conn->io, -1);
    buf_init(&w->out, 1 << 20);
    proxy_peer_init(&x->conn->peer,
                    (const struct sockaddr *)&(struct sockaddr_in){
                        .sin_family = AF_INET, .sin_addr.s_addr = inet_addr("192.0.2.7") });
    (void)snprintf(x->request_id, sizeof(x->request_id), "the-request-id");
    http_head_init(&x->head, HTTP_REQUEST, &x->snapshot->head, w->fields, ARRAY_LEN(w->fields));
    assert_int_equal(http_head_parse(&x->head, sv_from(request)), HTTP_DONE);
    assert_true(proxy_peer_visitor(&x->conn->peer, x->snapshot->config, &x->head, false, &x->arena,
                                   &x->visitor));
    assert_int_equal(http_canon_request(&x->head, &x->snapshot->canon, &x->arena, &x->req),
                     HTTP_FAULT_NONE);
    x->service = PROXY_FOR_ROUTE;
    x->route =
        proxy_snapshot_route(x->snapshot, route_table_find(x->snapshot->table, x->req.host,
                                                           x->req.port, x->req.decoded, &unclear));
    if (x->route == NULL) {
        x->service = PROXY_FOR_AUTHENTICATE;
    }
    return w;
}

static void world_free(struct world *w)
{
    arena_deinit(&w->exchange.arena);
    proxy_snapshot_unref(&w->exchange.snapshot);
    buf_deinit(&w->out);
    mem_free(&w->worker);
    mem_free(&w);
}

static const char *upstream_head(struct world *w)
{
    struct proxy_emit e;
    const struct proxy_cluster *cluster = w->exchange.service == PROXY_FOR_ROUTE
                                              ? w->exchange.route->cluster
                                              : w->exchange.snapshot->authenticate.cluster;

    assert_int_equal(cluster->views[0].table->n, 1);
    assert_true(proxy_outgoing_make(&w->exchange));
    proxy_emit_h1(&e, &w->out);
    assert_true(
        proxy_head_request(&w->exchange, cluster->views[0].table->endpoints[0]->target, &e));
    return buf_cstr(&w->out);
}

static void test_the_whole_head_of_a_simple_request(void **state)
{
    struct world *w =
        world_new("GET /a?b=c HTTP/1.1\r\nHost: app.example.com\r\nAccept: x\r\n\r\n");

    (void)state;
    assert_string_equal(upstream_head(w), "GET /a?b=c HTTP/1.1\r\n"
                                          "Host: 10.0.0.1:8080\r\n"
                                          "X-Forwarded-Host: app.example.com\r\n"
                                          "Accept: x\r\n"
                                          "X-Forwarded-For: 192.0.2.7\r\n"
                                          "X-Envoy-External-Address: 192.0.2.7\r\n"
                                          "X-Forwarded-Proto: http\r\n"
                                          "X-Request-Id: the-request-id\r\n"
                                          "X-Set: yes\r\n"
                                          "\r\n");
    world_free(w);
}

static bool is_refused_alone(unsigned id)
{
    return id == HTTP_H_HOST || id == HTTP_H_CONTENT_LENGTH || id == HTTP_H_TRANSFER_ENCODING ||
           id == HTTP_H_EXPECT || id == HTTP_H_CONNECTION || id == HTTP_H_COOKIE;
}

/* What goes on by its number alone is what its name lets pass, and it stands there as it came. */
static void test_every_name_with_a_number_passes_or_not(void **state)
{
    (void)state;
    for (unsigned id = 1; id < HTTP_H_COUNT; id++) {
        struct sv name = http_name_text((enum http_name)id);
        bool want = (http_name_class((enum http_name)id) & HTTP_C_HOP) == 0;
        char request[256];
        char line[128];
        struct world *w = NULL;

        if (is_refused_alone(id)) {
            continue;
        }
        (void)snprintf(line, sizeof(line), "\r\n%.*s: v a l\r\n", SV_ARG(name));
        (void)snprintf(request, sizeof(request),
                       "GET / HTTP/1.1\r\nHost: app.example.com\r\nAccept: *%sX-Last: z\r\n\r\n",
                       line);
        w = world_new(request);
        want = want && !http_name_set_has(w->exchange.snapshot->ours, name) &&
               !http_name_set_has(w->exchange.route->drop, name);
        if ((strstr(upstream_head(w), line) != NULL) != want ||
            (!want && strstr(buf_cstr(&w->out), "v a l") != NULL)) {
            fail_msg("%.*s:\n%s", SV_ARG(name), buf_cstr(&w->out));
        }
        world_free(w);
    }
}

/* Every spelling of every name that we speak for, alone and named in Connection. */
static void test_what_the_client_may_not_say_never_passes(void **state)
{
    static const char *const names[] = { "X-Pomerium-Jwt-Assertion",
                                         "X-Pomerium-Claim-Email",
                                         "X-Pomerium-Authorization",
                                         "X-Pomerium-Whatever",
                                         "X-Forwarded-For",
                                         "X-Forwarded-Proto",
                                         "X-Forwarded-Host",
                                         "X-Forwarded-Port",
                                         "X-Real-Ip",
                                         "X-Request-Id",
                                         "Forwarded",
                                         "X-Who",
                                         "X-Set",
                                         "X-Gone" };
    size_t i = 0;
    unsigned spelling = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(names) * 8; i++) {
        char name[64];
        char request[512];
        struct world *w = NULL;
        size_t k = 0;

        spelling = (unsigned)(i % 8);
        (void)snprintf(name, sizeof(name), "%s", names[i / 8]);
        for (k = 0; name[k] != '\0'; k++) {
            if ((spelling & 1U) != 0 && name[k] == '-') {
                name[k] = '_';
            }
            if ((spelling & 2U) != 0 && name[k] >= 'a' && name[k] <= 'z') {
                name[k] = (char)(name[k] - 32);
            }
        }
        (void)snprintf(request, sizeof(request),
                       "GET / HTTP/1.1\r\nHost: app.example.com\r\n%s: evil-value\r\n%s%s%s\r\n",
                       name, (spelling & 4U) != 0 ? "Connection: close, " : "",
                       (spelling & 4U) != 0 ? name : "", (spelling & 4U) != 0 ? "\r\n" : "");
        w = world_new(request);
        if (strstr(upstream_head(w), "evil-value") != NULL) {
            fail_msg("%s passes: %s", name, request);
        }
        assert_non_null(strstr(buf_cstr(&w->out), "X-Forwarded-For: 192.0.2.7\r\n"));
        assert_non_null(strstr(buf_cstr(&w->out), "X-Set: yes\r\n"));
        world_free(w);
    }
}

static void test_connection_cannot_take_away_what_we_add(void **state)
{
    struct world *w = world_new("GET / HTTP/1.1\r\nHost: app.example.com\r\nX-Mine: 1\r\n"
                                "Connection: X-Mine, X-Set, X-Forwarded-For, X-Request-Id, "
                                "x-pomerium-jwt-assertion\r\n\r\n");
    struct proxy_identity_header header = { .name = SV("X-Pomerium-Jwt-Assertion"),
                                            .value = SV("signed") };
    struct proxy_identity identity = { .refs = 2, .n = 1, .headers = &header };
    const char *out = NULL;

    (void)state;
    w->exchange.identity = &identity;
    out = upstream_head(w);
    assert_null(strstr(out, "X-Mine"));
    assert_non_null(strstr(out, "\r\nX-Set: yes\r\n"));
    assert_non_null(strstr(out, "\r\nX-Forwarded-For: 192.0.2.7\r\n"));
    assert_non_null(strstr(out, "\r\nX-Request-Id: the-request-id\r\n"));
    assert_non_null(strstr(out, "\r\nX-Pomerium-Jwt-Assertion: signed\r\n"));
    world_free(w);
}

struct pass {
    const char *line; /* the client's */
    const char *left; /* the upstream's, "" for none */
};

static void test_our_credentials_stay_and_foreign_ones_pass(void **state)
{
    static const struct pass rows[] = {
        { "Cookie: a=1; __Host-_pomerium=h; b=2", "Cookie: a=1; b=2\r\n" },
        { "Cookie: __Host-_pomerium=h", "" },
        { "Cookie: __Host-_pomerium_login=x; q=\"1 2\"", "Cookie: q=\"1 2\"\r\n" },
        { "Cookie: a=1;b=2 ; c", "Cookie: a=1;b=2 ; c\r\n" },
        { "Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic dXNlcjpwYXNz\r\n" },
        { "Authorization: Bearer abc.def", "Authorization: Bearer abc.def\r\n" },
        { "authorization: AWS4-HMAC-SHA256 Credential=x",
          "authorization: AWS4-HMAC-SHA256 Credential=x\r\n" },
        { "Authorization: Pomerium secret", "" },
        { "Authorization: pOMERIUM secret", "" },
        { "Authorization: Bearer Pomerium-secret", "" },
        { "Authorization: Bearer  Pomerium-secret", "" },
        { "Authorization: Pomerium\tsecret", "" },
        { "authorization: bearer pomerium-secret", "" },
        { "Authorization: Basic Z2l0OlBvbWVyaXVtLXNlY3JldA==", "" },
        { "authorization: basic OnBvbWVyaXVtLXNlY3JldA", "" },
        { "Authorization: Basic UG9tZXJpdW0tYTpi", "Authorization: Basic UG9tZXJpdW0tYTpi\r\n" },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        char request[512];
        struct world *w = NULL;
        const char *out = NULL;

        (void)snprintf(request, sizeof(request),
                       "GET / HTTP/1.1\r\nHost: app.example.com\r\n%s\r\n\r\n", rows[i].line);
        w = world_new(request);
        out = upstream_head(w);
        if (rows[i].left[0] != '\0'
                ? strstr(out, rows[i].left) == NULL
                : strcasestr(out, "cookie") != NULL || strcasestr(out, "authorization") != NULL) {
            fail_msg("'%s' gives %s", rows[i].line, out);
        }
        world_free(w);
    }
}

struct target {
    const char *request;
    const char *line;
};

static void test_targets_are_rewritten_by_whole_paths(void **state)
{
    static const struct target rows[] = {
        { "GET /old/a/b?c=d HTTP/1.1\r\nHost: keep.example.com\r\n\r\n",
          "GET /new/a/b?c=d HTTP/1.1" },
        { "GET /old/ HTTP/1.1\r\nHost: keep.example.com\r\n\r\n", "GET /new/ HTTP/1.1" },
        { "GET /old/%61 HTTP/1.1\r\nHost: keep.example.com\r\n\r\n", "GET /new/a HTTP/1.1" },
        { "GET /old HTTP/1.1\r\nHost: cut.example.com\r\n\r\n", "GET / HTTP/1.1" },
        { "GET /old/x HTTP/1.1\r\nHost: cut.example.com\r\n\r\n", "GET /x HTTP/1.1" },
        { "GET /x HTTP/1.1\r\nHost: base.example.com\r\n\r\n", "GET /base/x HTTP/1.1" },
        { "GET /x/../y HTTP/1.1\r\nHost: app.example.com\r\n\r\n", "GET /y HTTP/1.1" },
        { "GET /? HTTP/1.1\r\nHost: app.example.com\r\n\r\n", "GET /? HTTP/1.1" },
        { "GET /?a=1&pomerium_session=s&b=2 HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
          "GET /?a=1&b=2 HTTP/1.1" },
        { "GET /?a=%zz&pomerium%5Fsession=s HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
          "GET /?a=%zz HTTP/1.1" },
        { "GET /?pomerium_session=s HTTP/1.1\r\nHost: app.example.com\r\n\r\n", "GET / HTTP/1.1" },
        { "GET http://app.example.com/abs HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
          "GET /abs HTTP/1.1" },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = world_new(rows[i].request);
        struct sv out = sv_from(upstream_head(w));
        struct sv line = sv_head(out, sv_find(out, '\r'));

        if (!sv_eq(line, sv_from(rows[i].line))) {
            fail_msg("'%.*s' instead of '%s'", SV_ARG(line), rows[i].line);
        }
        world_free(w);
    }
}

static void test_host_is_kept_where_the_route_says_so(void **state)
{
    struct world *w = world_new("GET /old/ HTTP/1.1\r\nHost: KEEP.example.com\r\n\r\n");

    (void)state;
    assert_non_null(strstr(upstream_head(w), "\r\nHost: keep.example.com\r\n"));
    world_free(w);
}

static void test_framing_is_told_by_us_alone(void **state)
{
    struct world *w = world_new("POST / HTTP/1.1\r\nHost: app.example.com\r\n"
                                "Transfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n"
                                "Keep-Alive: 5\r\nExpect: 100-continue\r\n\r\n");
    const char *out = upstream_head(w);

    (void)state;
    assert_non_null(strstr(out, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(out, "\r\nTE: trailers\r\n"));
    assert_null(strstr(out, "Content-Length"));
    assert_null(strstr(out, "Keep-Alive"));
    assert_null(strstr(out, "Expect"));
    world_free(w);
    w = world_new("POST / HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 12\r\n\r\n");
    out = upstream_head(w);
    assert_non_null(strstr(out, "\r\nContent-Length: 12\r\n"));
    assert_null(strstr(out, "Transfer-Encoding"));
    world_free(w);
}

/* The pages of authenticate need its own cookie and nothing that was made up outside. */
static void test_the_login_host_keeps_cookies_but_no_claims(void **state)
{
    struct world *w =
        world_new("GET /.pomerium/ HTTP/1.1\r\nHost: login.example.com\r\n"
                  "Cookie: __Host-_pomerium=h\r\nX-Pomerium-Jwt-Assertion: evil\r\n\r\n");
    const char *out = upstream_head(w);

    (void)state;
    assert_int_equal(w->exchange.service, PROXY_FOR_AUTHENTICATE);
    assert_non_null(strstr(out, "Cookie: __Host-_pomerium=h\r\n"));
    assert_null(strstr(out, "evil"));
    assert_non_null(strstr(out, "\r\nHost: login.example.com\r\n"));
    world_free(w);
}

static const char *client_head(struct world *w, const char *answer, bool *chunk)
{
    struct proxy_emit e;

    http_head_init_response(&w->exchange.answer, NULL, w->exchange.head.method, w->answer_fields,
                            ARRAY_LEN(w->answer_fields));
    assert_int_equal(http_head_parse(&w->exchange.answer, sv_from(answer)), HTTP_DONE);
    proxy_emit_h1(&e, &w->out);
    proxy_head_answer(&w->exchange, &e, chunk);
    assert_true(proxy_emit_end(&e));
    return buf_cstr(&w->out);
}

static void test_an_answer_keeps_its_fields_and_gets_the_routes(void **state)
{
    struct world *w = world_new("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n");
    bool chunk = true;
    const char *out = client_head(w,
                                  "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nX-Answer: theirs\r\n"
                                  "X-Request-Id: theirs\r\nSet-Cookie: a=1\r\n"
                                  "Set-Cookie: __Host-_pomerium=planted; Path=/; Secure\r\n"
                                  "Connection: X-Hop\r\nX-Hop: 1\r\nETag: \"q\"\r\n\r\n",
                                  &chunk);

    (void)state;
    assert_false(chunk);
    assert_int_equal(strncmp(out, "HTTP/1.1 200 Fine\r\n", 19), 0);
    assert_non_null(strstr(out, "\r\nContent-Length: 3\r\n"));
    assert_non_null(strstr(out, "\r\nX-Answer: set\r\n"));
    assert_null(strstr(out, "theirs"));
    assert_non_null(strcasestr(out, "\r\nX-Request-Id: the-request-id\r\n"));
    assert_non_null(strstr(out, "\r\nSet-Cookie: a=1\r\n"));
    assert_null(strstr(out, "planted"));
    assert_null(strstr(out, "X-Hop"));
    assert_non_null(strstr(out, "\r\nETag: \"q\"\r\n"));
    world_free(w);
}

/* The same for answers, on a route that speaks for CORS by itself. */
static void test_every_name_with_a_number_comes_back_or_not(void **state)
{
    (void)state;
    for (unsigned id = 1; id < HTTP_H_COUNT; id++) {
        struct sv name = http_name_text((enum http_name)id);
        bool want = (http_name_class((enum http_name)id) & HTTP_C_HOP) == 0 &&
                    id != HTTP_H_X_REQUEST_ID && !proxy_cors_speaks_for(name);
        char answer[256];
        char line[128];
        struct world *w = NULL;
        bool chunk = false;

        if (is_refused_alone(id) && id != HTTP_H_COOKIE) {
            continue;
        }
        (void)snprintf(line, sizeof(line), "\r\n%.*s: v a l\r\n", SV_ARG(name));
        (void)snprintf(answer, sizeof(answer),
                       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-First: a%sX-Last: z\r\n\r\n",
                       line);
        w = world_new("GET / HTTP/1.1\r\nHost: cors.example.com\r\n\r\n");
        want = want && !http_name_set_has(w->exchange.route->answers->drop, name);
        if ((strstr(client_head(w, answer, &chunk), line) != NULL) != want ||
            (!want && strstr(buf_cstr(&w->out), "v a l") != NULL)) {
            fail_msg("%.*s:\n%s", SV_ARG(name), buf_cstr(&w->out));
        }
        world_free(w);
    }
}

static void test_an_answer_without_length_is_chunked_or_closes(void **state)
{
    struct world *w = world_new("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n");
    bool chunk = false;

    (void)state;
    assert_non_null(strstr(client_head(w, "HTTP/1.1 200 OK\r\n\r\n", &chunk),
                           "\r\nTransfer-Encoding: chunked\r\n"));
    assert_true(chunk);
    world_free(w);
    w = world_new("GET / HTTP/1.0\r\nHost: app.example.com\r\n\r\n");
    assert_non_null(
        strstr(client_head(w, "HTTP/1.1 200 OK\r\n\r\n", &chunk), "\r\nConnection: close\r\n"));
    assert_false(chunk);
    assert_true(w->exchange.close_after);
    world_free(w);
}

static void test_head_tells_the_length_that_get_would_have(void **state)
{
    struct world *w = world_new("HEAD / HTTP/1.1\r\nHost: app.example.com\r\n\r\n");
    bool chunk = true;

    (void)state;
    assert_non_null(strstr(client_head(w, "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n", &chunk),
                           "\r\nContent-Length: 77\r\n"));
    assert_false(chunk);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_whole_head_of_a_simple_request),
        cmocka_unit_test(test_every_name_with_a_number_passes_or_not),
        cmocka_unit_test(test_what_the_client_may_not_say_never_passes),
        cmocka_unit_test(test_connection_cannot_take_away_what_we_add),
        cmocka_unit_test(test_our_credentials_stay_and_foreign_ones_pass),
        cmocka_unit_test(test_targets_are_rewritten_by_whole_paths),
        cmocka_unit_test(test_host_is_kept_where_the_route_says_so),
        cmocka_unit_test(test_framing_is_told_by_us_alone),
        cmocka_unit_test(test_the_login_host_keeps_cookies_but_no_claims),
        cmocka_unit_test(test_an_answer_keeps_its_fields_and_gets_the_routes),
        cmocka_unit_test(test_every_name_with_a_number_comes_back_or_not),
        cmocka_unit_test(test_an_answer_without_length_is_chunked_or_closes),
        cmocka_unit_test(test_head_tells_the_length_that_get_would_have),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
