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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_get_json_and_people_a_page),
        cmocka_unit_test(kubectl_gets_a_status_that_it_shows),
        cmocka_unit_test(grpc_callers_find_the_status_where_they_look),
        cmocka_unit_test(connect_callers_get_their_error_in_a_body_or_the_last_envelope),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
