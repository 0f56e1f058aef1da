/* table: the index finds what looking at one route after the other finds. */
#include "common/route/table.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "common/pattern.h"
#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "routes:\n"
#define PUBLIC "response: {status: 200}, allow_public_unauthenticated_access: true}\n"

struct fixture {
    struct config *config;
    struct route_table *table;
};

static struct fixture make(const char *text)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    struct config_errors *errors = NULL;
    struct fixture f = { 0 };

    if (config_parse(sv_from(text), &opts, &f.config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    f.table = route_table_new(f.config->routes, f.config->n_routes);
    return f;
}

static void drop(struct fixture *f)
{
    route_table_free(&f->table);
    config_unref(&f->config);
    pattern_thread_end();
}

static int found(const struct fixture *f, const char *host, uint16_t port, const char *path)
{
    bool unclear = false;
    const struct config_route *route =
        route_table_find(f->table, sv_from(host), port, sv_from(path), &unclear);

    return route == NULL ? (unclear ? -2 : -1) : (int)route->index;
}

/* ---- against the definition ------------------------------------------------------------------- */

static bool fits(const struct config_route *c, struct sv host, uint16_t port, struct sv path)
{
    if ((c->port != 0 && c->port != port) || !config_route_has_host(c, host)) {
        return false;
    }
    return c->match == CONFIG_MATCH_PREFIX ? sv_starts(path, c->match_value)
           : c->match == CONFIG_MATCH_PATH ? sv_eq(path, c->match_value)
                                           : pattern_fits(c->regex, path) == PATTERN_YES;
}

static int defined(const struct config *config, const char *host, uint16_t port, const char *path)
{
    struct sv name = sv_from(host);
    bool own = false;

    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *c = &config->routes[i];

        own |= !c->wildcard && sv_eq(c->host, name) && (c->port == 0 || c->port == port);
    }
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *c = &config->routes[i];

        if (c->wildcard != own && fits(c, name, port, sv_from(path))) {
            return (int)i;
        }
    }
    return -1;
}

static unsigned next(unsigned *seed, unsigned below)
{
    *seed = *seed * 1103515245U + 12345U;
    return (*seed >> 16U) % below;
}

static const char *const hosts[] = {
    "a.example.com",   "b.example.com", "*.example.com", "*.b.com", "x*.b.com", "*", "a*",
    "*.a.example.com", "c.b.com"
};
static const char *const paths[] = { "/",    "/a",     "/a/",  "/a/b", "/ab", "/a/b/c",
                                     "/b/c", "/a/b/d", "/abc", "/b",   "/c/" };
static const char *const asked[] = { "a.example.com", "b.example.com", "q.example.com",
                                     "x.b.com",       "c.b.com",       "q.a.example.com",
                                     "abc",           "b.com",         "" };

static void write_routes(struct buf *text, unsigned seed, unsigned n)
{
    static const char *const kinds[] = { "prefix: ", "path: ", "regex: ^" };

    buf_add_str(text, HEAD);
    for (unsigned i = 0; i < n; i++) {
        unsigned port = next(&seed, 4);

        buf_printf(text, "  - {id: r%u, from: 'https://%s%s', %s%s, " PUBLIC, i,
                   hosts[next(&seed, ARRAY_LEN(hosts))], port == 0 ? ":8443" : "",
                   kinds[next(&seed, 3)], paths[next(&seed, ARRAY_LEN(paths))]);
    }
}

static void compare(const struct fixture *f, unsigned round, const char *host)
{
    for (size_t i = 0; i < 2 * ARRAY_LEN(paths); i++) {
        const char *path = paths[i / 2];
        uint16_t port = i % 2 == 0 ? 0 : 8443;
        int want = defined(f->config, host, port, path);
        int got = found(f, host, port, path);

        if (want != got) {
            fail_msg("round %u: %s:%u%s is route %d, not %d", round, host, port, path, got, want);
        }
    }
}

static void the_index_finds_what_the_definition_says(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        struct fixture f = { 0 };
        struct buf text;

        buf_init(&text, 1 << 20);
        write_routes(&text, round, round < 20 ? 1 + round : 4 * round);
        f = make(buf_cstr(&text));
        for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
            compare(&f, round, asked[i]);
        }
        buf_deinit(&text);
        drop(&f);
    }
}

/* ---- priorities ------------------------------------------------------------------------------- */

static void regex_priorities_swap_places_and_move_nothing_else(void **state)
{
    struct fixture f =
        make(HEAD "  - {from: https://a.com, regex: /x.*, regex_priority_order: 1, " PUBLIC
                  "  - {from: https://a.com, prefix: /xb, " PUBLIC
                  "  - {from: https://a.com, regex: '/x[ab].*', regex_priority_order: 5, " PUBLIC
                  "  - {from: https://a.com, regex: /y.*, " PUBLIC
                  "  - {from: https://b.com, regex: /x.*, regex_priority_order: 9, " PUBLIC
                  "  - {from: https://a.com, regex: /ya, regex_priority_order: 7, " PUBLIC);

    (void)state;
    /* places 0, 2, 5 of a.com now hold /ya, /x[ab].*, /x.* */
    assert_int_equal(found(&f, "a.com", 0, "/ya"), 5);
    assert_int_equal(found(&f, "a.com", 0, "/yb"), 3);
    assert_int_equal(found(&f, "a.com", 0, "/xa"), 2);
    assert_int_equal(found(&f, "a.com", 0, "/xb"), 1);
    assert_int_equal(found(&f, "a.com", 0, "/xc"), 0);
    assert_int_equal(found(&f, "b.com", 0, "/xa"), 4);
    drop(&f);
}

static void a_pattern_at_its_bounds_lets_no_later_route_take_the_request(void **state)
{
    static const char slow[] =
        "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";
    struct buf text;

    (void)state;
    for (unsigned more = 0; more < 40; more += 39) {
        struct fixture f = { 0 };

        buf_init(&text, 65536);
        buf_add_str(&text, HEAD "  - {from: https://a.com, path: /first, " PUBLIC
                                "  - {from: https://a.com, regex: '/(a+)+', " PUBLIC);
        for (unsigned i = 0; i < more; i++) {
            buf_printf(&text, "  - {from: https://a.com, prefix: /p%u, " PUBLIC, i);
        }
        buf_add_str(&text, "  - {from: https://a.com, " PUBLIC);
        f = make(buf_cstr(&text));
        assert_int_equal(found(&f, "a.com", 0, slow), -2);
        assert_int_equal(found(&f, "a.com", 0, "/first"), 0);
        assert_int_equal(found(&f, "a.com", 0, "/aa"), 1);
        assert_int_equal(found(&f, "a.com", 0, "/b"), (int)more + 2);
        buf_deinit(&text);
        drop(&f);
    }
}

static void count(const struct config_route *route, void *arg)
{
    unsigned *bits = arg;

    *bits |= BIT(route->index);
}

static void all_routes_of_a_host_are_told(void **state)
{
    struct fixture f =
        make(HEAD "  - {from: https://a.b.com, " PUBLIC "  - {from: 'https://*.b.com', " PUBLIC
                  "  - {from: 'https://*', " PUBLIC "  - {from: https://b.com, " PUBLIC);
    unsigned bits = 0;

    (void)state;
    route_table_each(f.table, SV("a.b.com"), count, &bits);
    assert_int_equal(bits, BIT(0) | BIT(1) | BIT(2));
    bits = 0;
    route_table_each(f.table, SV("b.com"), count, &bits);
    assert_int_equal(bits, BIT(2) | BIT(3));
    drop(&f);
}

static void tunnels_are_found_by_host_and_port_alone(void **state)
{
    struct fixture f =
        make(HEAD "  - {from: tcp+https://db.example.com:5432, to: tcp://a:1,"
                  " allow_public_unauthenticated_access: true}\n"
                  "  - {from: 'tcp+https://bastion.example.com/inner:22', to: tcp://b:1,"
                  " allow_public_unauthenticated_access: true}\n"
                  "  - {from: 'https://*.example.com', " PUBLIC);

    (void)state;
    assert_ptr_equal(route_table_tunnel(f.table, SV("db.example.com"), 5432), &f.config->routes[0]);
    assert_ptr_equal(route_table_tunnel(f.table, SV("inner"), 22), &f.config->routes[1]);
    assert_null(route_table_tunnel(f.table, SV("db.example.com"), 5433));
    assert_null(route_table_tunnel(f.table, SV("bastion.example.com"), 22));
    assert_null(route_table_tunnel(f.table, SV("x.example.com"), 443));
    assert_true(route_table_has_host(f.table, SV("bastion.example.com")));
    assert_false(route_table_has_host(f.table, SV("inner")));
    /* A tunnel takes no request, and does not hide who would. */
    assert_int_equal(found(&f, "db.example.com", 5432, "/"), 2);
    assert_int_equal(found(&f, "inner", 22, "/"), -1);
    drop(&f);
}

static void servers_that_cut_parameters_find_the_same_route_or_none(void **state)
{
    static const struct {
        const char *path;
        int by_path; /* -2: refused */
        int by_prefix;
    } rows[] = {
        { "/x;a=1", 1, 3 },      { "/x;a/y;b", 1, 3 },      { "/x;/admin", 1, 3 },
        { "/adm;in", 1, 3 },     { "/admin;a", -2, 2 },     { "/;a/admin", -2, -2 },
        { "/;/admin/x", 1, -2 }, { "/;;/;/admin", -2, -2 },
    };
    struct fixture f = make(HEAD "  - {from: https://a.com, path: /admin, " PUBLIC
                                 "  - {from: https://a.com, prefix: /, " PUBLIC
                                 "  - {from: https://b.com, prefix: /admin, " PUBLIC
                                 "  - {from: https://b.com, prefix: /, " PUBLIC);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(found(&f, "a.com", 0, rows[i].path), rows[i].by_path);
        assert_int_equal(found(&f, "b.com", 0, rows[i].path), rows[i].by_prefix);
    }
    drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_that_cut_parameters_find_the_same_route_or_none),
        cmocka_unit_test(the_index_finds_what_the_definition_says),
        cmocka_unit_test(regex_priorities_swap_places_and_move_nothing_else),
        cmocka_unit_test(a_pattern_at_its_bounds_lets_no_later_route_take_the_request),
        cmocka_unit_test(all_routes_of_a_host_are_told),
        cmocka_unit_test(tunnels_are_found_by_host_and_port_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
