/* canon: one reading of every path, the corpora of Envoy and lighttpd, and the list of paths that
 * CVEs of other proxies were about. */
#include "common/http/canon.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "common/arena.h"
#include "test/support/cmocka.h"

struct path_row {
    const char *in;
    const char *out; /* NULL: refused with fault */
    enum http_fault fault;
};

static void check_rows(const struct path_row *rows, size_t n, const struct http_canon_rules *rules)
{
    struct arena arena;
    size_t i = 0;

    arena_init(&arena);
    for (i = 0; i < n; i++) {
        struct sv path = SV("");
        struct sv again = SV("");
        enum http_fault fault = http_canon_path(sv_from(rows[i].in), rules, &arena, &path, NULL);

        if (fault != rows[i].fault || (rows[i].out != NULL && !sv_eq(path, sv_from(rows[i].out)))) {
            print_error("%s: got %s, %.*s\n", rows[i].in, http_fault_name(fault), SV_ARG(path));
        }
        assert_int_equal(fault, rows[i].fault);
        if (fault != HTTP_FAULT_NONE) {
            continue;
        }
        assert_true(sv_eq(path, sv_from(rows[i].out)));
        assert_int_equal(http_canon_path(path, rules, &arena, &again, NULL), HTTP_FAULT_NONE);
        assert_true(again.p == path.p && again.n == path.n); /* canonical: its very bytes */
    }
    arena_deinit(&arena);
}

static void a_path_has_one_spelling(void **state)
{
    static const struct path_row rows[] = {
        { "/", "/", 0 },
        { "/a/b.c/~d-e_f", "/a/b.c/~d-e_f", 0 },
        { "/!$&'()*+,;=:@", "/!$&'()*+,;=:@", 0 },
        { "/%7euser", "/~user", 0 },
        { "/%61dmin", "/admin", 0 },
        { "/%c3%a4", "/%C3%A4", 0 },
        { "/a%20b", "/a%20b", 0 },
        { "/a%2bb", "/a%2Bb", 0 },
        { "/[slug]|{x}^`", "/%5Bslug%5D%7C%7Bx%7D%5E%60", 0 },
        { "//", "/", 0 },
        { "//a///b//", "/a/b/", 0 },
        { "/a/./b", "/a/b", 0 },
        { "/a/../b", "/b", 0 },
        { "/a/..", "/", 0 },
        { "/a/b/..", "/a/", 0 },
        { "/a/b/.", "/a/b/", 0 },
        { "/../../a", "/a", 0 },
        { "/a/%2e%2e/b", "/b", 0 },
        { "/a/.%2e/b", "/b", 0 },
        { "/a//../b", "/b", 0 },
        { "/...", "/...", 0 },
        { "/.well-known/x", "/.well-known/x", 0 },
        { "/..a/.b", "/..a/.b", 0 },
        { "/a;v=1/b", "/a;v=1/b", 0 },
        { "/100%25", "/100%25", 0 },
        { "/a%2520b", "/a%2520b", 0 },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows), NULL);
}

static void what_two_servers_could_read_differently_is_refused(void **state)
{
    static const struct path_row rows[] = {
        { "", NULL, HTTP_FAULT_TARGET_FORM },
        { "a", NULL, HTTP_FAULT_TARGET_FORM },
        { "*", NULL, HTTP_FAULT_TARGET_FORM },
        /* envoy CVE-2021-29492, pomerium CVE-2021-39206: escaped slashes */
        { "/a%2fb", NULL, HTTP_FAULT_PATH_SLASH },
        { "/a%2Fb", NULL, HTTP_FAULT_PATH_SLASH },
        { "/public%2f..%2fadmin", NULL, HTTP_FAULT_PATH_SLASH },
        { "/a%5cb", NULL, HTTP_FAULT_PATH_SLASH },
        { "/a\\b", NULL, HTTP_FAULT_PATH_BYTE },
        { "/public/..\\admin", NULL, HTTP_FAULT_PATH_BYTE },
        /* envoy CVE-2021-32779, oauth2-proxy CVE-2026-41059: fragments */
        { "/admin#/public", NULL, HTTP_FAULT_PATH_BYTE },
        /* NUL and controls end or split what others read */
        { "/a%00", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a%00/../admin", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a%0d%0aX:y", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a%0a", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a%7f", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a b", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a\tb", NULL, HTTP_FAULT_PATH_BYTE },
        { "/\xc3\xa4", NULL, HTTP_FAULT_PATH_BYTE },
        { "/a\"b", NULL, HTTP_FAULT_PATH_BYTE },
        { "/<script>", NULL, HTTP_FAULT_PATH_BYTE },
        /* broken escapes */
        { "/%", NULL, HTTP_FAULT_PATH_ESCAPE },
        { "/%4", NULL, HTTP_FAULT_PATH_ESCAPE },
        { "/%zz", NULL, HTTP_FAULT_PATH_ESCAPE },
        { "/%u002e", NULL, HTTP_FAULT_PATH_ESCAPE },
        { "/%%32%65", NULL, HTTP_FAULT_PATH_ESCAPE },
        { "/a/%2", NULL, HTTP_FAULT_PATH_ESCAPE },
        /* traefik CVE-2025-47952, heimdall CVE-2026-32811: encoded twice */
        { "/%252e%252e/admin", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/a/%252e/b", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/a%252fb", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/a%255cb", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/%2561dmin", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/%25%32%65", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/%25252e", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/a%2500", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/a%253bb", NULL, HTTP_FAULT_PATH_DOUBLE },
        { "/%25c3%25a4", NULL, HTTP_FAULT_PATH_DOUBLE },
        /* envoy CVE-2026-73553, Tomcat's ..; */
        { "/public/..;/admin", NULL, HTTP_FAULT_PATH_DOTS },
        { "/public/..;a=b/admin", NULL, HTTP_FAULT_PATH_DOTS },
        { "/public/..%3b/admin", NULL, HTTP_FAULT_PATH_DOTS },
        { "/public/%2e%2e;/admin", NULL, HTTP_FAULT_PATH_DOTS },
        { "/public/.;/admin", NULL, HTTP_FAULT_PATH_DOTS },
        /* overlong and broken UTF-8 */
        { "/..%c0%af..", NULL, HTTP_FAULT_PATH_UTF8 },
        { "/%c0%ae%c0%ae/", NULL, HTTP_FAULT_PATH_UTF8 },
        { "/%e4", NULL, HTTP_FAULT_PATH_UTF8 },
        { "/%ff", NULL, HTTP_FAULT_PATH_UTF8 },
        { "/%ed%a0%80", NULL, HTTP_FAULT_PATH_UTF8 },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows), NULL);
}

static void kept_escaped_slashes_are_ordinary_characters(void **state)
{
    static const struct http_canon_rules keep = { .escaped_slashes = HTTP_SLASH_KEEP };
    static const struct path_row rows[] = {
        { "/api/v1/repositories/https%3a%2f%2fgit.example%2fx", /* Argo CD */
          "/api/v1/repositories/https%3A%2F%2Fgit.example%2Fx", 0 },
        { "/api/v4/projects/group%2Fproject/files/a%2fb.c", /* GitLab */
          "/api/v4/projects/group%2Fproject/files/a%2Fb.c", 0 },
        { "/api/queues/%2f/name", "/api/queues/%2F/name", 0 },                   /* RabbitMQ */
        { "/repository/npm/@scope%2fname", "/repository/npm/@scope%2Fname", 0 }, /* Nexus */
        { "/a%5cb", "/a%5Cb", 0 },
        { "/a/..%2fb", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/%2e%2e%2Fb", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/x%2f..%2fb", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/x%2f..", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/x%5c.%5cb", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/x%2f..;y/b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/../b%2fc", "/b%2Fc", 0 },
    };
    struct arena arena;

    (void)state;
    check_rows(rows, ARRAY_LEN(rows), &keep);
    arena_init(&arena);
    assert_true(
        sv_eq(http_canon_decode(SV("/%C3%A4%20x%2Fy%5Cz"), &arena), SV("/\xc3\xa4 x%2Fy%5Cz")));
    arena_deinit(&arena);
    assert_true(http_canon_is_decoded(SV("/\xc3\xa4 x%2Fy%5Cz/100%/%zz%")));
    assert_false(http_canon_is_decoded(SV("/%C3%A4")));
    assert_false(http_canon_is_decoded(SV("/a%2fb")));
}

static void other_settings_do_what_they_say(void **state)
{
    static const struct http_canon_rules forward = { .escaped_slashes =
                                                         HTTP_SLASH_UNESCAPE_FORWARD };
    static const struct http_canon_rules loose = { .keep_dot_segments = true,
                                                   .keep_double_slashes = true,
                                                   .keep_double_encoding = true,
                                                   .keep_invalid_utf8 = true };
    static const struct path_row unescaped[] = {
        { "/a%2fb", "/a/b", 0 },  { "/a%2f%2Fb", "/a/b", 0 },      { "/a%5cb", "/a/b", 0 },
        { "/a/..%2fb", "/b", 0 }, { "/a%2f..%2f..%2fb", "/b", 0 },
    };
    static const struct path_row kept[] = {
        { "/a//b", "/a//b", 0 },
        { "//a", "//a", 0 },
        { "/a//", "/a//", 0 },
        { "/a/./b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/../b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/a/%2e%2e/b", NULL, HTTP_FAULT_PATH_DOTS },
        { "/%252e", "/%252e", 0 },
        { "/%e4", "/%E4", 0 },
    };
    struct arena arena;
    struct sv path = SV("");
    bool found = false;

    (void)state;
    check_rows(unescaped, ARRAY_LEN(unescaped), &forward);
    check_rows(kept, ARRAY_LEN(kept), &loose);
    arena_init(&arena);
    assert_int_equal(http_canon_path(SV("/a%2fb"), &forward, &arena, &path, &found), 0);
    assert_true(found);
    assert_int_equal(http_canon_path(SV("/a%20b"), &forward, &arena, &path, &found), 0);
    assert_false(found);
    arena_deinit(&arena);
}

/* ---- whole requests --------------------------------------------------------------------------- */

struct request_row {
    const char *head;
    const char *host;
    const char *path;
    const char *forward;
    uint16_t port;
    bool changed;
};

static void a_request_is_reduced_to_one_form(void **state)
{
    static const struct request_row rows[] = {
        { "GET /a?b=c HTTP/1.1\r\nHost: Example.COM\r\n\r\n", "example.com", "/a", "/a?b=c", 0,
          false },
        { "GET /a? HTTP/1.1\r\nHost: x:8443\r\n\r\n", "x", "/a", "/a?", 8443, false },
        { "GET /a/../b?q=/../ HTTP/1.1\r\nHost: x.\r\n\r\n", "x", "/b", "/b?q=/../", 0, true },
        { "GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "x", "/", "/", 0, true },
        { "GET http://x?q HTTP/1.1\r\nHost: x\r\n\r\n", "x", "/", "/?q", 0, true },
        { "GET http://X:80/a HTTP/1.1\r\nHost: x\r\n\r\n", "x", "/a", "/a", 0, true },
        { "GET HTTPS://x/a HTTP/1.1\r\nHost: x:443\r\n\r\n", "x", "/a", "/a", 443, true },
        { "GET / HTTP/1.1\r\nHost: [2001:DB8:0:0::1]:80\r\n\r\n", "[2001:db8::1]", "/", "/", 80,
          false },
        { "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "x", "*", "*", 0, false },
        { "CONNECT X:22 HTTP/1.1\r\nHost: x:22\r\n\r\n", "x", "", "x:22", 22, true },
        { "GET /%7ea HTTP/1.1\r\nHost: x\r\n\r\n", "x", "/~a", "/~a", 0, true },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_field fields[8];
        struct http_head head;
        struct http_request req;
        struct arena arena;

        arena_init(&arena);
        http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
        assert_int_equal(http_head_parse(&head, sv_from(rows[i].head)), HTTP_DONE);
        assert_int_equal(http_canon_request(&head, NULL, &arena, &req), HTTP_FAULT_NONE);
        assert_true(sv_eq(req.host, sv_from(rows[i].host)));
        assert_int_equal(req.port, rows[i].port);
        assert_true(sv_eq(req.path, sv_from(rows[i].path)));
        assert_true(sv_eq(req.forward, sv_from(rows[i].forward)));
        assert_int_equal(req.changed, rows[i].changed);
        arena_deinit(&arena);
    }
}

static void a_canonical_request_allocates_nothing(void **state)
{
    struct http_field fields[8];
    struct http_head head;
    struct http_request req;
    struct arena arena;

    (void)state;
    arena_init(&arena);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(
        http_head_parse(&head, SV("GET /a/b?c=%zz HTTP/1.1\r\nHost: app.example.com:8443\r\n\r\n")),
        HTTP_DONE);
    assert_int_equal(http_canon_request(&head, NULL, &arena, &req), HTTP_FAULT_NONE);
    assert_int_equal(arena.total, 0);
    assert_ptr_equal(req.forward.p, head.target.p);
    arena_deinit(&arena);
}

static void rewrites_find_the_place_of_a_decoded_prefix(void **state)
{
    (void)state;
    assert_int_equal(http_canon_encoded_len(SV("/%40admin/x"), 7), 9);
    assert_int_equal(http_canon_encoded_len(SV("/a%2Fb/c"), 6), 6);
    assert_int_equal(http_canon_encoded_len(SV("/a"), 9), 2);
    assert_int_equal(http_canon_encoded_len(SV("/a"), 0), 0);
}

static void path_parameters_are_cut_off_as_java_does(void **state)
{
    static const char *const rows[][2] = {
        { "/;/admin", "/admin" },
        { "/a;x=1/b;y", "/a/b" },
        { "/a/;x/;y/b", "/a/b" },
        { "/page;jsessionid=1", "/page" },
        { "/;", "/" },
        { "/page/", "/page/" },
    };
    char room[32];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(
            sv_eq(http_canon_without_params(sv_from(rows[i][0]), room), sv_from(rows[i][1])));
    }
}

/* ---- corpora ---------------------------------------------------------------------------------- */

struct corpus_row {
    const char *in;
    const char *out; /* what we make of it; NULL: refused */
    const char *why;
};

/* Where we differ from Envoy. */
static const struct corpus_row envoy_rows[] = {
    { "a/b/../c", NULL, "no leading slash" },
    { "..", NULL, "no leading slash" },
    { "", NULL, "no leading slash" },
    { "a//b/c", NULL, "no leading slash" },
    { "/a/..\\c", NULL, "a raw backslash" },
    { "/%c0%af", NULL, "overlong UTF-8" },
    { "/%5c%25", NULL, "an escaped backslash is an escaped slash" },
    { "/a/%2F%2f/c", NULL, "escaped slashes" },
};

/* Where we differ from lighttpd, whose cases run under many settings. */
static const struct corpus_row lighttpd_rows[] = {
    { "no-slash", NULL, "no leading slash" },
    { "%2f?", NULL, "no leading slash" },
    { "%2f%2f", NULL, "no leading slash" },
    { "%2f%2f?", NULL, "no leading slash" },
    { "./a/b", NULL, "no leading slash" },
    { "../a/b", NULL, "no leading slash" },
    { "/%C0", NULL, "invalid UTF-8" },
    { "/abc?d=e&f=g#", NULL, "a fragment" },
    { "/abc?d=e&f=g#any", NULL, "a fragment" },
    { "/%2F", NULL, "an escaped slash" },
    { "/%2f", NULL, "an escaped slash" },
    { "/%2f?", NULL, "an escaped slash" },
    { "/a%2fb", NULL, "an escaped slash" },
    { "/a%2Fb", NULL, "an escaped slash" },
    { "/a%2fb?c=/", NULL, "an escaped slash" },
    { "/a%2fb?c=%2f", NULL, "an escaped slash" },
    { "/a\\b", NULL, "a raw backslash" },
    { "/%2b", "/%2B", "reserved characters stay as they are" },
    { "/%2B", "/%2B", "reserved characters stay as they are" },
    { "/%3a", "/%3A", "reserved characters stay as they are" },
    { "/%3A", "/%3A", "reserved characters stay as they are" },
    { "/%2b?x=%2b", "/%2B?x=%2b", "reserved characters stay, and queries are opaque" },
    { "/%2B?x=%2B", "/%2B?x=%2B", "reserved characters stay, and queries are opaque" },
    { "/abc?d=e%20f?g=h%20i", "/abc?d=e%20f?g=h%20i", "queries are opaque" },
    { "/a/b?c=%2f", "/a/b?c=%2f", "queries are opaque" },
    { "/a/b?c=d%20e", "/a/b?c=d%20e", "queries are opaque" },
    { "/a/./b", "/a/b", "dot segments are resolved" },
    { "/a/../b", "/b", "dot segments are resolved" },
    { "/a/b/.", "/a/b/", "dot segments are resolved" },
    { "/a/b/..", "/a/", "dot segments are resolved" },
};

static const struct corpus_row *find_row(const struct corpus_row *rows, size_t n, const char *in)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        if (strcmp(rows[i].in, in) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

/* Target in, forwarded target out; false where it is refused. */
static bool through(const char *target, struct arena *arena, struct sv *forward_out)
{
    struct http_field fields[8];
    struct http_head head;
    struct http_request req;
    char text[512];

    (void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    if (http_head_parse(&head, arena_sv(arena, sv_from(text))) != HTTP_DONE ||
        http_canon_request(&head, NULL, arena, &req) != HTTP_FAULT_NONE) {
        return false;
    }
    *forward_out = req.forward;
    return true;
}

static bool is_ascii(const char *s)
{
    while (*s > 0) {
        s++;
    }
    return *s == 0;
}

static size_t judge(const json_t *cases, const char *in_key, const char *out_key,
                    const struct corpus_row *rows, size_t n)
{
    struct arena arena;
    size_t wrong = 0;
    size_t i = 0;

    arena_init(&arena);
    for (i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *in = json_string_value(json_object_get(c, in_key));
        const char *want = json_string_value(json_object_get(c, out_key));
        const struct corpus_row *row = find_row(rows, n, in);
        struct sv got = SV("");
        bool passed = through(in, &arena, &got);

        if (row != NULL) {
            want = row->out;
        } else if (!is_ascii(in)) {
            want = NULL; /* browsers encode such bytes */
        }
        if (passed != (want != NULL) || (passed && !sv_eq(got, sv_from(want)))) {
            print_error("%s: want %s, got %.*s\n", in, want == NULL ? "refused" : want,
                        SV_ARG(got));
            wrong++;
        }
    }
    arena_deinit(&arena);
    return wrong;
}

static void every_envoy_case_is_judged(void **state)
{
    json_t *root = json_load_file("../shared/corpora/uri/envoy_path_normalize.json", 0, NULL);

    (void)state;
    assert_int_equal(json_array_size(json_object_get(root, "normalize")), 21);
    assert_int_equal(json_array_size(json_object_get(root, "merge_slashes")), 12);
    assert_int_equal(
        judge(json_object_get(root, "normalize"), "i", "o", envoy_rows, ARRAY_LEN(envoy_rows)), 0);
    assert_int_equal(
        judge(json_object_get(root, "merge_slashes"), "i", "o", envoy_rows, ARRAY_LEN(envoy_rows)),
        0);
    json_decref(root);
}

static void every_lighttpd_url_is_judged(void **state)
{
    json_t *root = json_load_file("../shared/corpora/uri/lighttpd_url_normalize.json", 0, NULL);

    (void)state;
    assert_int_equal(json_array_size(json_object_get(root, "cases")), 90);
    assert_int_equal(judge(json_object_get(root, "cases"), "input_latin1", "output", lighttpd_rows,
                           ARRAY_LEN(lighttpd_rows)),
                     0);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_has_one_spelling),
        cmocka_unit_test(what_two_servers_could_read_differently_is_refused),
        cmocka_unit_test(kept_escaped_slashes_are_ordinary_characters),
        cmocka_unit_test(other_settings_do_what_they_say),
        cmocka_unit_test(a_request_is_reduced_to_one_form),
        cmocka_unit_test(a_canonical_request_allocates_nothing),
        cmocka_unit_test(rewrites_find_the_place_of_a_decoded_prefix),
        cmocka_unit_test(path_parameters_are_cut_off_as_java_does),
        cmocka_unit_test(every_envoy_case_is_judged),
        cmocka_unit_test(every_lighttpd_url_is_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
