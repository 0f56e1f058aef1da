/* tunnel: where `postern tcp` goes, from what is typed. */
#include "cli/tunnel.h"

#include "test/support/cmocka.h"

static void every_spelling_leads_to_one_way(void **state)
{
    static const struct {
        const char *dest;
        const char *proxy;
        const char *url;
        const char *authority;
    } rows[] = {
        { "db.example.com:5432", NULL, "https://db.example.com", "db.example.com:5432" },
        { "DB.Example.com.:5432", NULL, "https://db.example.com", "db.example.com:5432" },
        { "db:5432", "https://proxy:8443/", "https://proxy:8443", "db:5432" },
        { "db:5432", "proxy", "https://proxy", "db:5432" },
        { "tcp+https://db:5432", NULL, "https://db", "db:5432" },
        { "tcp+https://db:5432/", NULL, "https://db", "db:5432" },
        { "tcp+https://bastion/db:5432", NULL, "https://bastion", "db:5432" },
        { "tcp+https://bastion:8443/[::1]:22", NULL, "https://bastion:8443", "[::1]:22" },
        { "tcp+https://bastion/db:1", "https://other", "https://other", "db:1" },
        { "[2001:db8::1]:22", NULL, "https://[2001:db8::1]", "[2001:db8::1]:22" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct cli_tunnel_way way = { .port = 0 };
        struct buf url;

        buf_init(&url, 512);
        if (cli_tunnel_way(rows[i].dest, rows[i].proxy, &way, NULL) != ERR_OK) {
            fail_msg("refused: %s", rows[i].dest);
        }
        cli_tunnel_proxy_url(&way, &url);
        assert_string_equal(buf_cstr(&url), rows[i].url);
        assert_string_equal(way.authority, rows[i].authority);
        buf_deinit(&url);
    }
}

static void what_is_unclear_is_refused(void **state)
{
    static const struct {
        const char *dest;
        const char *proxy;
    } rows[] = { { "", NULL },
                 { "db", NULL },
                 { "db:0", NULL },
                 { "db:022", NULL },
                 { "db:65536", NULL },
                 { "u@db:1", NULL },
                 { "https://db:1", NULL },
                 { "tcp+https://", NULL },
                 { "tcp+https://bastion/db", NULL },
                 { "tcp+https://bastion/db:1/e:2", NULL },
                 { "tcp+https://b c/db:1", NULL },
                 { "db:1", "" },
                 { "db:1", "http://proxy" },
                 { "db:1", "https://proxy/path" },
                 { "db:1", "https://u@proxy" } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct cli_tunnel_way way = { .port = 0 };
        struct diag d = { .line = 0 };

        if (cli_tunnel_way(rows[i].dest, rows[i].proxy, &way, &d) == ERR_OK) {
            fail_msg("not refused: %s by %s", rows[i].dest, rows[i].proxy);
        }
        assert_true(d.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_leads_to_one_way),
        cmocka_unit_test(what_is_unclear_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
