/* snapshot: which route a request belongs to, and what the snapshot derives from a configuration. */
#include "proxy/snapshot.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "test/support/cmocka.h"

#define HEAD                                                           \
    "insecure_server: true\n"                                          \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"    \
    "authenticate_service_url: https://login.example.com\n"            \
    "authenticate_internal_service_url: unix:/run/authenticate.sock\n" \
    "authenticate_grpc_url: unix:/run/authenticate-grpc.sock\n"        \
    "authorize_service_url: unix:/run/authorize.sock\n"                \
    "databroker_service_url: unix:/run/databroker.sock\n"              \
    "idp_provider: local\n"                                            \
    "idp_local_users_file: /etc/hosts\n"                               \
    "routes:\n"

static const char routes[] = HEAD
    "  - {from: https://a.example.com, path: /exact, to: http://10.0.0.1, name: exact}\n"
    "  - {from: https://a.example.com, prefix: /app/, to: http://10.0.0.2, name: app}\n"
    "  - {from: https://a.example.com, regex: '/item/[0-9]+|/thing', to: http://10.0.0.3, name: "
    "regex}\n"
    "  - {from: https://a.example.com, to: http://10.0.0.4, name: rest}\n"
    "  - {from: https://a.example.com, prefix: /late/, to: http://10.0.0.5, name: never}\n"
    "  - {from: https://port.example.com:8443, to: http://10.0.0.6, name: port}\n"
    "  - {from: https://*.wild.example.com, to: http://10.0.0.7, name: wild}\n"
    "  - {from: https://x.wild.example.com, to: http://10.0.0.8, name: x}\n"
    "  - {from: https://part.wild.example.com, prefix: /api/, to: http://10.0.0.9, name: part}\n"
    "  - {from: https://ported.wild.example.com:8443, to: http://10.0.0.10, name: ported}\n"
    "  - {from: https://std.example.com:443, to: http://10.0.0.11, name: std}\n"
    "  - {from: https://turn.example.com, to: [http://10.0.1.1, http://10.0.1.2, "
    "http://10.0.1.3], name: turn}\n";

static struct proxy_snapshot *make(const char *text)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct proxy_snapshot *s = NULL;
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];

    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    if (proxy_snapshot_new(config, NULL, &s, &d) != ERR_OK) {
        fail_msg("%s", diag_format(&d, line));
    }
    config_unref(&config);
    return s;
}

struct row {
    const char *host;
    uint16_t port;
    const char *path;
    const char *name; /* NULL: no route */
};

static const struct row rows[] = {
    { "a.example.com", 0, "/exact", "exact" },
    { "a.example.com", 0, "/exact/", "rest" },
    { "a.example.com", 0, "/exactly", "rest" },
    { "a.example.com", 443, "/app/x", "app" },
    { "a.example.com", 9999, "/app/", "app" },
    { "a.example.com", 0, "/app", "rest" },
    { "a.example.com", 0, "/application", "rest" },
    { "a.example.com", 0, "/item/17", "regex" },
    { "a.example.com", 0, "/item/", "rest" },
    { "a.example.com", 0, "/item/17/x", "rest" },
    { "a.example.com", 0, "/thing", "regex" },
    { "a.example.com", 0, "/thing2", "rest" },
    { "a.example.com", 0, "/x/thing", "rest" },
    { "a.example.com", 0, "/item/17\n", "rest" },
    { "a.example.com", 0, "/late/x", "rest" }, /* file order */
    { "port.example.com", 8443, "/", "port" },
    { "port.example.com", 0, "/", NULL },
    { "port.example.com", 8444, "/", NULL },
    { "std.example.com", 0, "/", "std" }, /* browsers leave the scheme's own port out */
    { "std.example.com", 443, "/", "std" },
    { "y.wild.example.com", 0, "/", "wild" },
    { "x.wild.example.com", 0, "/", "x" }, /* exact before wildcard, whatever the order */
    { "a.b.wild.example.com", 0, "/", "wild" },
    { "part.wild.example.com", 0, "/api/x", "part" },
    { "part.wild.example.com", 0, "/admin",
      NULL }, /* a host with routes of its own has no others */
    { "ported.wild.example.com", 8443, "/", "ported" },
    { "ported.wild.example.com", 443, "/", "wild" }, /* on this port it has none of its own */
    { "wild.example.com", 0, "/", NULL },
    { "evilwild.example.com", 0, "/", NULL },
    { "x.wild.example.com.evil.com", 0, "/", NULL },
    { "unknown.example.com", 0, "/", NULL },
    { "", 0, "/", NULL },
    { "a.example.com", 0, "*", NULL },
};

static void test_the_first_route_that_fits_is_taken(void **state)
{
    struct proxy_snapshot *s = make(routes);
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        bool unclear = false;
        const struct config_route *route = route_table_find(
            s->table, sv_from(rows[i].host), rows[i].port, sv_from(rows[i].path), &unclear);
        struct sv name = route == NULL ? SV("(none)") : route->name;

        if (!sv_eq(name, sv_from(rows[i].name == NULL ? "(none)" : rows[i].name))) {
            fail_msg("%s:%u%s gives %.*s", rows[i].host, rows[i].port, rows[i].path, SV_ARG(name));
        }
    }
    proxy_snapshot_unref(&s);
}

/* Java servers cut ";x" off a segment: such a path must not slip past a route to a more open one. */
static void test_a_path_parameter_never_changes_the_route(void **state)
{
    static const char *const refused[] = { "/exact;x", "/exact;x=1", "/app;x/y", "/item/1;2",
                                           "/thing;" };
    static const char *const kept[] = { "/other;x=1", "/app/y;v=1", "/a;b/c;d" };
    struct proxy_snapshot *s = make(routes);
    bool unclear = false;
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(refused); i++) {
        if (route_table_find(s->table, SV("a.example.com"), 0, sv_from(refused[i]), &unclear) !=
                NULL ||
            !unclear) {
            fail_msg("%s passes", refused[i]);
        }
    }
    for (i = 0; i < ARRAY_LEN(kept); i++) {
        if (route_table_find(s->table, SV("a.example.com"), 0, sv_from(kept[i]), &unclear) ==
                NULL ||
            unclear) {
            fail_msg("%s is refused", kept[i]);
        }
    }
    proxy_snapshot_unref(&s);
}

static void test_hosts_are_known_with_and_without_wildcard(void **state)
{
    struct proxy_snapshot *s = make(routes);

    (void)state;
    assert_true(route_table_has_host(s->table, SV("a.example.com")));
    assert_true(route_table_has_host(s->table, SV("q.wild.example.com")));
    assert_false(route_table_has_host(s->table, SV("example.com")));
    assert_false(route_table_has_host(s->table, SV("")));
    proxy_snapshot_unref(&s);
}

static void test_upstreams_take_turns(void **state)
{
    struct proxy_snapshot *s = make(routes);
    bool unclear = false;
    struct proxy_route *route = proxy_snapshot_route(
        s, route_table_find(s->table, SV("turn.example.com"), 0, SV("/"), &unclear));
    struct proxy_view *view = NULL;
    unsigned seen[3] = { 0 };
    unsigned i = 0;

    (void)state;
    assert_non_null(route);
    view = &route->cluster->views[0];
    assert_int_equal(view->table->n, 3);
    for (i = 0; i < 30; i++) {
        const struct proxy_endpoint *e = proxy_table_pick(view->table, &view->cursor, 0, NULL);

        seen[e->text[strlen("10.0.1.")] - '1']++;
    }
    assert_int_equal(seen[0], 10);
    assert_int_equal(seen[1], 10);
    assert_int_equal(seen[2], 10);
    proxy_snapshot_unref(&s);
}

static const struct proxy_target *target_of(const struct proxy_snapshot *s, size_t route)
{
    const struct proxy_view *view = &s->routes[route].cluster->views[0];

    assert_int_equal(view->table->n, 1);
    return view->table->endpoints[0]->target;
}

/* What two connections must have in common to be exchanged for each other. */
static void test_pools_are_parted_by_address_name_and_trust(void **state)
{
    struct proxy_snapshot *s =
        make(HEAD "  - {from: https://a.example.com, to: https://10.0.0.1}\n"
                  "  - {from: https://b.example.com, to: https://10.0.0.1}\n"
                  "  - {from: https://c.example.com, to: https://10.0.0.1, tls_skip_verify: true}\n"
                  "  - {from: https://d.example.com, to: https://10.0.0.1, "
                  "tls_upstream_server_name: other.example.com}\n"
                  "  - {from: https://e.example.com, to: https://10.0.0.1:8443}\n"
                  "  - {from: https://f.example.com, to: http://10.0.0.1}\n");
    size_t i = 0;
    size_t k = 0;

    (void)state;
    assert_string_equal(target_of(s, 0)->key, target_of(s, 1)->key);
    for (i = 1; i < s->n_routes; i++) {
        for (k = i + 1; k < s->n_routes; k++) {
            assert_string_not_equal(target_of(s, i)->key, target_of(s, k)->key);
        }
    }
    assert_true(target_of(s, 0)->verify);
    assert_false(target_of(s, 2)->verify);
    assert_string_equal(target_of(s, 3)->server_name, "other.example.com");
    assert_string_equal(target_of(s, 4)->host_header, "10.0.0.1:8443");
    assert_null(target_of(s, 5)->tls);
    proxy_snapshot_unref(&s);
}

static void test_fields_we_speak_for_are_known_in_every_spelling(void **state)
{
    static const char *const ours[] = { "X-Pomerium-Jwt-Assertion",
                                        "x_pomerium_jwt_assertion",
                                        "X-POMERIUM-Claim_Email",
                                        "X-Pomerium-Anything",
                                        "X-Forwarded-For",
                                        "X-Forwarded-User",
                                        "x_forwarded_groups",
                                        "True-Client-IP",
                                        "x_forwarded_for",
                                        "X-Forwarded-Proto",
                                        "X_FORWARDED_HOST",
                                        "Forwarded",
                                        "X-Real-IP",
                                        "x_real_ip",
                                        "X-Request-Id",
                                        "X-Who",
                                        "x_who" };
    static const char *const foreign[] = { "Accept", "Cookie", "Authorization", "X-Whom",
                                           "X-Pome" };
    struct proxy_snapshot *s = make("jwt_claims_headers: {X-Who: email}\n" HEAD
                                    "  - {from: https://a.example.com, to: http://10.0.0.1}\n");
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(ours); i++) {
        if (!http_name_set_has(s->ours, sv_from(ours[i]))) {
            fail_msg("%s passes", ours[i]);
        }
    }
    for (i = 0; i < ARRAY_LEN(foreign); i++) {
        if (http_name_set_has(s->ours, sv_from(foreign[i]))) {
            fail_msg("%s is taken away", foreign[i]);
        }
    }
    assert_true(http_cookie_is_ours(&s->cookies.names, SV("__Host-_pomerium")));
    assert_true(http_cookie_is_ours(&s->cookies.names, SV("__Host-_pomerium_login")));
    assert_true(http_cookie_is_ours(&s->cookies.names, SV("_pomerium")));
    assert_false(http_cookie_is_ours(&s->cookies.names, SV("session")));
    proxy_snapshot_unref(&s);
}

static void test_many_hosts_are_found(void **state)
{
    enum { HOSTS = 2000 };
    CLEANUP(buf_deinit) struct buf text = { 0 };
    struct proxy_snapshot *s = NULL;
    unsigned i = 0;

    (void)state;
    buf_init(&text, 1 << 20);
    buf_add_str(&text, HEAD);
    for (i = 0; i < HOSTS; i++) {
        buf_printf(&text, "  - {from: https://h%u.example.com, to: http://10.0.0.1, name: n%u}\n",
                   i, i);
    }
    s = make(buf_cstr(&text));
    for (i = 0; i < HOSTS; i += 97) {
        char host[64];
        char name[16];
        const struct config_route *route = NULL;
        bool unclear = false;

        (void)snprintf(host, sizeof(host), "h%u.example.com", i);
        (void)snprintf(name, sizeof(name), "n%u", i);
        route = route_table_find(s->table, sv_from(host), 0, SV("/"), &unclear);
        assert_non_null(route);
        assert_true(sv_eq(route->name, sv_from(name)));
    }
    proxy_snapshot_unref(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_route_that_fits_is_taken),
        cmocka_unit_test(test_a_path_parameter_never_changes_the_route),
        cmocka_unit_test(test_hosts_are_known_with_and_without_wildcard),
        cmocka_unit_test(test_upstreams_take_turns),
        cmocka_unit_test(test_pools_are_parted_by_address_name_and_trust),
        cmocka_unit_test(test_fields_we_speak_for_are_known_in_every_spelling),
        cmocka_unit_test(test_many_hosts_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
