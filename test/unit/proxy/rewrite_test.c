/* rewrite: what a route makes of paths, hosts, headers and redirects, and what it never makes. */
#include "proxy/rewrite.h"

#include <stdio.h>
#include <string.h>

#include "common/pattern.h"
#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "routes: [{from: 'https://a.com', allow_public_unauthenticated_access: true, "

static struct config *make(const char *route)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config_errors *errors = NULL;
    struct config *config = NULL;
    char text[4096];

    (void)snprintf(text, sizeof(text), HEAD "%s}]\n", route);
    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s: %s", route, config_errors_text(errors, 0));
    }
    return config;
}

struct row {
    const char *route;
    const char *in;
    const char *out; /* NULL: refused */
};

#define TO "to: http://u, "

static const struct row paths[] = {
    { TO "prefix: /a/", "/a/b", "/a/b" },
    { TO "prefix: /a/, prefix_rewrite: /", "/a/b/c", "/b/c" },
    { TO "prefix: /a, prefix_rewrite: /", "/a/b", "/b" },
    { TO "prefix: /a, prefix_rewrite: /", "/a", "/" },
    { TO "prefix: /a, prefix_rewrite: /n", "/ab", "/nb" }, /* textual, as the prefix */
    { TO "prefix: /, prefix_rewrite: /base", "/x", "/base/x" },
    { TO "prefix: /@a/, prefix_rewrite: /n/", "/@a/b", "/n/b" },
    { TO "prefix: '/é/', prefix_rewrite: /n/", "/%C3%A9/b", "/n/b" },
    { TO "path: /a, prefix_rewrite: /n/m", "/a", "/n/m" },
    { "to: http://u/base/, prefix: /a/", "/a/b", "/base/b" },
    /* what would climb out of where the route leads */
    { TO "prefix: /a, prefix_rewrite: /base/", "/a../secret", NULL },
    { TO "prefix: /a, prefix_rewrite: /base/", "/a..", NULL },
    { TO "prefix: /a, prefix_rewrite: /base/", "/a.", NULL },
    { TO "prefix: /a, prefix_rewrite: /base/", "/a..;x", NULL },
    /* regular expressions, as Envoy's own examples */
    { TO "regex_rewrite_pattern: '^/service/([^/]+)(/.*)$', regex_rewrite_substitution: "
         "'\\2/instance/\\1'",
      "/service/foo/v1/api", "/v1/api/instance/foo" },
    { TO "regex_rewrite_pattern: one, regex_rewrite_substitution: two", "/xxx/one/yyy/one/zzz",
      "/xxx/two/yyy/two/zzz" },
    { TO "regex_rewrite_pattern: '^/x', regex_rewrite_substitution: '/y'", "/a/x", "/a/x" },
    { TO "regex_rewrite_pattern: '^/a/', regex_rewrite_substitution: ''", "/a/b", NULL },
    { TO "regex_rewrite_pattern: '^/a', regex_rewrite_substitution: ''", "/a", NULL },
    { TO "regex_rewrite_pattern: '^/a/(.*)$', regex_rewrite_substitution: '/b/../\\1'", "/a/c",
      NULL },
    { TO "regex_rewrite_pattern: x, regex_rewrite_substitution: ''", "/a/x.x./b", NULL },
    { TO "regex_rewrite_pattern: '%25', regex_rewrite_substitution: '%252e'", "/a%25", NULL },
    { TO "regex_rewrite_pattern: x, regex_rewrite_substitution: '%2F'", "/ax", NULL },
    { TO "regex_rewrite_pattern: x, regex_rewrite_substitution: ' HTTP/1.1'", "/ax", NULL },
    { TO "regex_rewrite_pattern: x, regex_rewrite_substitution: '?q=\\0'", "/ax", NULL },
    { TO "regex_rewrite_pattern: x, regex_rewrite_substitution: '/'", "/a/x/b", "/a/b" },
    { TO "regex_rewrite_pattern: '(a+)+[!?]', regex_rewrite_substitution: x",
      "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL },
    { TO "prefix: /a, prefix_rewrite: /b", "*", "*" },
};

static void a_rewritten_path_has_one_reading_and_climbs_nowhere(void **state)
{
    const struct http_canon_rules rules = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct config *config = make(paths[i].route);
        struct sv out = { 0 };
        struct arena arena;
        enum err err = ERR_OK;

        arena_init(&arena);
        err = proxy_rewrite_path(&config->routes[0], &rules, sv_from(paths[i].in), &arena, &out);
        if ((err == ERR_OK) != (paths[i].out != NULL)) {
            fail_msg("%s: %s gives %s", paths[i].route, paths[i].in, err_name(err));
        }
        if (err == ERR_OK && !sv_eq(out, sv_from(paths[i].out))) {
            fail_msg("%s: %s becomes %.*s", paths[i].route, paths[i].in, SV_ARG(out));
        }
        arena_deinit(&arena);
        config_unref(&config);
    }
    pattern_thread_end();
}

static const struct row hosts[] = {
    { "to: http://u", "/x", "" },
    { TO "preserve_host_header: true", "/x", "a.com:8443" },
    { TO "host_rewrite: 'Up.Example.com:81'", "/x", "up.example.com:81" },
    { TO "host_rewrite_header: X-To", "/x", "from.header" },
    { TO "host_path_regex_rewrite_pattern: '^/(.+)/.+$', host_path_regex_rewrite_substitution: "
         "'\\1'",
      "/envoyproxy.io/some", "envoyproxy.io" },
    { TO "host_path_regex_rewrite_pattern: '^/(.+)/.+$', host_path_regex_rewrite_substitution: "
         "'\\1'",
      "/nothing", "" },
    { TO "host_path_regex_rewrite_pattern: '^/(.+)/.+$', host_path_regex_rewrite_substitution: "
         "'\\1'",
      "/a/b/c", NULL },
    { TO "host_path_regex_rewrite_pattern: '^/(.+)/.+$', host_path_regex_rewrite_substitution: "
         "'u@\\1'",
      "/b/c", NULL },
};

static void a_rewritten_host_is_a_host(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct config *config = make(hosts[i].route);
        struct http_request req = { .path = sv_from(hosts[i].in), .authority = SV("a.com:8443") };
        struct sv out = { 0 };
        struct arena arena;
        enum err err = ERR_OK;

        arena_init(&arena);
        err = proxy_rewrite_host(&config->routes[0], &req, SV("From.Header"), &arena, &out);
        if ((err == ERR_OK) != (hosts[i].out != NULL) ||
            (err == ERR_OK && !sv_eq(out, sv_from(hosts[i].out)))) {
            fail_msg("%s: %s gives %s, %.*s", hosts[i].route, hosts[i].in, err_name(err),
                     SV_ARG(out));
        }
        arena_deinit(&arena);
        config_unref(&config);
    }
    pattern_thread_end();
}

static void headers_of_clients_make_no_broken_hosts(void **state)
{
    static const char *const bad[] = {
        "", "a b", "a\tb", "u@h", "h/x", "h:0", "h:99999", "[::", "é"
    };
    struct config *config = make(TO "host_rewrite_header: X-To");
    struct http_request req = { .path = SV("/") };
    struct sv out = { 0 };
    struct arena arena;

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(
            proxy_rewrite_host(&config->routes[0], &req, sv_from(bad[i]), &arena, &out),
            ERR_INVALID);
    }
    assert_int_equal(proxy_rewrite_host(&config->routes[0], &req, (struct sv){ 0 }, &arena, &out),
                     ERR_OK);
    assert_null(out.p); /* no such header: the upstream's own */
    arena_deinit(&arena);
    config_unref(&config);
}

static void the_first_prefix_that_fits_is_replaced(void **state)
{
    struct config *config =
        make(TO "rewrite_response_headers: [{header: Location, prefix: 'http://u/', value: "
                "'https://a.com/'}, {header: location, prefix: 'http:', value: 'https:'}, "
                "{header: X-A, value: 'all-'}, {header: X-B, prefix: 'gone'}]");
    static const char *const rows[][3] = {
        { "Location", "http://u/x", "https://a.com/x" },
        { "LOCATION", "http://v/x", "https://v/x" },
        { "Location", "/x", "/x" },
        { "X-A", "b", "all-b" },
        { "X-A", "", "all-" },
        { "X-B", "gone", "" },
        { "X-B", "gone  x", "x" },
        { "X-C", "gone", "gone" },
    };
    struct arena arena;

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sv got = proxy_rewrite_header(&config->routes[0], sv_from(rows[i][0]),
                                             sv_from(rows[i][1]), &arena);

        assert_true(sv_eq(got, sv_from(rows[i][2])));
    }
    arena_deinit(&arena);
    config_unref(&config);
}

static const struct row redirects[] = {
    /* in: path of https://a.com:8443, with ?q=1 */
    { "redirect: {https_redirect: true}", "/x", "https://a.com:8443/x?q=1" },
    { "redirect: {scheme_redirect: http}", "/x", "http://a.com:8443/x?q=1" },
    { "redirect: {host_redirect: B.com}", "/x", "https://b.com/x?q=1" },
    { "redirect: {host_redirect: 'b.com:81'}", "/x", "https://b.com:81/x?q=1" },
    { "redirect: {port_redirect: 9}", "/x", "https://a.com:9/x?q=1" },
    { "redirect: {path_redirect: /there}", "/x", "https://a.com:8443/there?q=1" },
    { "redirect: {path_redirect: '/there?z=2'}", "/x", "https://a.com:8443/there?z=2" },
    { "redirect: {path_redirect: /there, strip_query: true}", "/x", "https://a.com:8443/there" },
    { "prefix: /x/, redirect: {prefix_rewrite: /y/}", "/x/z", "https://a.com:8443/y/z?q=1" },
    { "path: /x, redirect: {prefix_rewrite: /y}", "/x", "https://a.com:8443/y?q=1" },
    { "redirect: {strip_query: true}", "//evil.com", "https://a.com:8443//evil.com" },
    { "redirect: {strip_query: true}", "*", "https://a.com:8443/" },
};

static void redirects_keep_what_they_do_not_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(redirects); i++) {
        struct config *config = make(redirects[i].route);
        struct http_request req = { .path = sv_from(redirects[i].in),
                                    .host = SV("a.com"),
                                    .port = 8443,
                                    .query = SV("q=1"),
                                    .has_query = true };
        struct buf out;

        buf_init(&out, 1024);
        proxy_rewrite_location(&config->routes[0], &req, true, &out);
        if (strcmp(buf_cstr(&out), redirects[i].out) != 0) {
            fail_msg("%s: %s leads to %s", redirects[i].route, redirects[i].in, buf_cstr(&out));
        }
        buf_deinit(&out);
        config_unref(&config);
    }
}

static void a_default_port_stays_with_its_scheme(void **state)
{
    struct config *config = make("redirect: {https_redirect: true}");
    struct http_request req = { .path = SV("/"), .host = SV("a.com"), .port = 80 };
    struct buf out;

    (void)state;
    buf_init(&out, 1024);
    proxy_rewrite_location(&config->routes[0], &req, false, &out);
    assert_string_equal(buf_cstr(&out), "https://a.com/");
    buf_reset(&out);
    req.port = 8080;
    proxy_rewrite_location(&config->routes[0], &req, false, &out);
    assert_string_equal(buf_cstr(&out), "https://a.com:8080/");
    buf_deinit(&out);
    config_unref(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rewritten_path_has_one_reading_and_climbs_nowhere),
        cmocka_unit_test(a_rewritten_host_is_a_host),
        cmocka_unit_test(headers_of_clients_make_no_broken_hosts),
        cmocka_unit_test(the_first_prefix_that_fits_is_replaced),
        cmocka_unit_test(redirects_keep_what_they_do_not_name),
        cmocka_unit_test(a_default_port_stays_with_its_scheme),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
