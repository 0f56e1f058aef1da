/* settle: a path with an escaped slash belongs to one route in both readings, or to none. */
#include "common/route/settle.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "common/pattern.h"
#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "routes:\n"
#define ROUTE(prefix, more)                                                                            \
    "  - {from: https://a.b, to: http://c, allow_public_unauthenticated_access: true, prefix: " prefix \
    ", " more "}\n"

static const char routes[] =
    HEAD ROUTE("/keep/", "path_with_escaped_slashes_action: keep_unchanged")
        ROUTE("/fwd/", "path_with_escaped_slashes_action: unescape_and_forward")
            ROUTE("/red/", "path_with_escaped_slashes_action: unescape_and_redirect")
                ROUTE("/admin/", "headers_with_underscores_action: allow")
                    ROUTE("/", "path_with_escaped_slashes_action: keep_unchanged, "
                               "headers_with_underscores_action: drop_header");

static const struct {
    const char *path;
    const char *forward; /* NULL: refused */
    bool redirect;
} rows[] = {
    { "/keep/a%2Fb", "/keep/a%2Fb", false }, { "/keep/a%5Cb", "/keep/a%5Cb", false },
    { "/fwd/a%2Fb", "/fwd/a/b", false },     { "/fwd/a%2F%2Fb", "/fwd/a/b", false },
    { "/red/a%2Fb", "/red/a/b", true },      { "/admin/a%2Fb", NULL, false }, /* its own word */
    { "/%2Fadmin/x", NULL, false },                                           /* "/" or "/admin/" */
    { "/admin%2Fx", NULL, false },                                            /* likewise */
    { "/x%2Fy", "/x%2Fy", false },                                            /* "/" in both */
    { "/.pomerium%2Fuser", NULL, false },    { "/%2F.pomerium/user", NULL, false },
};

static void both_readings_must_be_one_route(void **state)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config_errors *errors = NULL;
    struct config *config = NULL;
    struct route_table *table = NULL;
    struct http_canon_rules canon = { 0 };
    struct http_rules head = { 0 };

    (void)state;
    if (config_parse(sv_from(routes), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    table = route_table_new(config->routes, config->n_routes);
    route_settle_rules(config, &canon, &head);
    assert_int_equal(canon.escaped_slashes, HTTP_SLASH_KEEP);
    assert_int_equal(head.underscores, HTTP_UNDERSCORE_ALLOW);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_request req = { .host = SV("a.b"), .target = sv_from(rows[i].path) };
        struct arena arena;
        bool unclear = false;
        enum http_fault fault = HTTP_FAULT_NONE;

        arena_init(&arena);
        assert_int_equal(http_canon_path(req.target, &canon, &arena, &req.path, NULL),
                         HTTP_FAULT_NONE);
        http_canon_set_path(&req, req.path, &arena);
        assert_true(route_settle_needed(&req));
        fault =
            route_settle_path(table, route_table_find(table, req.host, 0, req.decoded, &unclear),
                              &canon, &arena, &req);
        if ((fault == HTTP_FAULT_NONE) != (rows[i].forward != NULL) ||
            (fault == HTTP_FAULT_NONE &&
             (!sv_eq(req.forward, sv_from(rows[i].forward)) || req.redirect != rows[i].redirect))) {
            fail_msg("%s: %s, %.*s", rows[i].path, http_fault_name(fault), SV_ARG(req.forward));
        }
        assert_int_equal(route_settle_path(table, NULL, &canon, &arena, &req),
                         HTTP_FAULT_PATH_SLASH);
        arena_deinit(&arena);
    }
    route_table_free(&table);
    config_unref(&config);
    pattern_thread_end();
}

static void one_action_for_all_is_applied_at_once(void **state)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config_errors *errors = NULL;
    struct config *config = NULL;
    struct http_canon_rules canon = { 0 };
    struct http_rules head = { 0 };

    (void)state;
    assert_int_equal(config_parse(SV(HEAD ROUTE("/a", "name: a") ROUTE("/b", "name: b")), &opts,
                                  &config, &errors),
                     ERR_OK);
    route_settle_rules(config, &canon, &head);
    assert_int_equal(canon.escaped_slashes, HTTP_SLASH_REJECT);
    assert_int_equal(head.underscores, HTTP_UNDERSCORE_REJECT);
    config_unref(&config);
}

static void marked_names_are_refused_dropped_or_passed(void **state)
{
    struct http_field fields[2] = { { .name = SV("X_A"), .flags = HTTP_F_UNDERSCORE },
                                    { .name = SV("X-B") } };
    struct http_head head = { .fields = fields, .n = 2 };

    (void)state;
    assert_int_equal(route_settle_names(&head, CONFIG_UNDERSCORES_ALLOW), HTTP_FAULT_NONE);
    assert_int_equal(fields[0].flags & HTTP_F_DROP, 0);
    assert_int_equal(route_settle_names(&head, CONFIG_UNDERSCORES_REJECT), HTTP_FAULT_UNDERSCORE);
    assert_int_equal(route_settle_names(&head, CONFIG_UNDERSCORES_DROP), HTTP_FAULT_NONE);
    assert_int_equal(fields[0].flags & HTTP_F_DROP, HTTP_F_DROP);
    assert_int_equal(fields[1].flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_readings_must_be_one_route),
        cmocka_unit_test(one_action_for_all_is_applied_at_once),
        cmocka_unit_test(marked_names_are_refused_dropped_or_passed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
