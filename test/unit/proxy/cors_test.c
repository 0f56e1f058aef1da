#include "proxy/cors.h"

#include <stdio.h>
#include <string.h>

#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "routes: [{from: 'https://a.com', allow_public_unauthenticated_access: true, to: http://u, "

static struct config *make(const char *cors)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config_errors *errors = NULL;
    struct config *config = NULL;
    char text[4096];

    (void)snprintf(text, sizeof(text), HEAD "cors: {%s}}]\n", cors);
    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s: %s", cors, config_errors_text(errors, 0));
    }
    return config;
}

static const char *field(const struct proxy_fields *fields, const char *name)
{
    for (size_t i = 0; i < fields->n; i++) {
        if (sv_eq(fields->v[i].name, sv_from(name))) {
            return fields->v[i].value.p;
        }
    }
    return NULL;
}

static void only_named_origins_are_allowed(void **state)
{
    static const struct {
        const char *origin;
        bool allowed;
    } rows[] = {
        { "https://app.example.com", true },
        { "https://app.example.com:8443", false },
        { "http://app.example.com", false },
        { "https://app.example.com.evil.com", false },
        { "https://evil-app.example.com", false },
        { "https://a.wild.example.com", true },
        { "https://a.b.wild.example.com", true },
        { "https://wild.example.com", false },
        { "https://.wild.example.com", false },
        { "https://awild.example.com", false },
        { "https://evil.com#.wild.example.com", false },
        { "https://evil.com/.wild.example.com", false },
        { "https://evil.com?.wild.example.com", false },
        { "https://u@evil.com:1.wild.example.com", false },
        { "https://a.port.example.com:8443", true },
        { "https://a.port.example.com", false },
        { "null", false },
        { "", false },
    };
    struct config *config =
        make("allow_origins: ['https://APP.example.com:443', 'https://*.wild.example.com', "
             "'https://*.port.example.com:8443']");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (proxy_cors_allows(&config->routes[0].cors, sv_from(rows[i].origin)) !=
            rows[i].allowed) {
            fail_msg("%s", rows[i].origin);
        }
    }
    config_unref(&config);
}

static void an_answer_names_the_origin_that_asked(void **state)
{
    struct config *config = make("allow_origins: ['https://b.com'], allow_credentials: true, "
                                 "expose_headers: [X-One, X-Two], max_age: 10m");
    const struct config_cors *cors = &config->routes[0].cors;
    struct proxy_fields fields = { .n = 0 };

    (void)state;
    proxy_cors_answer(cors, SV("https://b.com"), &fields);
    proxy_cors_preflight(cors, &fields);
    assert_string_equal(field(&fields, "Access-Control-Allow-Origin"), "https://b.com");
    assert_string_equal(field(&fields, "Access-Control-Allow-Credentials"), "true");
    assert_string_equal(field(&fields, "Access-Control-Expose-Headers"), "X-One, X-Two");
    assert_string_equal(field(&fields, "Access-Control-Allow-Methods"),
                        "GET, HEAD, POST, PUT, PATCH, DELETE");
    assert_string_equal(field(&fields, "Access-Control-Max-Age"), "600");
    assert_string_equal(field(&fields, "Vary"), "Origin");
    fields.n = 0;
    proxy_cors_answer(cors, SV("https://evil.com"), &fields);
    assert_int_equal(fields.n, 1);
    assert_string_equal(field(&fields, "Vary"), "Origin");
    config_unref(&config);
}

static void a_star_names_nobody_and_allows_no_credentials(void **state)
{
    struct config *config = make("allow_origins: ['*', 'https://b.com']");
    struct proxy_fields fields = { .n = 0 };

    (void)state;
    proxy_cors_answer(&config->routes[0].cors, SV("https://anybody.com"), &fields);
    assert_int_equal(fields.n, 1);
    assert_string_equal(field(&fields, "Access-Control-Allow-Origin"), "*");
    assert_true(proxy_cors_speaks_for(SV("Access-Control-Allow-Private-Network")));
    assert_false(proxy_cors_speaks_for(SV("Vary")));
    config_unref(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_named_origins_are_allowed),
        cmocka_unit_test(an_answer_names_the_origin_that_asked),
        cmocka_unit_test(a_star_names_nobody_and_allows_no_credentials),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
