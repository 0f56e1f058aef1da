/* How a route spreads over its upstreams, as it is read; mistakes in it are in config_test.c. */
#include "common/config/config.h"
#include "test/support/cmocka.h"

#define HEAD2                                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "insecure_server: true\n"                                       \
    "authenticate_service_url: https://login.localhost\nidp_provider: local\n"

static struct config *good(const char *text)
{
    const struct config_opts opts = { .file = "/etc/postern/c.yaml",
                                      .part = CONFIG_PART_DATABROKER };
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("refused: %s", config_errors_text(errors, 0));
    }
    return config;
}

static void clusters_are_read_whole(void **state)
{
    struct config *c = good(
        HEAD2
        "circuit_breaker_thresholds: {max_requests: 7, max_retries: 0}\n"
        "dns_resolvers: [10.0.0.2, 'udp://10.0.0.3:5353', '2001:db8::1', "
        "'[2001:db8::2]:54']\n"
        "dns_lookup_family: all\n"
        "routes:\n"
        "  - from: https://a.b\n"
        "    to: ['http://c,3', 'http://d,1']\n"
        "    load_balancing_policy: MAGLEV\n"
        "    circuit_breaker_thresholds: {max_requests: 9}\n"
        "    health_checks:\n"
        "      - {timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 3,\n"
        "         http_health_check: {path: /up, expected_statuses: [{start: 200, end: "
        "300}]}}\n"
        "      - {timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 3,\n"
        "         tcp_health_check: {send: {text: '50494e47'}, receive: [{binary: UE9ORw==}]}}\n"
        "    outlier_detection: {consecutive_5xx: 3}\n"
        "  - from: https://e.f\n"
        "    to: http://g\n");
    const struct config_cluster *one = &c->routes[0].cluster;
    const struct config_cluster *two = &c->routes[1].cluster;

    (void)state;
    assert_int_equal(c->routes[0].upstreams[0].weight, 3);
    assert_int_equal(one->policy, CONFIG_BALANCE_MAGLEV);
    assert_int_equal(one->table_size, 65537);
    assert_int_equal(one->healthy_panic_threshold, 50);
    assert_int_equal(one->n_checks, 2);
    assert_int_equal(one->checks[0].statuses[0].last, 299);
    assert_int_equal(one->checks[1].kind, CONFIG_CHECK_TCP);
    assert_true(sv_eq(one->checks[1].send, SV("PING")));
    assert_true(sv_eq(one->checks[1].receive.v[0], SV("PONG")));
    assert_true(one->outlier.on);
    assert_int_equal(one->outlier.consecutive_5xx, 3);
    assert_int_equal(one->outlier.base_ejection_ms, 30000);
    assert_false(two->outlier.on);
    /* The route's own, then the global ones, then the defaults. */
    assert_int_equal(one->limits.max_requests, 9);
    assert_int_equal(two->limits.max_requests, 7);
    assert_int_equal(one->limits.max_retries, 0);
    assert_int_equal(one->limits.max_connections, 1024);
    assert_int_equal(c->dns.family, CONFIG_FAMILY_ALL);
    assert_int_equal(c->dns.resolvers.n, 4);
    assert_string_equal(c->dns.resolvers.v[0].p, "10.0.0.2:53");
    assert_string_equal(c->dns.resolvers.v[1].p, "10.0.0.3:5353");
    assert_string_equal(c->dns.resolvers.v[2].p, "[2001:db8::1]:53");
    assert_string_equal(c->dns.resolvers.v[3].p, "[2001:db8::2]:54");
    config_unref(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clusters_are_read_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
