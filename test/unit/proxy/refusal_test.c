#include "proxy/refusal.h"

#include <string.h>

#include <jansson.h>

#include "test/support/cmocka.h"

struct result {
    struct arena arena;
    struct buf body;
    struct proxy_fields fields;
    struct proxy_refusal_form form;
};

static void write_refusal(struct result *r, enum http_media media, unsigned status)
{
    const struct proxy_refusal refusal = {
        .status = status, .code = SV("not\"you"), .request_id = SV("id-1"), .media = media
    };

    memset(r, 0, sizeof(*r));
    arena_init(&r->arena);
    buf_init(&r->body, PROXY_REFUSAL_MAX);
    r->form = proxy_refusal_write(&refusal, &r->arena, &r->body, &r->fields);
    assert_int_equal(r->body.err, ERR_OK);
}

static void drop(struct result *r)
{
    buf_deinit(&r->body);
    arena_deinit(&r->arena);
}

static bool has(const struct result *r, const char *name, const char *value)
{
    for (size_t i = 0; i < r->fields.n; i++) {
        if (sv_eq(r->fields.v[i].name, sv_from(name)) &&
            sv_eq(r->fields.v[i].value, sv_from(value))) {
            return true;
        }
    }
    return false;
}

static json_t *parse(struct sv text)
{
    json_t *json = json_loadb(text.p, text.n, 0, NULL);

    assert_non_null(json);
    return json;
}

static const char *text_of(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text == NULL ? "" : text;
}

static void programs_get_json_and_people_a_page(void **state)
{
    struct result r;
    json_t *json = NULL;

    (void)state;
    write_refusal(&r, HTTP_MEDIA_JSON, 403);
    assert_int_equal(r.form.status, 403);
    json = parse(buf_sv(&r.body));
    assert_string_equal(text_of(json, "code"), "not\"you");
    assert_string_equal(text_of(json, "request_id"), "id-1");
    json_decref(json);
    drop(&r);
    write_refusal(&r, HTTP_MEDIA_HTML, 503);
    assert_int_equal(r.form.status, 503);
    assert_true(sv_starts(r.form.type, SV("text/html")));
    assert_non_null(strstr(buf_cstr(&r.body), "not&quot;you"));
    drop(&r);
}

static void kubectl_gets_a_status_that_it_shows(void **state)
{
    static const struct {
        unsigned status;
        const char *reason;
    } rows[] = { { 401, "Unauthorized" },
                 { 403, "Forbidden" },
                 { 404, "NotFound" },
                 { 503, "ServiceUnavailable" },
                 { 400, "" } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct result r;
        json_t *json = NULL;

        write_refusal(&r, HTTP_MEDIA_KUBERNETES, rows[i].status);
        assert_int_equal(r.form.status, rows[i].status);
        json = parse(buf_sv(&r.body));
        assert_string_equal(text_of(json, "kind"), "Status");
        assert_string_equal(text_of(json, "apiVersion"), "v1");
        assert_string_equal(text_of(json, "status"), "Failure");
        assert_string_equal(text_of(json, "reason"), rows[i].reason);
        assert_int_equal(json_integer_value(json_object_get(json, "code")), rows[i].status);
        assert_non_null(strstr(text_of(json, "message"), "not\"you"));
        json_decref(json);
        drop(&r);
    }
}

static void grpc_callers_find_the_status_where_they_look(void **state)
{
    static const char frame[] = "\x80\0\0\0\x2egrpc-status:16\r\ngrpc-message:not%22you\r\n";
    struct result r;

    (void)state;
    write_refusal(&r, HTTP_MEDIA_GRPC, 401);
    assert_int_equal(r.form.status, 200);
    assert_true(has(&r, "grpc-status", "16"));
    assert_true(has(&r, "grpc-message", "not%22you"));
    assert_int_equal(r.body.n, 0);
    drop(&r);
    write_refusal(&r, HTTP_MEDIA_GRPC_WEB, 401);
    assert_int_equal(r.form.status, 200);
    assert_true(has(&r, "grpc-status", "16"));
    assert_int_equal(r.body.n, 5U + (unsigned char)r.body.p[4]);
    assert_int_equal((unsigned char)r.body.p[0], 0x80);
    assert_memory_equal(r.body.p + 5, frame + 5, r.body.n - 5);
    drop(&r);
    write_refusal(&r, HTTP_MEDIA_GRPC_WEB_TEXT, 403);
    assert_true(has(&r, "grpc-status", "7"));
    assert_memory_equal(r.body.p, "gAAAA", 5); /* base64 of the frame's first bytes */
    drop(&r);
}

static void connect_callers_get_their_error_in_a_body_or_the_last_envelope(void **state)
{
    struct result r;
    json_t *json = NULL;
    uint32_t n = 0;

    (void)state;
    write_refusal(&r, HTTP_MEDIA_CONNECT, 403);
    assert_int_equal(r.form.status, 403);
    assert_true(sv_eq(r.form.type, SV("application/json")));
    json = parse(buf_sv(&r.body));
    assert_string_equal(text_of(json, "code"), "permission_denied");
    json_decref(json);
    drop(&r);
    write_refusal(&r, HTTP_MEDIA_CONNECT_STREAM, 503);
    assert_int_equal(r.form.status, 200);
    assert_true(sv_eq(r.form.type, SV("application/connect+proto")));
    assert_int_equal(r.body.p[0], 2);
    n = (uint32_t)(unsigned char)r.body.p[3] << 8U | (unsigned char)r.body.p[4];
    assert_int_equal(n + 5, r.body.n);
    json = parse(sv_of(r.body.p + 5, n));
    assert_string_equal(text_of(json_object_get(json, "error"), "code"), "unavailable");
    json_decref(json);
    drop(&r);
}

static enum http_media media_of(const char *head_text, struct http_field *fields, size_t n)
{
    struct http_head head;

    http_head_init(&head, HTTP_REQUEST, NULL, fields, n);
    assert_int_equal(http_head_parse(&head, sv_from(head_text)), HTTP_DONE);
    return http_accept_media(&head);
}

#define GET(lines)  "GET / HTTP/1.1\r\nHost: a\r\n" lines "\r\n"
#define POST(lines) "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" lines "\r\n"
#define TYPE(type)  "Content-Type: " type "\r\n"
#define TAKES(type) "Accept: " type "\r\n"

/* Who asks, what for, and the answer: its status, its type and what must stand in it. */
static void everybody_is_refused_in_their_own_words(void **state)
{
    static const struct {
        const char *head;
        unsigned denial;
        unsigned status;
        const char *type;
        const char *body;
        const char *grpc; /* NULL: no grpc-status */
    } rows[] = {
        { GET(TAKES("text/html,*/*;q=0.8")), 403, 403, "text/html", "<h1>You are not", NULL },
        { GET(TAKES("text/html")), 450, 450, "text/html", "device", NULL },
        { GET(TAKES("text/html")), 495, 495, "text/html", "certificate", NULL },
        { GET(""), 403, 403, "application/json", "\"status\":403", NULL },
        { GET(TAKES("*/*")), 401, 401, "application/json", "\"code\":", NULL },
        { GET(TAKES("application/json, text/plain, */*")), 403, 403, "application/json", "{",
          NULL },
        { GET(TAKES("text/html;q=0.4, application/json")), 403, 403, "application/json", "{",
          NULL },
        { GET(TAKES("application/xml")), 403, 403, "application/json", "{", NULL },
        { GET(TAKES("text/plain")), 403, 403, "text/plain", "The rules of this address", NULL },
        { GET(TAKES("text/plain, */*;q=0.1")), 495, 495, "text/plain", "certificate", NULL },
        { GET(TAKES("text/plain;q=0, */*")), 403, 403, "application/json", "{", NULL },
        { GET(TAKES("text/plain, text/html")), 403, 403, "text/html", "<h1>", NULL },
        { POST(TYPE("application/grpc")), 403, 200, "application/grpc", "", "7" },
        { POST(TYPE("application/grpc+proto") TAKES("text/html")), 401, 200, "application/grpc", "",
          "16" },
        { POST(TYPE("application/grpc")), 404, 200, "application/grpc", "", "12" },
        { POST(TYPE("application/grpc")), 450, 200, "application/grpc", "", "7" },
        { POST(TYPE("application/grpc")), 495, 200, "application/grpc", "", "16" },
        { POST(TYPE("application/grpc")), 503, 200, "application/grpc", "", "14" },
        { POST(TYPE("application/grpc-web+proto")), 403, 200, "application/grpc-web+proto",
          "grpc-status:7", "7" },
        { POST(TYPE("application/grpc-web-text")), 403, 200, "application/grpc-web-text+proto",
          "gAAA", "7" },
        { POST(TYPE("application/proto") "Connect-Protocol-Version: 1\r\n"), 403, 403,
          "application/json", "\"permission_denied\"", NULL },
        { POST(TYPE("application/json") "Connect-Protocol-Version: 1\r\n"), 495, 495,
          "application/json", "\"unauthenticated\"", NULL },
        { POST(TYPE("application/connect+json")), 401, 200, "application/connect+json",
          "\"unauthenticated\"", NULL },
        { GET("User-Agent: kubectl/v1.28 (linux/amd64) kubernetes/abc\r\n"), 403, 403,
          "application/json", "\"reason\":\"Forbidden\"", NULL },
        { GET("User-Agent: kubectl kubernetes/abc\r\n" TAKES("text/html")), 495, 495,
          "application/json", "\"reason\":\"Unauthorized\"", NULL },
        { POST("User-Agent: x kubernetes/abc\r\n" TYPE("application/grpc")), 401, 401,
          "application/json", "\"kind\":\"Status\"", NULL },
        { POST(TYPE("application/json") TAKES("application/json, text/event-stream")), 403, 403,
          "application/json", "\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32001", NULL },
        { POST(TYPE("application/json") "MCP-Protocol-Version: 2025-06-18\r\n"), 401, 401,
          "application/json", "\"jsonrpc\"", NULL },
        { GET(TAKES("application/json, text/event-stream")), 403, 403, "application/json",
          "\"status\":403", NULL },
        { POST(TYPE("application/json") TAKES("application/json")), 403, 403, "application/json",
          "\"status\":403", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_field fields[16];
        struct result r;

        write_refusal(&r, media_of(rows[i].head, fields, ARRAY_LEN(fields)), rows[i].denial);
        if (r.form.status != rows[i].status || !sv_starts(r.form.type, sv_from(rows[i].type)) ||
            sv_search(buf_sv(&r.body), sv_from(rows[i].body)) == SIZE_MAX ||
            (rows[i].grpc != NULL && !has(&r, "grpc-status", rows[i].grpc))) {
            fail_msg("%s %u gives %u %.*s %.*s", rows[i].head, rows[i].denial, r.form.status,
                     SV_ARG(r.form.type), SV_ARG(buf_sv(&r.body)));
        }
        if (sv_starts(r.form.type, SV("application/json"))) {
            json_decref(parse(buf_sv(&r.body)));
        }
        drop(&r);
    }
}

static void a_page_says_who_is_there_and_whom_to_ask(void **state)
{
    struct result r;
    const struct proxy_refusal refusal = { .status = 403,
                                           .code = SV("groups-unauthorized"),
                                           .request_id = SV("id-1"),
                                           .who = SV("eve<b>@example.com"),
                                           .note = SV("Ask <IT> first."),
                                           .support = SV("mailto:help@example.com"),
                                           .media = HTTP_MEDIA_HTML };

    (void)state;
    memset(&r, 0, sizeof(r));
    arena_init(&r.arena);
    buf_init(&r.body, PROXY_REFUSAL_MAX);
    r.form = proxy_refusal_write(&refusal, &r.arena, &r.body, &r.fields);
    assert_non_null(strstr(buf_cstr(&r.body), "logged in as eve&lt;b&gt;@example.com."));
    assert_non_null(strstr(buf_cstr(&r.body), "Ask &lt;IT&gt; first."));
    assert_non_null(strstr(buf_cstr(&r.body), "mailto:help@example.com?subject=Request%20id-1"));
    assert_non_null(strstr(buf_cstr(&r.body), "/.pomerium/sign_out"));
    assert_null(strstr(buf_cstr(&r.body), "<script"));
    drop(&r);
    write_refusal(&r, HTTP_MEDIA_HTML, 403); /* nobody is logged in: nobody can sign out */
    assert_null(strstr(buf_cstr(&r.body), "sign_out"));
    assert_null(strstr(buf_cstr(&r.body), "logged in"));
    drop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_get_json_and_people_a_page),
        cmocka_unit_test(kubectl_gets_a_status_that_it_shows),
        cmocka_unit_test(grpc_callers_find_the_status_where_they_look),
        cmocka_unit_test(connect_callers_get_their_error_in_a_body_or_the_last_envelope),
        cmocka_unit_test(everybody_is_refused_in_their_own_words),
        cmocka_unit_test(a_page_says_who_is_there_and_whom_to_ask),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
