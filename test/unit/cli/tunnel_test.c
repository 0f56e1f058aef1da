/* tunnel: where `postern tcp` goes, from what is typed. */
#include "cli/tunnel.h"

#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/tunnel_login.h"
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

/* The name of the kept token is made of it: none fits, whatever is cut off where. */
static void a_home_of_any_length_keeps_a_token_or_none(void **state)
{
    const struct cli_tunnel_way way = { .host = "db", .authority = "db:1", .port = 443 };
    char home[6000];
    char *kept = NULL;

    (void)state;
    for (size_t n = 4000; n < sizeof(home); n++) {
        memset(home, 'x', n);
        home[0] = '/';
        home[n] = '\0';
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
        assert_int_equal(setenv("XDG_CACHE_HOME", home, 1), 0);
        kept = cli_tunnel_kept(&way);
        assert_null(kept);
        cli_tunnel_forget(&way);
    }
    assert_int_equal(unsetenv("XDG_CACHE_HOME"), 0); /* NOLINT(concurrency-mt-unsafe) */
}

static void what_could_steer_a_terminal_is_tamed(void **state)
{
    char text[] = "a\x1b[2Jb\nc\x7f\xc2\x9b"
                  "5md \xc3\xa9\xe2\x82\xac";

    (void)state;
    assert_string_equal(cli_tame(text), "a?[2Jb?c???5md \xc3\xa9\xe2\x82\xac");
    text[0] = '\xc2';
    text[1] = '\0'; /* cut off in the middle of a letter */
    assert_string_equal(cli_tame(text), "\xc2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_leads_to_one_way),
        cmocka_unit_test(what_is_unclear_is_refused),
        cmocka_unit_test(a_home_of_any_length_keeps_a_token_or_none),
        cmocka_unit_test(what_could_steer_a_terminal_is_tamed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
