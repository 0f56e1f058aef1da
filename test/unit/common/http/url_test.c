/* url: one reading of an absolute URL, and nowhere but the allowed hosts to go. */
#include "common/http/url.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "common/arena.h"
#include "common/buf.h"
#include "test/support/cmocka.h"

static void urls_are_taken_apart(void **state)
{
    static const struct {
        const char *text;
        const char *again; /* NULL: refused */
        const char *host;
        uint16_t port;
    } rows[] = {
        { "https://Example.COM", "https://example.com/", "example.com", 443 },
        { "HTTP://a:80/b?c=d#e", "http://a/b?c=d#e", "a", 80 },
        { "https://a:8443?x", "https://a:8443/?x", "a", 8443 },
        { "https://a.#f", "https://a/#f", "a", 443 },
        { "https://[2001:DB8::0:1]:1/x", "https://[2001:db8::1]:1/x", "[2001:db8::1]", 1 },
        { "http://127.0.0.1:5000/%2F[x]", "http://127.0.0.1:5000/%2F[x]", "127.0.0.1", 5000 },
        { "tcp://db.example:5432", "tcp://db.example:5432/", "db.example", 5432 },
        { "ssh://host", "ssh://host/", "host", 0 },
        { "https://a/?next=https://b/%zz", "https://a/?next=https://b/%zz", "a", 443 },
        { "", NULL, "", 0 },
        { "a", NULL, "", 0 },
        { "//a/b", NULL, "", 0 },
        { "/a", NULL, "", 0 },
        { "https:a", NULL, "", 0 },
        { "https:/a", NULL, "", 0 },
        { "https:///a", NULL, "", 0 },
        { "https://", NULL, "", 0 },
        { "https://a:/", NULL, "", 0 },
        { "https://a:b/", NULL, "", 0 },
        { "https://a:99999/", NULL, "", 0 },
        { "https://u@a/", NULL, "", 0 },
        { "https://u:p@a/", NULL, "", 0 },
        { "https://a\\b/", NULL, "", 0 },
        { "https:\\\\a/", NULL, "", 0 },
        { "https://a/\\b", NULL, "", 0 },
        { "https://a b/", NULL, "", 0 },
        { "https://a/ b", NULL, "", 0 },
        { " https://a/", NULL, "", 0 },
        { "https://a/\t", NULL, "", 0 },
        { "https://a/\n", NULL, "", 0 },
        { "https://\xc3\xa4/", NULL, "", 0 },
        { "https://a/\xc3\xa4", NULL, "", 0 },
        { "https://a/%", NULL, "", 0 },
        { "https://a/%zz", NULL, "", 0 },
        { "https://a%2eb/", NULL, "", 0 },
        { "https://1.2.3/", NULL, "", 0 },
        { "https://0x7f000001/", NULL, "", 0 },
        { "https://a/#x#y", NULL, "", 0 },
        { "1ttp://a/", NULL, "", 0 },
        { "javascript:alert(1)//", NULL, "", 0 },
        { "javascript://a/%0aalert(1)", "javascript://a/%0aalert(1)", "a", 0 },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_url url;
        struct diag d = { 0 };
        enum err err = http_url_parse(sv_from(rows[i].text), &url, &d);
        struct buf again;

        if ((err == ERR_OK) != (rows[i].again != NULL)) {
            print_error("%s: %s\n", rows[i].text, d.text);
        }
        assert_int_equal(err, rows[i].again == NULL ? ERR_INVALID : ERR_OK);
        assert_int_equal(d.text[0] == '\0', err == ERR_OK);
        if (err != ERR_OK) {
            continue;
        }
        assert_true(sv_eq(url.host, sv_from(rows[i].host)));
        assert_int_equal(url.port, rows[i].port);
        buf_init(&again, 4096);
        http_url_add(&again, &url);
        assert_string_equal(buf_cstr(&again), rows[i].again);
        buf_deinit(&again);
    }
}

static void a_copy_stands_alone(void **state)
{
    char text[] = "https://Host:1/p?q#f";
    struct http_url url;
    struct http_url copy;
    struct arena arena;
    struct buf b;

    (void)state;
    arena_init(&arena);
    buf_init(&b, 256);
    assert_int_equal(http_url_parse(sv_from(text), &url, NULL), ERR_OK);
    http_url_copy(&url, &arena, &copy);
    memset(text, 'x', sizeof(text) - 1);
    memset(&url, 0, sizeof(url));
    http_url_add(&b, &copy);
    assert_string_equal(buf_cstr(&b), "https://host:1/p?q#f");
    buf_deinit(&b);
    arena_deinit(&arena);
}

static void origins_are_scheme_host_and_port(void **state)
{
    static const struct {
        const char *a;
        const char *b;
        bool same;
    } rows[] = {
        { "https://a/x", "HTTPS://A:443/y", true },     { "https://a", "http://a", false },
        { "https://a", "https://a:444", false },        { "https://a", "https://a.b", false },
        { "http://[::1]", "http://[0:0::1]:80", true },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_url a;
        struct http_url b;

        assert_int_equal(http_url_parse(sv_from(rows[i].a), &a, NULL), ERR_OK);
        assert_int_equal(http_url_parse(sv_from(rows[i].b), &b, NULL), ERR_OK);
        assert_int_equal(http_url_same_origin(&a, &b), rows[i].same);
    }
}

static void loopback_is_this_machine_and_a_port(void **state)
{
    static const struct {
        const char *url;
        bool loopback;
    } rows[] = {
        { "http://127.0.0.1:1/", true },           { "http://[::1]:65535/a?b", true },
        { "http://LOCALHOST.:80", true },          { "http://127.0.0.1/", false },
        { "https://127.0.0.1:1/", false },         { "http://127.0.0.2:1/", false },
        { "http://app.localhost:1/", false },      { "http://localhost.evil:1/", false },
        { "http://[::ffff:127.0.0.1]:1/", false }, { "http://127.0.0.1:1/#x", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_url url;

        assert_int_equal(http_url_parse(sv_from(rows[i].url), &url, NULL), ERR_OK);
        assert_int_equal(http_url_is_loopback(&url), rows[i].loopback);
    }
}

static void only_exact_hosts_may_be_redirected_to(void **state)
{
    static const struct {
        const char *text;
        bool https_only;
        enum err err;
    } rows[] = {
        { "https://app.example/x", true, ERR_OK },
        { "https://APP.example.:443/x", true, ERR_OK },
        { "http://app.example/x", false, ERR_OK },
        { "http://app.example/x", true, ERR_DENIED },
        { "https://app.example:8443/x", true, ERR_DENIED },
        { "https://port.example:8443/x", true, ERR_OK },
        { "https://port.example/x", true, ERR_DENIED },
        { "https://port.example:8444/x", true, ERR_DENIED },
        { "https://app.example.evil.example/", true, ERR_DENIED },
        { "https://evil-app.example/", true, ERR_DENIED },
        { "https://sub.app.example/", true, ERR_DENIED },
        { "https://evil.example/?https://app.example/", true, ERR_DENIED },
        { "https://evil.example/app.example", true, ERR_DENIED },
        { "https://evil.example#@app.example/", true, ERR_DENIED },
        { "https://app.example@evil.example/", true, ERR_INVALID },
        { "https://app.example:443@evil.example/", true, ERR_INVALID },
        { "https://evil.example\\@app.example/", true, ERR_INVALID },
        { "https://app.example\\.evil.example/", true, ERR_INVALID },
        { "https://app.example%2eevil.example/", true, ERR_INVALID },
        { "https://app.example\t.evil.example/", true, ERR_INVALID },
        { "https:app.example", true, ERR_INVALID },
        { "https:///app.example", true, ERR_INVALID },
        { "//app.example/", true, ERR_INVALID },
        { "/\\app.example/", true, ERR_INVALID },
        { "ftp://app.example/", false, ERR_DENIED },
        { "javascript://app.example/%0aalert(1)", false, ERR_DENIED },
        { "data:text/html,x", false, ERR_INVALID },
        { "https://\xef\xbd\x81pp.example/", true, ERR_INVALID },
    };
    struct http_url_set *set = http_url_set_new();
    size_t i = 0;

    (void)state;
    assert_int_equal(http_url_set_add(set, SV("App.Example")), ERR_OK);
    assert_int_equal(http_url_set_add(set, SV("port.example:8443")), ERR_OK);
    assert_int_equal(http_url_set_add(set, SV("*.example")), ERR_INVALID);
    assert_int_equal(http_url_set_add(set, SV("https://a")), ERR_INVALID);
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        enum err err =
            http_url_redirect_check(set, sv_from(rows[i].text), rows[i].https_only, NULL);

        if (err != rows[i].err) {
            print_error("%s: %s\n", rows[i].text, err_name(err));
        }
        assert_int_equal(err, rows[i].err);
    }
    http_url_set_free(&set);
    assert_null(set);
}

static void local_paths_stay_on_the_host(void **state)
{
    static const struct {
        const char *text;
        bool local;
    } rows[] = {
        { "/", true },           { "/a/b?c=//d#e", true },
        { "/.pomerium/", true }, { "/a/../b", true },
        { "", false },           { "a", false },
        { "//a", false },        { "/\\a", false },
        { "/a\\b", false },      { "///a", false },
        { "/a//b", false },      { "/\t/a", false },
        { "/a\r\nX: y", false }, { "/a b", false },
        { "/%zz", false },       { "https://a", false },
        { "/a?b\r\nc", false },  { "/\xc3\xa4", false },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct sv text = sv_from(rows[i].text);

        if (http_url_is_local_path(text) != rows[i].local) {
            print_error("%.*s\n", SV_ARG(text));
        }
        assert_int_equal(http_url_is_local_path(text), rows[i].local);
    }
}

/* The hosts that oauth2-proxy's patterns stand for and its cases use: ours are exact, so a pattern
 * is spelled out, but for the domains that no case names. */
static const char *const exact_hosts[] = {
    "foo.bar",
    "baz.bar.foo",
    "bar.foo",
    "port.bar:8080",
    "foo.sub.port.bar:8080",
    "anyport.bar:8080",
    "anyport.bar:8081",
    "a.sub.anyport.bar:8080",
    "a.sub.anyport.bar:8081",
    "foo.wildcard.bar",
    "wildcard.bar",
    "foo.wildcard.sub.anyport.bar:4242",
    "wildcard.sub.anyport.bar:4242",
    "foo.wildcard.sub.port.bar:8080",
    "wildcard.sub.port.bar:8080",
    "www.whitelisteddomain.tld",
};

static void every_oauth2_proxy_case_is_judged(void **state)
{
    json_t *root =
        json_load_file("../shared/corpora/uri/oauth2_proxy_redirect_validator.json", 0, NULL);
    json_t *cases = json_object_get(root, "cases");
    struct http_url_set *set = http_url_set_new();
    size_t wrong = 0;
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(exact_hosts); i++) {
        assert_int_equal(http_url_set_add(set, sv_from(exact_hosts[i])), ERR_OK);
    }
    assert_int_equal(json_array_size(cases), 57);
    for (i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *text = json_string_value(json_object_get(c, "redirect"));
        bool want = json_is_true(json_object_get(c, "valid"));
        bool got = http_url_is_local_path(sv_from(text)) ||
                   http_url_redirect_check(set, sv_from(text), false, NULL) == ERR_OK;

        if (got != want) {
            print_error("%s: want %d\n", text, want);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    http_url_set_free(&set);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(a_copy_stands_alone),
        cmocka_unit_test(origins_are_scheme_host_and_port),
        cmocka_unit_test(loopback_is_this_machine_and_a_port),
        cmocka_unit_test(only_exact_hosts_may_be_redirected_to),
        cmocka_unit_test(local_paths_stay_on_the_host),
        cmocka_unit_test(every_oauth2_proxy_case_is_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
