/* verdict: what one evaluation of a policy costs, without transport and audit: a typical policy among
 * ten routes and among ten thousand, and a policy of ten thousand addresses. One JSON object on
 * standard output; nanoseconds are the least of many rounds, so that the machine's mood is no part of
 * them. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "authorize/rules.h"
#include "common/buf.h"
#include "common/mem.h"

enum { FEW = 10, MANY = 10000, ADDRESSES = 10000, CALLS = 20000, ROUNDS = 41, TEXT_MAX = 1 << 26 };

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "authenticate_service_url: https://login.localhost\n"           \
    "routes:\n"

struct stage {
    struct config *config;
    struct authz_rules *rules;
};

static void add_route(struct buf *text, int i)
{
    buf_printf(text,
               "  - from: https://r%d.localhost\n    to: http://127.0.0.1:1\n    policy:\n"
               "      - allow:\n          or:\n",
               i);
}

/* Three addresses, two groups, one rule about the path: the last one fits. */
static void add_typical(struct buf *text, int i)
{
    add_route(text, i);
    buf_printf(text,
               "            - email: {is: a%d@example.com}\n"
               "            - email: {is: b%d@example.com}\n"
               "            - email: {is: c%d@example.com}\n"
               "            - groups: {has: admins}\n"
               "            - groups: {has: staff}\n"
               "      - deny:\n          or:\n"
               "            - http_path: {starts_with: /internal/}\n",
               i, i, i);
}

static void add_large(struct buf *text, int i)
{
    add_route(text, i);
    buf_add_str(text, "            - email:\n                in:\n");
    for (int k = 0; k < ADDRESSES; k++) {
        buf_printf(text, "                  - person%d@example.com\n", k);
    }
}

/* n routes, the last of them with the large policy. */
static struct stage stage_of(int n)
{
    const struct config_opts opts = { .file = "/bench.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct config_errors *errors = NULL;
    struct stage s = { .config = NULL };
    struct diag d = { .line = 0 };
    struct buf text;

    buf_init(&text, TEXT_MAX);
    buf_add_str(&text, HEAD);
    for (int i = 0; i < n - 1; i++) {
        add_typical(&text, i);
    }
    add_large(&text, n - 1);
    CHECK(text.err == ERR_OK);
    CHECK(config_parse(buf_sv(&text), &opts, &s.config, &errors) == ERR_OK);
    CHECK(authz_rules_new(s.config, NULL, &s.rules, &d) == ERR_OK);
    buf_deinit(&text);
    return s;
}

static double now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* One check as authorize makes it: the route by its id, its policy, the verdict. */
static void ask(const struct stage *s, uint64_t id, const struct policy_input *in)
{
    const struct config_route *route = config_route_by_id(s->config, id);
    struct policy_verdict verdict = { .outcome = POLICY_DENY };

    CHECK(route != NULL);
    policy_eval(authz_rules_policy(s->rules, route), in, &verdict);
    CHECK(verdict.outcome == POLICY_ALLOW);
}

/* The least time of a check over the first n routes. */
static double least_ns(const struct stage *s, size_t from, size_t n, const struct policy_input *in)
{
    double least = 0;

    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        double each = 0;

        for (size_t i = 0; i < CALLS; i++) {
            ask(s, s->config->routes[from + i % n].id, in);
        }
        each = (now_ns() - start) / CALLS;
        least = round == 0 ? each : MIN(least, each);
    }
    return least;
}

int main(void)
{
    struct stage few = stage_of(FEW);
    struct stage many = stage_of(MANY);
    struct policy_text groups[] = { policy_text_of(SV("devs")), policy_text_of(SV("staff")) };
    struct policy_input in = { .session = true,
                               .directory = true,
                               .method = SV("GET"),
                               .path = SV("/reports/2026"),
                               .user_id = policy_text_of(SV("local/person9999@example.com")),
                               .email = policy_text_of(SV("person9999@example.com")),
                               .groups = groups,
                               .group_count = ARRAY_LEN(groups) };
    size_t before = 0;
    double typical = least_ns(&few, 0, 1, &in);
    double among_many = least_ns(&many, MANY / 2, 1, &in);
    double large = least_ns(&many, MANY - 1, 1, &in);
    double every = least_ns(&many, 0, MANY, &in);

    before = mallinfo2().uordblks;
    ask(&many, many.config->routes[0].id, &in);
    printf("{\"typical_ns\": %.1f, \"among_many_ns\": %.1f, \"large_ns\": %.1f, "
           "\"every_route_ns\": %.1f, \"allocated\": %zd}\n",
           typical, among_many, large, every, (ssize_t)(mallinfo2().uordblks - before));
    authz_rules_free(&few.rules);
    authz_rules_free(&many.rules);
    config_unref(&few.config);
    config_unref(&many.config);
    return 0;
}
