/* peer: whose word about the client counts, and what the upstream hears. */
#include "proxy/peer.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "test/unit/proxy/peer.h"

struct seen {
    char text[64];
    char forwarded[2048];
    size_t bytes; /* of what authorize gets */
    bool https;
    bool clear;
};

/* lines: header lines of the request, each with its CRLF. */
static struct seen see(const struct config *config, const struct proxy_peer *peer,
                       const char *lines)
{
    struct http_field fields[64];
    struct http_head head;
    struct proxy_visitor visitor;
    struct arena arena;
    struct seen seen = { .clear = false };
    char request[8192];

    peer_request(lines, request, &head, fields);
    arena_init(&arena);
    seen.clear = proxy_peer_visitor(peer, config, &head, false, &arena, &visitor);
    (void)snprintf(seen.text, sizeof(seen.text), "%.*s", SV_ARG(visitor.text));
    (void)snprintf(seen.forwarded, sizeof(seen.forwarded), "%.*s", SV_ARG(visitor.forwarded_for));
    seen.bytes = proxy_address_bytes(&visitor.address).n;
    seen.https = visitor.https;
    arena_deinit(&arena);
    return seen;
}

/* NULL client: unclear. */
struct row {
    const char *settings;
    const char *peer;
    const char *lines;
    const char *client;
    const char *forwarded;
};

static void check_row(const struct row *row)
{
    struct config *config = peer_config(row->settings);
    struct proxy_peer peer = peer_from(row->peer);
    struct seen seen = see(config, &peer, row->lines);

    if (seen.clear != (row->client != NULL)) {
        fail_msg("%s %s [%s]: clear %d", row->settings, row->peer, row->lines, seen.clear);
    }
    if (row->client == NULL) {
        assert_int_equal(seen.bytes, 0);
        assert_string_equal(seen.forwarded, "");
    } else if (strcmp(seen.text, row->client) != 0 || strcmp(seen.forwarded, row->forwarded) != 0) {
        fail_msg("%s %s [%s]: client %s, forwarded %s", row->settings, row->peer, row->lines,
                 seen.text, seen.forwarded);
    }
    config_unref(&config);
}

static const char many[] =
    "X-Forwarded-For: 10.1.1.1, 10.1.1.2, 10.1.1.3, 10.1.1.4, 10.1.1.5, 10.1.1.6, 10.1.1.7, "
    "10.1.1.8, 10.1.1.9, 10.1.1.10, 10.1.1.11, 10.1.1.12, 10.1.1.13, 10.1.1.14, 10.1.1.15, "
    "10.1.1.16, 10.1.1.17, 10.1.1.18, 10.1.1.19, 10.1.1.20, 10.1.1.21, 10.1.1.22, 10.1.1.23, "
    "10.1.1.24, 10.1.1.25, 10.1.1.26, 10.1.1.27, 10.1.1.28, 10.1.1.29, 10.1.1.30, 10.1.1.31, "
    "10.1.1.32, 10.1.1.33\r\n";

#define TEN "trusted_proxies: [10.0.0.0/8, 'fd00::/8']\n"
#define XFF "X-Forwarded-For: "
#define LIES                                                                               \
    "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\nX_Forwarded_For: 3.3.3.3\r\n" \
    "Forwarded: for=4.4.4.4\r\nX-Real-IP: 5.5.5.5\r\nTrue-Client-IP: 6.6.6.6\r\n"          \
    "X-Client-IP: 7.7.7.7\r\nX-Envoy-External-Address: 8.8.8.8\r\nClient-IP: 9.9.9.9\r\n"

static void what_nobody_vouches_for_counts_for_nothing(void **state)
{
    static const struct row rows[] = {
        { "", "192.0.2.7", "", "192.0.2.7", "192.0.2.7" },
        { "", "192.0.2.7", LIES, "192.0.2.7", "192.0.2.7" },
        { "", "10.0.0.1", LIES, "10.0.0.1", "10.0.0.1" },
        { "", "127.0.0.1", LIES, "127.0.0.1", "127.0.0.1" },
        { "", "2001:db8::7", LIES, "2001:db8::7", "2001:db8::7" },
        { "", "::ffff:192.0.2.7", LIES, "192.0.2.7", "192.0.2.7" },
        { "", "unix", LIES, "unknown", "unknown" },
        { "skip_xff_append: true\n", "192.0.2.7", LIES, "192.0.2.7", "" },
        { TEN, "192.0.2.7", LIES, "192.0.2.7", "192.0.2.7" },
        { TEN, "unix", LIES, "unknown", "unknown" },
        { TEN "xff_num_trusted_hops: 2\n", "192.0.2.7", LIES, "192.0.2.7", "192.0.2.7" },
        { TEN "use_proxy_protocol: true\n", "192.0.2.7", LIES, "192.0.2.7", "192.0.2.7" },
        /* From a trusted one, too, only X-Forwarded-For says who it was. */
        { TEN, "10.0.0.1",
          "X_Forwarded_For: 3.3.3.3\r\nForwarded: for=4.4.4.4\r\nX-Real-IP: 5.5.5.5\r\n",
          "10.0.0.1", "10.0.0.1" },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        check_row(&rows[i]);
    }
}

static void the_last_address_that_is_no_proxy_is_the_client(void **state)
{
    static const struct row rows[] = {
        { TEN, "10.0.0.1", "", "10.0.0.1", "10.0.0.1" },
        { TEN, "10.0.0.1", XFF "192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "::ffff:10.0.0.1", XFF "192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "1.1.1.1, 192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "10.0.0.9, 192.0.2.7, 10.0.0.2\r\n", "192.0.2.7",
          "192.0.2.7, 10.0.0.2, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "1.1.1.1\r\n" XFF "192.0.2.7\r\n", "192.0.2.7",
          "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "192.0.2.7\r\nx-forwarded-for: 10.0.0.3\r\n", "192.0.2.7",
          "192.0.2.7, 10.0.0.3, 10.0.0.1" },
        { TEN, "10.0.0.1", "Connection: X-Forwarded-For\r\n" XFF "192.0.2.7\r\n", "192.0.2.7",
          "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "garbage, 192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF " ,, 192.0.2.7 ,\t,\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "10.0.0.3, 10.0.0.2\r\n", "10.0.0.3",
          "10.0.0.3, 10.0.0.2, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "192.0.2.7:4711\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "[2001:db8::7]:4711\r\n", "2001:db8::7", "2001:db8::7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "[2001:db8::7]\r\n", "2001:db8::7", "2001:db8::7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "2001:DB8:0::7, fd00::1\r\n", "2001:db8::7",
          "2001:db8::7, fd00::1, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "::ffff:192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 10.0.0.1" },
        { TEN, "10.0.0.1", XFF "192.0.2.7, ::ffff:10.0.0.2\r\n", "192.0.2.7",
          "192.0.2.7, 10.0.0.2, 10.0.0.1" },
        { TEN "skip_xff_append: true\n", "10.0.0.1", XFF "1.1.1.1, 192.0.2.7, 10.0.0.2\r\n",
          "192.0.2.7", "192.0.2.7, 10.0.0.2" },
        { "trusted_proxies: ['unix:']\n", "unix", XFF "1.1.1.1, 192.0.2.7\r\n", "192.0.2.7",
          "192.0.2.7, unknown" },
        { "trusted_proxies: 192.0.2.1\n", "192.0.2.1", XFF "192.0.2.2\r\n", "192.0.2.2",
          "192.0.2.2, 192.0.2.1" },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        check_row(&rows[i]);
    }
}

static void hops_are_counted_from_the_end(void **state)
{
    static const struct row rows[] = {
        { TEN "xff_num_trusted_hops: 1\n", "10.0.0.1", XFF "1.1.1.1, 10.0.0.5\r\n", "10.0.0.5",
          "10.0.0.5, 10.0.0.1" },
        { TEN "xff_num_trusted_hops: 2\n", "10.0.0.1", XFF "1.1.1.1, 192.0.2.7, 203.0.113.4\r\n",
          "192.0.2.7", "192.0.2.7, 203.0.113.4, 10.0.0.1" },
        { TEN "xff_num_trusted_hops: 3\n", "10.0.0.1", XFF "192.0.2.7, 203.0.113.4\r\n",
          "192.0.2.7", "192.0.2.7, 203.0.113.4, 10.0.0.1" },
        { TEN "xff_num_trusted_hops: 3\n", "10.0.0.1", "", "10.0.0.1", "10.0.0.1" },
        { TEN "xff_num_trusted_hops: 2\n", "10.0.0.1", XFF "192.0.2.7, what\r\n", NULL, NULL },
        { TEN "xff_num_trusted_hops: 2\n", "10.0.0.1", XFF "what, 192.0.2.7\r\n", NULL, NULL },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        check_row(&rows[i]);
    }
}

static void an_address_that_is_none_leaves_the_client_unclear(void **state)
{
    static const char *const members[] = { "unknown",
                                           "_hidden",
                                           "-",
                                           "for=192.0.2.7",
                                           "192.0.2.7 10.0.0.1",
                                           "192.0.2.256",
                                           "192.0.2",
                                           "192.0.2.07",
                                           "0xc0.0.2.7",
                                           "3221225991",
                                           "192.0.2.7:",
                                           "192.0.2.7:x",
                                           "192.0.2.7:65536",
                                           "192.0.2.7:1:2",
                                           "192.0.2.7/32",
                                           "[192.0.2.7]",
                                           "[2001:db8::7",
                                           "2001:db8::7]",
                                           "[2001:db8::7]4711",
                                           "[2001:db8::7]:",
                                           "[]",
                                           "fe80::1%eth0",
                                           "::ffff:192.0.2.999",
                                           "\"192.0.2.7\"",
                                           "\xff\xfe" };
    char lines[200];
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(members); i++) {
        struct row row = { TEN, "10.0.0.1", lines, NULL, NULL };

        (void)snprintf(lines, sizeof(lines), XFF "%s\r\n", members[i]);
        check_row(&row);
        (void)snprintf(lines, sizeof(lines), XFF "192.0.2.7, %s, 10.0.0.2\r\n", members[i]);
        check_row(&row);
    }
    check_row(&(struct row){ TEN, "10.0.0.1", many, NULL, NULL }); /* more than anybody has */
}

static struct proxy_peer with_header(const char *socket, enum http_proxy_source source,
                                     const char *client)
{
    struct proxy_peer peer = peer_from(socket);
    struct http_proxy_header header = { .version = 2, .source = source, .port = 4 };

    if (client != NULL) {
        assert_int_equal(cidr_ip_parse(sv_from(client), header.address), ERR_OK);
    }
    proxy_peer_take_header(&peer, &header);
    return peer;
}

static void the_proxy_header_stands_between_socket_and_field(void **state)
{
    static const struct {
        enum http_proxy_source source;
        const char *header;
        const char *lines;
        const char *client;
        const char *forwarded;
    } rows[] = {
        { HTTP_PROXY_CLIENT, "192.0.2.7", "", "192.0.2.7", "192.0.2.7" },
        { HTTP_PROXY_CLIENT, "192.0.2.7", LIES, "192.0.2.7", "192.0.2.7" },
        { HTTP_PROXY_CLIENT, "10.2.0.1", XFF "192.0.2.9\r\n", "192.0.2.9", "192.0.2.9, 10.2.0.1" },
        { HTTP_PROXY_SENDER, NULL, "", "10.0.0.1", "10.0.0.1" },
        /* Whose bytes they are is not told: they may not speak with the balancer's voice. */
        { HTTP_PROXY_UNKNOWN, NULL, LIES, "unknown", "unknown" },
    };
    struct config *config = peer_config(TEN "use_proxy_protocol: true\n");
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct proxy_peer peer = with_header("10.0.0.1", rows[i].source, rows[i].header);
        struct seen seen = see(config, &peer, rows[i].lines);

        assert_true(seen.clear);
        assert_string_equal(seen.text, rows[i].client);
        assert_string_equal(seen.forwarded, rows[i].forwarded);
        assert_int_equal(seen.bytes, rows[i].source == HTTP_PROXY_UNKNOWN ? 0 : 4);
    }
    config_unref(&config);
}

static void only_listed_peers_owe_a_header(void **state)
{
    struct config *off = peer_config(TEN);
    struct config *on = peer_config(TEN "use_proxy_protocol: true\n");
    struct config *also_unix =
        peer_config("trusted_proxies: ['unix:', 10.0.0.1]\nuse_proxy_protocol: true\n");
    struct proxy_peer listed = peer_from("10.0.0.1");
    struct proxy_peer stranger = peer_from("192.0.2.7");
    struct proxy_peer local = peer_from("unix");

    (void)state;
    assert_false(proxy_peer_owes_header(&listed, off));
    assert_true(proxy_peer_owes_header(&listed, on));
    assert_false(proxy_peer_owes_header(&stranger, on));
    assert_false(proxy_peer_owes_header(&local, on));
    assert_true(proxy_peer_owes_header(&local, also_unix));
    assert_false(proxy_peer_owes_header(&stranger, also_unix));
    assert_string_equal(local.text, "unix:");
    config_unref(&off);
    config_unref(&on);
    config_unref(&also_unix);
}

static void the_scheme_is_believed_of_trusted_proxies_alone(void **state)
{
    static const struct {
        const char *peer;
        const char *lines;
        bool https;
    } rows[] = {
        { "192.0.2.7", "X-Forwarded-Proto: https\r\n", false },
        { "10.0.0.1", "", false },
        { "10.0.0.1", "X-Forwarded-Proto: https\r\n", true },
        { "10.0.0.1", "X-Forwarded-Proto: HTTPS\r\n", true },
        { "10.0.0.1", "X-Forwarded-Proto: http\r\n", false },
        { "10.0.0.1", "X-Forwarded-Proto: https, http\r\n", false },
        { "10.0.0.1", "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\n", false },
        { "10.0.0.1", "X-Forwarded-Protocol: https\r\n", false },
    };
    struct config *config = peer_config(TEN);
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct proxy_peer peer = peer_from(rows[i].peer);

        assert_int_equal(see(config, &peer, rows[i].lines).https, rows[i].https);
    }
    config_unref(&config);
}

static void settings_that_trust_nobody_by_name_are_refused(void **state)
{
    static const char *const rows[] = { "use_proxy_protocol: true\n",
                                        "xff_num_trusted_hops: 1\n",
                                        "trusted_proxies: [10.0.0.0/33]\n",
                                        "trusted_proxies: [everybody]\n",
                                        "trusted_proxies: [unix]\n",
                                        "trusted_proxies: ['']\n",
                                        "trusted_proxies: [10.0.0.1, 5]\n",
                                        "trusted_proxies: [::1]\nxff_num_trusted_hops: 33\n",
                                        "trusted_proxies: [::1]\nxff_num_trusted_hops: -1\n",
                                        "trusted_proxies: []\nuse_proxy_protocol: true\n" };
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_PROXY };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct config *config = NULL;
        struct config_errors *errors = NULL;
        char text[2048];

        (void)snprintf(text, sizeof(text), "%s%s", PEER_SETTINGS, rows[i]);
        if (config_parse(sv_from(text), &opts, &config, &errors) == ERR_OK) {
            fail_msg("taken: %s", rows[i]);
        }
        config_errors_free(&errors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_vouches_for_counts_for_nothing),
        cmocka_unit_test(the_last_address_that_is_no_proxy_is_the_client),
        cmocka_unit_test(hops_are_counted_from_the_end),
        cmocka_unit_test(an_address_that_is_none_leaves_the_client_unclear),
        cmocka_unit_test(the_proxy_header_stands_between_socket_and_field),
        cmocka_unit_test(only_listed_peers_owe_a_header),
        cmocka_unit_test(the_scheme_is_believed_of_trusted_proxies_alone),
        cmocka_unit_test(settings_that_trust_nobody_by_name_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
