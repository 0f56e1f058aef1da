/* Routes of tunnels: every form, and every sentence about a wrong one. */
#include <string.h>

#include "common/config/config.h"
#include "test/support/cmocka.h"

#define HEAD2                                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "insecure_server: true\n"                                       \
    "authenticate_service_url: https://login.localhost\n"           \
    "idp_provider: local\n"

static const struct config_opts opts = { .file = "c.yaml", .part = CONFIG_PART_DATABROKER };

static struct config *good(const char *text)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("refused: %s", config_errors_text(errors, 0));
    }
    return config;
}

static const struct {
    const char *yaml;
    const char *error; /* how one of the errors begins */
} refused[] = {
    { HEAD2 "routes:\n  - from: tcp+https://a.b\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: expected tcp+https://host:port" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:022\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: expected tcp+https://host:port" },
    { HEAD2 "routes:\n  - from: tcp+https://u@a.b:22\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: expected tcp+https://host:port" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b/c\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: expected tcp+https://host:port" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b/c:22/d:22\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: one host:port behind the proxy's name" },
    { HEAD2 "routes:\n  - from: tcp+https://*.b:22\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: a tcp route is for one host and port, without '*'" },
    { HEAD2 "routes:\n  - from: tcp://a.b:22\n    to: tcp://c:22\n",
      "c.yaml:6:5: from: a tcp route begins with tcp+https://" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: tcp://c\n",
      "c.yaml:7:5: to: expected tcp://host:port" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: tcp://c:22/d\n",
      "c.yaml:7:5: to: expected tcp://host:port" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: http://c:22\n",
      "c.yaml:6:5: to: a tcp route leads to tcp://host:port or unix:/path" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: tcp://c:22\n    prefix: /x\n",
      "c.yaml:8:5: \"prefix\" has no meaning on a tcp route" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: tcp://c:22\n"
            "    set_request_headers: {A: b}\n",
      "c.yaml:8:5: \"set_request_headers\" has no meaning on a tcp route" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    redirect: {https_redirect: true}\n",
      "c.yaml:7:5: \"redirect\" has no meaning on a tcp route" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: tcp://c:22\n"
            "    health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, "
            "healthy_threshold: 1, http_health_check: {path: /}}]\n",
      "c.yaml:6:5: health_checks: a tcp route has a tcp_health_check" },
    { HEAD2 "routes:\n  - from: tcp+https://a.b:22\n    to: tcp://c:22\n"
            "  - from: tcp+https://d.e/A.b:22\n    to: tcp://f:22\n",
      "c.yaml:8:5: the tunnel to a.b:22 is the one of the route at line 6 already" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: tcp://c\n",
      "c.yaml:7:5: to: expected tcp://host:port" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    allow_upgrades: [H2C]\n",
      "c.yaml:6:5: allow_upgrades: nobody upgrades to h2c" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: tcp://c:1\n",
      "c.yaml:6:5: to: tcp:// belongs to a route whose \"from\" begins with" },
};

static bool names(const struct config_errors *errors, const char *error)
{
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        if (sv_starts(sv_from(config_errors_text(errors, i)), sv_from(error))) {
            return true;
        }
    }
    return false;
}

static void what_makes_no_sense_is_refused_with_its_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct config *config = NULL;
        struct config_errors *errors = NULL;

        if (config_parse(sv_from(refused[i].yaml), &opts, &config, &errors) == ERR_OK) {
            fail_msg("not refused: %s", refused[i].yaml);
        }
        if (!names(errors, refused[i].error)) {
            fail_msg("%s\nsays: %s", refused[i].yaml, config_errors_text(errors, 0));
        }
        config_errors_free(&errors);
    }
}

static void tunnels_are_read(void **state)
{
    struct config *c =
        good(HEAD2 "routes:\n  - {from: tcp+https://SSH.a.com.:22, to: tcp://10.0.0.1:22}\n"
                   "  - {from: 'tcp+https://bastion.a.com/[::1]:5432',"
                   " to: ['tcp://b:5432,1', 'tcp://c:80,3'], timeout: 8h}\n"
                   "  - {from: tcp+https://Bastion.a.com:8443/db:80, to: 'unix:/run/db.sock'}\n");
    const struct config_route *r = c->routes;

    (void)state;
    assert_int_equal(r[0].kind, CONFIG_ROUTE_TCP);
    assert_string_equal(r[0].from.p, "tcp+https://ssh.a.com:22");
    assert_string_equal(r[0].host.p, "ssh.a.com");
    assert_int_equal(r[0].port, 0);
    assert_string_equal(r[0].tunnel.p, "ssh.a.com:22");
    assert_int_equal(r[0].upstreams[0].url.scheme, CONFIG_SCHEME_TCP);
    assert_string_equal(r[0].upstreams[0].url.text.p, "tcp://10.0.0.1:22");
    assert_int_equal(r[0].tunnel_idle_ms, 0);
    assert_int_equal(r[0].timeout_ms, 0);
    assert_int_equal(r[0].tell, 0);
    assert_string_equal(r[1].from.p, "tcp+https://bastion.a.com/[::1]:5432");
    assert_string_equal(r[1].tunnel.p, "[::1]:5432");
    assert_string_equal(r[1].upstreams[1].url.text.p, "tcp://c:80");
    assert_int_equal(r[1].upstreams[1].weight, 3);
    assert_int_equal(r[1].timeout_ms, 28800000);
    assert_string_equal(r[2].host.p, "bastion.a.com");
    assert_int_equal(r[2].port, 8443);
    assert_string_equal(r[2].tunnel.p, "db:80");
    assert_int_equal(r[2].upstreams[0].url.scheme, CONFIG_SCHEME_UNIX);
    config_unref(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_makes_no_sense_is_refused_with_its_place),
        cmocka_unit_test(tunnels_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
