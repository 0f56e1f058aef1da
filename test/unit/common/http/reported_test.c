/* reported: what another proxy forwards is judged as it is, or not at all. */
#include "common/http/reported.h"

#include "common/http/sign_in.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

static enum http_fault read(const char *method, const char *authority, const char *target,
                            const struct http_canon_rules *rules, struct arena *arena,
                            struct http_request *req)
{
    const struct http_reported reported = { sv_from(method), sv_from(authority), sv_from(target) };
    struct http_field none[1];
    struct http_head head;
    enum http_fault fault = HTTP_FAULT_NONE;

    http_head_init(&head, HTTP_REQUEST, NULL, none, 0);
    fault = http_reported_head(&head, &reported);
    return fault == HTTP_FAULT_NONE ? http_reported_canon(&head, rules, arena, req) : fault;
}

static void a_path_with_one_reading_is_taken_and_any_other_refused(void **state)
{
    static const struct {
        const char *target;
        const char *path; /* NULL: refused */
        enum http_fault fault;
    } rows[] = {
        { "/", "/", HTTP_FAULT_NONE },
        { "/a/b.c?d=//../e", "/a/b.c", HTTP_FAULT_NONE },
        { "/%61%2d%c3%a4", "/a-%C3%A4", HTTP_FAULT_NONE },
        { "/a;b/c", "/a;b/c", HTTP_FAULT_NONE },
        { "/a//b", NULL, HTTP_FAULT_PATH_DOUBLE_SLASH },
        { "//", NULL, HTTP_FAULT_PATH_DOUBLE_SLASH },
        { "/a/../b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/./b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/%2e%2E/b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/..;x/b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/.", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a%2fb", NULL, HTTP_FAULT_PATH_SLASH },
        { "/a%5Cb", NULL, HTTP_FAULT_PATH_SLASH },
        { "/a%252fb", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/a#b", NULL, HTTP_FAULT_TARGET },
        { "/a b", NULL, HTTP_FAULT_TARGET },
        { "/a\\b", NULL, HTTP_FAULT_PATH_BYTE },
        { "*", NULL, HTTP_FAULT_TARGET_FORM },
        { "https://a.b/", NULL, HTTP_FAULT_TARGET_FORM },
        { "", NULL, HTTP_FAULT_TARGET_FORM },
    };
    struct arena arena;

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_request req = { .method = HTTP_UNKNOWN };

        assert_int_equal(read("GET", "a.b", rows[i].target, NULL, &arena, &req), rows[i].fault);
        if (rows[i].path != NULL) {
            assert_true(sv_eq(req.path, sv_from(rows[i].path)));
        } else {
            assert_int_equal(req.method, HTTP_UNKNOWN);
        }
    }
    arena_deinit(&arena);
}

static void what_our_rules_would_repair_is_refused_however_they_are_set(void **state)
{
    static const enum http_escaped_slashes unescape[] = { HTTP_SLASH_UNESCAPE_FORWARD,
                                                          HTTP_SLASH_UNESCAPE_REDIRECT };
    const struct http_canon_rules keep = { .keep_double_slashes = true,
                                           .escaped_slashes = HTTP_SLASH_KEEP };
    struct http_request req = { .method = HTTP_UNKNOWN };
    struct arena arena;

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(unescape); i++) {
        const struct http_canon_rules rules = { .escaped_slashes = unescape[i] };

        assert_int_equal(read("GET", "a.b", "/a%2fb", &rules, &arena, &req), HTTP_FAULT_PATH_SLASH);
    }
    assert_int_equal(read("GET", "a.b", "/a//b", &keep, &arena, &req),
                     HTTP_FAULT_PATH_DOUBLE_SLASH);
    assert_int_equal(read("GET", "a.b", "/a%2Fb", &keep, &arena, &req), HTTP_FAULT_NONE);
    arena_deinit(&arena);
}

static void method_and_host_are_those_of_a_request(void **state)
{
    struct http_request req = { .method = HTTP_UNKNOWN };
    struct arena arena;

    (void)state;
    arena_init(&arena);
    assert_int_equal(read("get", "a.b", "/", NULL, &arena, &req), HTTP_FAULT_METHOD_UNKNOWN);
    assert_int_equal(read("", "a.b", "/", NULL, &arena, &req), HTTP_FAULT_METHOD_UNKNOWN);
    assert_int_equal(read("TRACE", "a.b", "/", NULL, &arena, &req), HTTP_FAULT_METHOD_REFUSED);
    assert_int_equal(read("CONNECT", "a.b", "a.b", NULL, &arena, &req), HTTP_FAULT_METHOD_REFUSED);
    assert_int_equal(read("GET", "a.b, c.d", "/", NULL, &arena, &req), HTTP_FAULT_HOST);
    assert_int_equal(read("GET", "u@a.b", "/", NULL, &arena, &req), HTTP_FAULT_HOST);
    assert_int_equal(read("GET", "", "/", NULL, &arena, &req), HTTP_FAULT_HOST);
    assert_int_equal(read("POST", "A.b.:8443", "/x?", NULL, &arena, &req), HTTP_FAULT_NONE);
    assert_true(sv_eq(req.host, SV("a.b")) && req.port == 8443 && req.has_query);
    arena_deinit(&arena);
}

static void the_way_back_is_on_the_same_host(void **state)
{
    static const char *const elsewhere[] = { "http://a.b/",
                                             "https://a.b.c/",
                                             "https://a.b:1/",
                                             "https://a.b@c/",
                                             "//a.b/",
                                             "https://a.b?",
                                             "https://a.b\\@c",
                                             "/",
                                             "" };
    struct http_request req = { .method = HTTP_UNKNOWN };
    struct arena arena;
    struct buf url;

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++) {
        assert_false(http_sign_in_is_back(sv_from(elsewhere[i]), SV("a.b")));
    }
    assert_true(http_sign_in_is_back(SV("https://a.b"), SV("a.b")));
    assert_int_equal(read("GET", "a.b:8443", "/x?y=z&a", NULL, &arena, &req), HTTP_FAULT_NONE);
    buf_init(&url, 256);
    http_sign_in_add_back(&url, &req);
    assert_true(sv_eq(buf_sv(&url), SV("https://a.b:8443/x?y=z&a")));
    assert_true(http_sign_in_is_back(buf_sv(&url), SV("a.b:8443")));
    buf_reset(&url);
    http_sign_in_add(&url, &req);
    assert_true(sv_eq(buf_sv(&url), SV("https://a.b:8443/.pomerium/sign_in?pomerium_redirect_uri="
                                       "https%3A%2F%2Fa.b%3A8443%2Fx%3Fy%3Dz%26a")));
    buf_deinit(&url);
    buf_init(&url, 16);
    http_sign_in_add(&url, &req);
    assert_int_not_equal(url.err, ERR_OK);
    buf_deinit(&url);
    arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_with_one_reading_is_taken_and_any_other_refused),
        cmocka_unit_test(what_our_rules_would_repair_is_refused_however_they_are_set),
        cmocka_unit_test(method_and_host_are_those_of_a_request),
        cmocka_unit_test(the_way_back_is_on_the_same_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
