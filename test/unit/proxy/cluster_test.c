/* cluster: what a reload keeps of a route's upstreams, and what it makes anew. */
#include "proxy/cluster.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "proxy/snapshot.h"
#include "test/support/cmocka.h"

#define HEAD                                                           \
    "insecure_server: true\n"                                          \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"    \
    "authenticate_service_url: https://login.example.com\n"            \
    "authenticate_internal_service_url: unix:/run/authenticate.sock\n" \
    "idp_provider: local\n"                                            \
    "idp_local_users_file: /etc/hosts\n"                               \
    "routes:\n  - from: https://a.example.com\n"

#define TO "    to: ['http://10.0.0.1,1', 'http://10.0.0.2,2']\n"
#define HEALTH(set) \
    "    health_checks: [{timeout: 1s, interval: 1h, initial_jitter: 1h, " set "}]\n"

struct world {
    struct loop *loop;
    struct proxy_clusters *clusters;
    struct proxy_snapshot *now;
};

static struct proxy_snapshot *load(struct world *w, const char *routes)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct proxy_snapshot *s = NULL;
    struct diag d = { .line = 0 };
    char text[4096];

    (void)snprintf(text, sizeof(text), HEAD "%s", routes);
    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    assert_int_equal(proxy_snapshot_new(config, w->clusters, &s, &d), ERR_OK);
    config_unref(&config);
    return s;
}

static struct world world_new(const char *routes)
{
    static const struct config_dns dns = {
        .query_timeout_ms = 100, .query_tries = 1, .refresh_ms = 1000, .failure_refresh_ms = 1000
    };
    struct world w = { .loop = loop_new() };

    w.clusters = proxy_clusters_new(w.loop, 2, &dns);
    w.now = load(&w, routes);
    proxy_snapshot_commit(w.now, w.clusters);
    return w;
}

static void world_free(struct world *w)
{
    proxy_snapshot_unref(&w->now);
    proxy_clusters_free(&w->clusters);
    loop_free(&w->loop);
}

static const struct proxy_table *table_of(const struct proxy_snapshot *s)
{
    return s->routes[0].cluster->views[1].table;
}

static const char base[] = TO HEALTH("unhealthy_threshold: 1, healthy_threshold: 1, "
                                     "http_health_check: {path: /a}");

static void a_reload_that_changes_nothing_keeps_the_cluster(void **state)
{
    struct world w = world_new(base);
    struct proxy_snapshot *same = load(&w, base);
    struct proxy_snapshot *more = load(
        &w,
        TO HEALTH(
            "unhealthy_threshold: 1, healthy_threshold: 1, "
            "http_health_check: {path: /a}") "    name: x\n"
                                             "  - {from: https://b.example.com, to: http://10.0.0.3}\n");

    (void)state;
    assert_ptr_equal(same->routes[0].cluster, w.now->routes[0].cluster);
    assert_ptr_equal(same->authenticate.cluster, w.now->authenticate.cluster);
    assert_ptr_equal(more->routes[0].cluster, w.now->routes[0].cluster);
    assert_ptr_not_equal(more->routes[1].cluster, w.now->routes[0].cluster);
    proxy_snapshot_unref(&same);
    proxy_snapshot_unref(&more);
    world_free(&w);
}

#define HTTP_CHECK(path) "unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: " path

static const char *const changes[] = {
    "    to: ['http://10.0.0.1,1', 'http://10.0.0.2,3']\n" HEALTH(HTTP_CHECK("{path: /a}")),
    "    to: ['http://10.0.0.1,1', 'h2c://10.0.0.2,2']\n" HEALTH(HTTP_CHECK("{path: /a}")),
    "    to: ['http://10.0.0.1,1']\n" HEALTH(HTTP_CHECK("{path: /a}")),
    TO,
    TO HEALTH(HTTP_CHECK("{path: /b}")),
    TO HEALTH(HTTP_CHECK("{path: /a, host: b}")),
    TO HEALTH(HTTP_CHECK("{path: /a, codec_client_type: HTTP2}")),
    TO HEALTH(HTTP_CHECK("{path: /a, expected_statuses: [{start: 200, end: 300}]}")),
    TO HEALTH("unhealthy_threshold: 2, healthy_threshold: 1, http_health_check: {path: /a}"),
    TO HEALTH("unhealthy_threshold: 1, healthy_threshold: 2, http_health_check: {path: /a}"),
    TO HEALTH("interval_jitter_percent: 5, " HTTP_CHECK("{path: /a}")),
    TO HEALTH("unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}"),
    TO HEALTH("unhealthy_threshold: 1, healthy_threshold: 1, grpc_health_check: {}"),
    TO HEALTH(HTTP_CHECK("{path: /a}")) "    load_balancing_policy: random\n",
    TO HEALTH(HTTP_CHECK("{path: /a}")) "    healthy_panic_threshold: 10\n",
    TO HEALTH(HTTP_CHECK("{path: /a}")) "    outlier_detection: {}\n",
    TO HEALTH(HTTP_CHECK("{path: /a}")) "    circuit_breaker_thresholds: {max_requests: 1}\n",
    TO HEALTH(HTTP_CHECK("{path: /a}")) "    maglev_lb_config: {table_size: 7}\n",
};

static void every_setting_that_changes_makes_another_with_the_endpoints_that_stay(void **state)
{
    struct world w = world_new(base);
    size_t i = 0;

    (void)state;
    assert_int_equal(table_of(w.now)->n, 2); /* nothing was asked yet: panic */
    for (i = 0; i < ARRAY_LEN(changes); i++) {
        struct proxy_snapshot *s = load(&w, changes[i]);

        print_message("%s", changes[i]);
        assert_ptr_not_equal(s->routes[0].cluster, w.now->routes[0].cluster);
        assert_ptr_equal(table_of(s)->endpoints[0], table_of(w.now)->endpoints[0]);
        proxy_snapshot_unref(&s);
    }
    world_free(&w);
}

static void an_endpoint_is_gone_when_no_cluster_in_force_has_it(void **state)
{
    struct world w = world_new(base);
    struct proxy_endpoint *stays = proxy_endpoint_ref(table_of(w.now)->endpoints[0]);
    struct proxy_endpoint *goes = proxy_endpoint_ref(table_of(w.now)->endpoints[1]);
    struct proxy_snapshot *s = load(&w, "    to: http://10.0.0.1\n");

    (void)state;
    assert_false(goes->gone); /* not in force yet */
    proxy_snapshot_commit(s, w.clusters);
    assert_true(goes->gone);
    assert_false(stays->gone);
    proxy_snapshot_unref(&w.now);
    w.now = s;
    world_free(&w);
    assert_true(stays->gone);
    proxy_endpoint_unref(&stays);
    proxy_endpoint_unref(&goes);
}

static void a_refused_configuration_leaves_everything_as_it_is(void **state)
{
    struct world w = world_new(base);
    struct proxy_snapshot *s = load(&w, "    to: http://10.0.0.9\n");

    (void)state;
    proxy_snapshot_unref(&s); /* never committed */
    assert_false(table_of(w.now)->endpoints[0]->gone);
    s = load(&w, base);
    assert_ptr_equal(s->routes[0].cluster, w.now->routes[0].cluster);
    proxy_snapshot_unref(&s);
    world_free(&w);
}

static void a_name_waits_for_its_addresses(void **state)
{
    struct world w = world_new("    to: http://name.example.com\n");

    (void)state;
    assert_int_equal(table_of(w.now)->n, 0);
    assert_false(table_of(w.now)->settled);
    world_free(&w);
    w = world_new("    to: http://name.localhost\n");
    assert_true(table_of(w.now)->settled);
    assert_string_equal(table_of(w.now)->endpoints[0]->text, "127.0.0.1:80");
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_that_changes_nothing_keeps_the_cluster),
        cmocka_unit_test(every_setting_that_changes_makes_another_with_the_endpoints_that_stay),
        cmocka_unit_test(an_endpoint_is_gone_when_no_cluster_in_force_has_it),
        cmocka_unit_test(a_refused_configuration_leaves_everything_as_it_is),
        cmocka_unit_test(a_name_waits_for_its_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
