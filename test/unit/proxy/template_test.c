#include "proxy/template.h"

#include <stdio.h>
#include <string.h>

#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "routes: [{from: 'https://a.com', allow_public_unauthenticated_access: true, to: http://u, "

static struct sv header(void *arg, struct sv name)
{
    (void)arg;
    if (sv_ieq(name, SV("X-Broken"))) {
        return SV("a\r\nX-Evil: b");
    }
    return sv_ieq(name, SV("x-known")) ? SV("known") : (struct sv){ 0 };
}

static const struct {
    const char *value;
    const char *out; /* NULL: the header is not sent */
} rows[] = {
    { "Bearer ${pomerium.access_token}", "Bearer at" },
    { "${pomerium.id_token}", "it" },
    { "a$$b ${pomerium.jwt}${pomerium.jwt}$$", "a$b jj$" },
    { "${pomerium.request.headers[\"X-Known\"]}!", "known!" },
    { "  ${pomerium.jwt}  ", "j" },
    { "${pomerium.request.headers[\"X-Unknown\"]}", NULL },
    { "a ${pomerium.request.headers[\"X-Unknown\"]} b", NULL },
    { "${pomerium.request.headers[\"X-Broken\"]}", NULL },
    { "${pomerium.client_cert_fingerprint}", NULL },
    { "${pomerium.client_cert_san_dns}", NULL },
    { "${pomerium.client_cert_san_email}", NULL },
};

static void tokens_have_values_or_the_header_is_not_sent(void **state)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    const struct proxy_template_facts facts = {
        .access_token = SV("at"), .id_token = SV("it"), .jwt = SV("j"), .header = header
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config_errors *errors = NULL;
        struct config *config = NULL;
        struct arena arena;
        struct sv got = { 0 };
        char text[4096];

        (void)snprintf(text, sizeof(text), HEAD "set_request_headers: {X-A: '%s'}}]\n",
                       rows[i].value);
        if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
            fail_msg("%s: %s", rows[i].value, config_errors_text(errors, 0));
        }
        arena_init(&arena);
        got = proxy_template_value(&config->routes[0].templates[0], &facts, &arena);
        if ((got.p == NULL) != (rows[i].out == NULL) || !sv_eq(got, sv_from(rows[i].out))) {
            fail_msg("%s gives %.*s", rows[i].value, SV_ARG(got));
        }
        arena_deinit(&arena);
        config_unref(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_have_values_or_the_header_is_not_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
