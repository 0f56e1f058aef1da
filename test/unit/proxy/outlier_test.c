/* outlier, health, claim: runs of failures, what an ejection lasts, when a check turns, what the bounds
 * of a cluster let through. Time and chance are the test's. */
#include "proxy/outlier.h"

#include <netinet/in.h>
#include <string.h>

#include "common/mem.h"
#include "proxy/claim.h"
#include "proxy/health.h"
#include "test/support/cmocka.h"

#define SECOND INT64_C(1000)

static const struct config_outlier envoy = { .on = true,
                                             .consecutive_5xx = 5,
                                             .consecutive_gateway_failure = 3,
                                             .enforcing_consecutive_5xx = 100,
                                             .enforcing_consecutive_gateway_failure = 100,
                                             .interval_ms = 10 * SECOND,
                                             .base_ejection_ms = 30 * SECOND,
                                             .max_ejection_ms = 100 * SECOND,
                                             .max_ejection_percent = 50 };

static struct proxy_target *new_target(void)
{
    const struct config_url url = { .text = SV("http://10.0.0.1"),
                                    .scheme = CONFIG_SCHEME_HTTP,
                                    .host = SV("10.0.0.1"),
                                    .port = 80 };
    struct proxy_target *target = NULL;
    struct diag d = { .line = 0 };

    assert_int_equal(proxy_target_new(&url, NULL, &target, &d), ERR_OK);
    return target;
}

static struct proxy_endpoint *new_endpoint(void)
{
    struct proxy_target *target = new_target();
    struct proxy_sockaddr address;
    struct proxy_endpoint *e = NULL;

    assert_true(proxy_target_literal(target, &address));
    e = proxy_endpoint_new(target, &address, 1);
    proxy_target_unref(&target);
    return e;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* Statuses one after the other, and what each leads to: - nothing, 5 or g the rule. */
static const struct {
    const char *name;
    unsigned statuses[12];
    const char *rules;
} runs[] = {
    { "five in a row", { 500, 500, 500, 500, 500 }, "----5" },
    { "a good one between", { 500, 500, 200, 500, 500, 500, 500, 500 }, "-------5" },
    { "404 is good", { 500, 500, 500, 500, 404, 500 }, "------" },
    { "gateways first", { 503, 502, 504, 503 }, "--g-" },
    { "500 ends a run of gateways", { 503, 502, 500, 503, 502, 504 }, "----5g" },
    { "again after the next five",
      { 500, 500, 500, 500, 500, 500, 500, 500, 500, 500 },
      "----5----5" },
};

static char letter_of(enum proxy_outlier_rule rule)
{
    return rule == PROXY_OUTLIER_NONE ? '-' : rule == PROXY_OUTLIER_5XX ? '5' : 'g';
}

static void a_run_is_reported_when_it_reaches_its_length(void **state)
{
    size_t i = 0;
    size_t k = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(runs); i++) {
        struct proxy_endpoint *e = new_endpoint();
        char got[16] = "";

        for (k = 0; runs[i].statuses[k] != 0; k++) {
            got[k] =
                letter_of(proxy_outlier_note(&envoy, e, proxy_outcome_of(runs[i].statuses[k])));
        }
        print_message("%s\n", runs[i].name);
        assert_string_equal(got, runs[i].rules);
        proxy_endpoint_unref(&e);
    }
}

static void a_length_of_zero_is_never_reached(void **state)
{
    struct config_outlier conf = envoy;
    struct proxy_endpoint *e = new_endpoint();
    int i = 0;

    (void)state;
    conf.consecutive_5xx = 0;
    conf.consecutive_gateway_failure = 0;
    for (i = 0; i < 100; i++) {
        assert_int_equal(proxy_outlier_note(&conf, e, PROXY_OUTCOME_GATEWAY), PROXY_OUTLIER_NONE);
    }
    conf = envoy;
    conf.on = false;
    for (i = 0; i < 100; i++) {
        assert_int_equal(proxy_outlier_note(&conf, e, PROXY_OUTCOME_GATEWAY), PROXY_OUTLIER_NONE);
    }
    proxy_endpoint_unref(&e);
}

/* ---- ejections ------------------------------------------------------------------------------- */

static struct proxy_outlier_case at(int64_t now_ms, size_t n_out, size_t n_all)
{
    return (struct proxy_outlier_case){
        .rule = PROXY_OUTLIER_5XX, .n_out = n_out, .n_all = n_all, .now_ms = now_ms
    };
}

static void ejections_grow_and_are_forgotten(void **state)
{
    struct proxy_ejection e = { .out = false };
    struct proxy_outlier_case c = at(0, 0, 4);

    (void)state;
    assert_true(proxy_outlier_eject(&e, &envoy, &c));
    assert_int_equal(e.until_ms, 30 * SECOND);
    assert_false(proxy_outlier_eject(&e, &envoy, &c)); /* it is out */
    assert_false(proxy_outlier_sweep(&e, 30 * SECOND - 1));
    assert_true(proxy_outlier_sweep(&e, 30 * SECOND));
    c = at(40 * SECOND, 0, 4);
    assert_true(proxy_outlier_eject(&e, &envoy, &c));
    assert_int_equal(e.until_ms, 100 * SECOND); /* 60 s: the second time */
    assert_true(proxy_outlier_sweep(&e, 100 * SECOND));
    c = at(200 * SECOND, 0, 4);
    assert_true(proxy_outlier_eject(&e, &envoy, &c));
    assert_int_equal(e.until_ms, 290 * SECOND); /* 90 s */
    assert_true(proxy_outlier_sweep(&e, 290 * SECOND));
    c = at(300 * SECOND, 0, 4);
    assert_true(proxy_outlier_eject(&e, &envoy, &c));
    assert_int_equal(e.until_ms, 400 * SECOND); /* never more than max_ejection_time */
    assert_true(proxy_outlier_sweep(&e, 400 * SECOND));
    assert_false(proxy_outlier_sweep(&e, 410 * SECOND)); /* four intervals inside forget four */
    assert_false(proxy_outlier_sweep(&e, 420 * SECOND));
    assert_false(proxy_outlier_sweep(&e, 430 * SECOND));
    assert_false(proxy_outlier_sweep(&e, 440 * SECOND));
    assert_int_equal(e.times, 0);
    assert_false(proxy_outlier_sweep(&e, 450 * SECOND));
    assert_int_equal(e.times, 0);
}

static void no_more_than_the_percentage_is_ejected(void **state)
{
    static const struct {
        size_t n_out;
        size_t n_all;
        unsigned percent;
        bool ejected;
    } rows[] = {
        { 0, 2, 10, true },  { 1, 2, 10, false }, { 0, 1, 10, true },   { 1, 10, 10, false },
        { 0, 10, 0, false }, { 4, 10, 50, true }, { 5, 10, 50, false }, { 9, 10, 100, true },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct config_outlier conf = envoy;
        struct proxy_ejection e = { .out = false };
        const struct proxy_outlier_case c = at(0, rows[i].n_out, rows[i].n_all);

        conf.max_ejection_percent = (uint16_t)rows[i].percent;
        assert_int_equal(proxy_outlier_eject(&e, &conf, &c), rows[i].ejected);
    }
}

static void a_rule_is_enforced_as_often_as_it_says(void **state)
{
    struct config_outlier conf = envoy;
    unsigned ejected = 0;
    uint32_t chance = 0;

    (void)state;
    conf.enforcing_consecutive_5xx = 30;
    for (chance = 0; chance < 1000; chance++) {
        struct proxy_ejection e = { .out = false };
        struct proxy_outlier_case c = at(0, 0, 4);

        c.enforce = chance;
        ejected += proxy_outlier_eject(&e, &conf, &c) ? 1 : 0;
    }
    assert_int_equal(ejected, 300);
}

static void jitter_is_added_at_most_whole(void **state)
{
    struct config_outlier conf = envoy;
    struct proxy_ejection e = { .out = false };
    struct proxy_outlier_case c = at(0, 0, 4);

    (void)state;
    conf.max_ejection_jitter_ms = 5 * SECOND;
    c.jitter = UINT32_MAX;
    assert_true(proxy_outlier_eject(&e, &conf, &c));
    assert_int_equal(e.until_ms, 35 * SECOND);
}

/* ---- health ---------------------------------------------------------------------------------- */

/* p passed, f failed, r refused; and the state after each: + fit, - unfit. */
static const struct {
    const char *results;
    const char *states;
} turns[] = {
    { "p", "+" },       { "f", "-" },           { "r", "-" },       { "pffp", "++++" },
    { "pfff", "+++-" }, { "pffpff", "++++++" }, { "pr", "+-" },     { "ppp", "+++" },
    { "fppp", "--++" }, { "fpfpp", "----+" },   { "prpp", "+--+" }, { "pfffppf", "+++--++" },
};

static enum proxy_health_result result_of(char letter)
{
    if (letter == 'p') {
        return PROXY_HEALTH_PASSED;
    }
    return letter == 'f' ? PROXY_HEALTH_FAILED : PROXY_HEALTH_REFUSED;
}

static void checks_turn_at_their_thresholds(void **state)
{
    const struct config_health_check conf = { .unhealthy_threshold = 3, .healthy_threshold = 2 };
    size_t i = 0;
    size_t k = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(turns); i++) {
        struct proxy_health h = { .state = PROXY_HEALTH_UNKNOWN };
        char got[16] = "";

        for (k = 0; turns[i].results[k] != '\0'; k++) {
            enum proxy_health_state before = h.state;
            bool turned = proxy_health_step(&h, &conf, result_of(turns[i].results[k]));

            assert_int_equal(turned, before != h.state);
            got[k] = h.state == PROXY_HEALTH_FIT ? '+' : '-';
        }
        print_message("%s\n", turns[i].results);
        assert_string_equal(got, turns[i].states);
    }
}

static void checks_wait_their_interval_and_jitter(void **state)
{
    const struct config_health_check conf = { .interval_ms = 1000,
                                              .initial_jitter_ms = 500,
                                              .interval_jitter_ms = 100,
                                              .interval_jitter_percent = 20 };

    (void)state;
    assert_int_equal(proxy_health_wait_ms(&conf, true, 0), 0);
    assert_int_equal(proxy_health_wait_ms(&conf, true, UINT32_MAX), 500);
    assert_int_equal(proxy_health_wait_ms(&conf, false, 0), 1000);
    assert_int_equal(proxy_health_wait_ms(&conf, false, UINT32_MAX), 1300);
}

static void statuses_are_expected_as_listed(void **state)
{
    struct config_statuses list[] = { { 200, 299 }, { 404, 404 } };
    struct config_health_check conf = { .timeout_ms = 1 };

    (void)state;
    assert_true(proxy_health_expects(&conf, 200));
    assert_false(proxy_health_expects(&conf, 204));
    conf.statuses = list;
    conf.n_statuses = 2;
    assert_true(proxy_health_expects(&conf, 299));
    assert_true(proxy_health_expects(&conf, 404));
    assert_false(proxy_health_expects(&conf, 300));
    assert_false(proxy_health_expects(&conf, 0));
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static struct proxy_cluster *new_cluster(const struct config_cluster *conf)
{
    static const struct config_url url = { .text = { "http://10.0.0.1", 15 },
                                           .scheme = CONFIG_SCHEME_HTTP,
                                           .host = { "10.0.0.1", 8 },
                                           .port = 80 };
    struct proxy_cluster *cluster = NULL;
    struct diag d = { .line = 0 };

    assert_int_equal(proxy_clusters_make(NULL,
                                         &(struct proxy_cluster_opts){
                                             .id = 1,
                                             .id_text = SV("r"),
                                             .urls = (const struct config_url *[]){ &url },
                                             .weights = (const uint32_t[]){ 1 },
                                             .n = 1,
                                             .conf = conf },
                                         &cluster, &d),
                     ERR_OK);
    return cluster;
}

static void bounds_hold_and_claims_give_back(void **state)
{
    const struct config_cluster conf = { .limits = { .max_requests = 2, .max_retries = 1 } };
    struct proxy_cluster *cluster = new_cluster(&conf);
    struct proxy_view *view = &cluster->views[0];
    struct proxy_claim c[3] = { { .cluster = NULL } };
    const struct proxy_endpoint *e = view->table->endpoints[0];

    (void)state;
    assert_null(proxy_claim_begin(&c[0], cluster, 0));
    assert_null(proxy_claim_begin(&c[1], cluster, 0));
    assert_string_equal(proxy_claim_begin(&c[2], cluster, 0), "upstream-max-requests");
    assert_true(proxy_claim_choose(&c[0], view));
    assert_true(proxy_claim_choose(&c[0], view)); /* again: counted once */
    assert_true(proxy_claim_choose(&c[1], view));
    assert_int_equal(e->active, 2);
    assert_true(proxy_claim_retry(&c[0]));
    assert_true(proxy_claim_retry(&c[0]));
    assert_false(proxy_claim_retry(&c[1]));
    proxy_claim_end(&c[0]);
    proxy_claim_end(&c[0]);
    assert_true(proxy_claim_retry(&c[1]));
    assert_null(proxy_claim_begin(&c[2], cluster, 0));
    proxy_claim_end(&c[1]);
    proxy_claim_end(&c[2]);
    assert_int_equal(e->active, 0);
    assert_int_equal(cluster->n_requests, 0);
    assert_int_equal(cluster->n_retries, 0);
    proxy_cluster_unref(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_reported_when_it_reaches_its_length),
        cmocka_unit_test(a_length_of_zero_is_never_reached),
        cmocka_unit_test(ejections_grow_and_are_forgotten),
        cmocka_unit_test(no_more_than_the_percentage_is_ejected),
        cmocka_unit_test(a_rule_is_enforced_as_often_as_it_says),
        cmocka_unit_test(jitter_is_added_at_most_whole),
        cmocka_unit_test(checks_turn_at_their_thresholds),
        cmocka_unit_test(checks_wait_their_interval_and_jitter),
        cmocka_unit_test(statuses_are_expected_as_listed),
        cmocka_unit_test(bounds_hold_and_claims_give_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
