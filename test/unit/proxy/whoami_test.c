/* whoami: the steps by which a client's address was found, told to people and programs. */
#include "proxy/whoami.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "common/mem.h"
#include "test/unit/proxy/peer.h"

#define TEN "trusted_proxies: [10.0.0.0/8]\n"

static void tell(const char *settings, const struct proxy_peer *peer, const char *lines,
                 struct buf *page, struct buf *json)
{
    struct config *config = peer_config(settings);
    struct http_field fields[64];
    struct http_head head;
    struct proxy_visitor visitor;
    struct arena arena;
    char request[8192];

    peer_request(lines, request, &head, fields);
    arena_init(&arena);
    assert_true(proxy_peer_visitor(peer, config, &head, true, &arena, &visitor));
    const struct proxy_whoami who = { .peer = peer,
                                      .config = config,
                                      .head = &head,
                                      .visitor = &visitor,
                                      .user = SV("<u>"),
                                      .email = SV("u@example.com"),
                                      .request_id = SV("id-1") };

    buf_init(page, PROXY_WHOAMI_MAX);
    buf_init(json, PROXY_WHOAMI_MAX);
    proxy_whoami_page(&who, page);
    proxy_whoami_json(&who, json);
    arena_deinit(&arena);
    config_unref(&config);
}

static struct proxy_peer with_header(const char *address, enum http_proxy_source source)
{
    struct proxy_peer peer = peer_from(address);
    struct http_proxy_header header = { .version = 2, .source = source };

    header.address[10] = 0xff;
    header.address[11] = 0xff;
    memcpy(header.address + 12, "\xcb\x00\x71\x09", 4); /* 203.0.113.9 */
    proxy_peer_take_header(&peer, &header);
    return peer;
}

/* source=address+|- of each step; + trusted. */
static void steps_text(const json_t *json, char out[1024])
{
    size_t i = 0;
    size_t n = 0;
    json_t *step = NULL;

    out[0] = '\0';
    json_array_foreach(json_object_get(json, "steps"), i, step)
    {
        n += (size_t)snprintf(out + n, 1024 - n, "%s%s=%s%s", i == 0 ? "" : " ",
                              json_string_value(json_object_get(step, "source")),
                              json_string_value(json_object_get(step, "address")),
                              json_is_true(json_object_get(step, "trusted")) ? "+" : "-");
        assert_true(n < 1024);
    }
}

struct row {
    const char *settings;
    struct proxy_peer peer;
    const char *lines;
    const char *address;
    const char *steps;
    const char *remark; /* a part of it; "": none */
};

static void each_step_is_told_from_the_socket_outwards(void **state)
{
    const struct row rows[] = {
        { "", peer_from("192.0.2.1"), "", "192.0.2.1", "connection=192.0.2.1-", "" },
        { "", peer_from("192.0.2.1"), "X-Forwarded-For: 6.6.6.6\r\n", "192.0.2.1",
          "connection=192.0.2.1-", "was not read" },
        { TEN, peer_from("10.0.0.4"), "", "10.0.0.4", "connection=10.0.0.4+", "names nobody" },
        { TEN, peer_from("10.0.0.4"), "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.5\r\n",
          "203.0.113.7",
          "connection=10.0.0.4+ x-forwarded-for=10.0.0.5+ x-forwarded-for=203.0.113.7-", "" },
        { TEN, peer_from("10.0.0.4"), "X-Forwarded-For: 10.0.0.6, 10.0.0.5\r\n", "10.0.0.6",
          "connection=10.0.0.4+ x-forwarded-for=10.0.0.5+ x-forwarded-for=10.0.0.6+",
          "names nobody" },
        { TEN "xff_num_trusted_hops: 2\n", peer_from("10.0.0.4"),
          "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 198.51.100.1\r\n", "203.0.113.7",
          "connection=10.0.0.4+ x-forwarded-for=198.51.100.1+ x-forwarded-for=203.0.113.7-", "" },
        { TEN "use_proxy_protocol: true\n", with_header("10.0.0.4", HTTP_PROXY_CLIENT),
          "X-Forwarded-For: 6.6.6.6\r\n", "203.0.113.9",
          "connection=10.0.0.4+ proxy-header=203.0.113.9-", "was not read" },
        { TEN "use_proxy_protocol: true\n", with_header("10.0.0.4", HTTP_PROXY_UNKNOWN), "",
          "unknown", "connection=10.0.0.4+ proxy-header=unknown-", "" },
        { TEN "use_proxy_protocol: true\n", with_header("10.0.0.4", HTTP_PROXY_SENDER), "",
          "10.0.0.4", "connection=10.0.0.4+ proxy-header=10.0.0.4+", "names nobody" },
        { "trusted_proxies: ['unix:']\n", peer_from("unix:"), "X-Forwarded-For: 203.0.113.7\r\n",
          "203.0.113.7", "connection=unix socket+ x-forwarded-for=203.0.113.7-", "" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        struct buf page;
        struct buf text;
        char steps[1024];
        json_t *json = NULL;

        tell(row->settings, &row->peer, row->lines, &page, &text);
        json = json_loadb(text.p, text.n, 0, NULL);
        assert_non_null(json);
        assert_string_equal(json_string_value(json_object_get(json, "address")), row->address);
        steps_text(json, steps);
        assert_string_equal(steps, row->steps);
        assert_non_null(strstr(json_string_value(json_object_get(json, "remark")), row->remark));
        assert_true((row->remark[0] != '\0') ==
                    (json_string_value(json_object_get(json, "remark"))[0] != '\0'));
        json_decref(json);
        /* The page says the same, and neither repeats what nobody vouches for, or a setting. */
        assert_non_null(strstr(buf_cstr(&page), row->address));
        assert_non_null(strstr(buf_cstr(&page), "&lt;u&gt;"));
        assert_null(strstr(buf_cstr(&page), "6.6.6.6"));
        assert_null(strstr(buf_cstr(&page), "10.0.0.0"));
        assert_null(strstr(buf_cstr(&text), "6.6.6.6"));
        assert_null(strstr(buf_cstr(&text), "10.0.0.0"));
        buf_deinit(&page);
        buf_deinit(&text);
    }
}

static void the_longest_chain_has_room(void **state)
{
    struct proxy_peer peer = with_header("10.0.0.4", HTTP_PROXY_SENDER);
    char lines[2048] = "X-Forwarded-For: 203.0.113.7";
    struct buf page;
    struct buf text;
    json_t *json = NULL;

    (void)state;
    for (int i = 0; i < PROXY_HOPS_MAX - 1; i++) {
        (void)snprintf(lines + strlen(lines), sizeof(lines) - strlen(lines), ", 10.1.1.%d", i);
    }
    (void)snprintf(lines + strlen(lines), sizeof(lines) - strlen(lines), "\r\n");
    tell(TEN "use_proxy_protocol: true\n", &peer, lines, &page, &text);
    assert_int_equal(page.err, ERR_OK);
    json = json_loadb(text.p, text.n, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(json, "steps")), PROXY_WHOAMI_STEPS_MAX);
    json_decref(json);
    buf_deinit(&page);
    buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_is_told_from_the_socket_outwards),
        cmocka_unit_test(the_longest_chain_has_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
