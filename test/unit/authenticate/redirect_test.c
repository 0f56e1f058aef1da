/* A login leads back to configured hosts, and nowhere else. */
#include "authenticate/redirect.h"

#include <jansson.h>

#include "test/support/cmocka.h"

static const char config_text[] =
    "shared_secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"
    "authenticate_service_url: https://authenticate.example.com\n"
    "insecure_server: true\nidp_provider: oidc\nidp_provider_url: https://idp.example.com\n"
    "idp_client_id: x\n"
    "routes:\n"
    "  - from: https://foo.bar\n    to: http://127.0.0.1:1\n    allow_any_authenticated_user: true\n"
    "  - from: https://port.bar:8080\n    to: http://127.0.0.1:1\n"
    "    allow_any_authenticated_user: true\n";

static struct config *load(void)
{
    struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_NONE };
    struct config_errors *errors = NULL;
    struct config *config = NULL;

    if (config_parse(sv_from(config_text), &opts, &config, &errors) != ERR_OK) {
        for (size_t i = 0; i < config_errors_count(errors); i++) {
            print_message("%s\n", config_errors_text(errors, i));
        }
        config_errors_free(&errors);
    }
    assert_non_null(config);
    config->insecure_server = false; /* without it a certificate would be needed to read this */
    return config;
}

static bool may(const struct config *config, const char *text)
{
    struct http_url url;

    return authn_redirect_check(config, sv_from(text), &url) == ERR_OK;
}

/* The corpus judges by domain patterns; here only whole hosts count, so whatever it calls invalid must
 * be refused, and what it calls valid must be refused too unless the host is one of ours. */
static void the_corpus_of_bad_redirects_is_refused(void **state)
{
    json_t *doc =
        json_load_file("../shared/corpora/uri/oauth2_proxy_redirect_validator.json", 0, NULL);
    const json_t *cases = json_object_get(doc, "cases");
    struct config *config = load();
    size_t refused = 0;
    size_t accepted = 0;

    (void)state;
    assert_non_null(cases);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *text = json_string_value(json_object_get(c, "redirect"));
        bool ok = may(config, text);

        if (ok) {
            assert_true(json_is_true(json_object_get(c, "valid")));
        }
        accepted += ok ? 1U : 0U;
        refused += ok ? 0U : 1U;
    }
    assert_true(accepted > 0);
    assert_true(refused > 40);
    config_unref(&config);
    json_decref(doc);
}

static void only_whole_hosts_of_routes_count(void **state)
{
    static const char *const bad[] = {
        "",
        "/",
        "//foo.bar/",
        "/\\foo.bar",
        "https:/foo.bar/",
        "https:foo.bar",
        "http://foo.bar/",
        "https://foo.bar.evil.com/",
        "https://evilfoo.bar/",
        "https://foo.bar:8443@evil.com/",
        "https://foo.bar@evil.com/",
        "https://evil.com#@foo.bar/",
        "https://evil.com\\@foo.bar/",
        "https://foo.bar\\.evil.com/",
        "https://foo.bar%2eevil.com/",
        "https://foo.bar /",
        "https://foo.bar\t/",
        "https://foo.bar/x\r\nSet-Cookie: a=b",
        "https://foo.bar/#fragment",
        "javascript:alert(1)//https://foo.bar/",
        "data:text/html,https://foo.bar/",
        "https://port.bar:8081/",
        "https://authenticate.example.com/.pomerium/",
        "ftp://foo.bar/",
        "https://[::1]/",
        "https://foo.b\xc3\xa4r/",
    };
    struct config *config = load();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (may(config, bad[i])) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
    assert_true(may(config, "https://foo.bar/"));
    assert_true(may(config, "https://FOO.bar/path?q=https://evil.com"));
    assert_true(may(config, "https://port.bar:8080/"));
    config->insecure_server = true; /* plaintext all the way: then http leads back, too */
    assert_true(may(config, "http://port.bar:8080/"));
    config_unref(&config);
}

static void host_and_callback_are_as_the_url_shows_them(void **state)
{
    struct config *config = load();
    struct http_url url;
    CLEANUP(buf_deinit) struct buf text;

    (void)state;
    buf_init(&text, 1024);
    assert_int_equal(authn_redirect_check(config, SV("https://PORT.bar:8080/x"), &url), ERR_OK);
    authn_redirect_host(&text, &url);
    assert_string_equal(buf_cstr(&text), "port.bar:8080");
    buf_reset(&text);
    authn_redirect_callback(&text, &url);
    assert_string_equal(buf_cstr(&text), "https://port.bar:8080/.pomerium/callback/");
    config_unref(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_corpus_of_bad_redirects_is_refused),
        cmocka_unit_test(only_whole_hosts_of_routes_count),
        cmocka_unit_test(host_and_callback_are_as_the_url_shows_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
