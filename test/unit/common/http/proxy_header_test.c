/* The PROXY protocol: what is a header, what is none, and where it ends. */
#include "common/http/proxy_header.h"

#include <stdio.h>
#include <string.h>

#include "common/cidr.h"
#include "test/support/cmocka.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2(rest)  SV(SIGNATURE rest)

struct row {
    struct sv in;
    enum http_proxy_source source;
    unsigned port;
    const char *address;
};

static void check_good(const struct row *row)
{
    struct http_proxy_header header = { 0 };
    struct http_proxy_header other = { 0 };
    char more[600];
    uint8_t expected[16];
    size_t n = 0;

    for (n = 0; n < row->in.n; n++) {
        assert_int_equal(http_proxy_header_parse(sv_head(row->in, n), &header), HTTP_MORE);
    }
    assert_int_equal(http_proxy_header_parse(row->in, &header), HTTP_DONE);
    assert_int_equal(header.size, row->in.n);
    assert_int_equal(header.source, row->source);
    if (row->address != NULL) {
        assert_int_equal(cidr_ip_parse(sv_from(row->address), expected), ERR_OK);
        assert_memory_equal(header.address, expected, 16);
        assert_int_equal(header.port, row->port);
    }
    memset(more, '\n', sizeof(more));
    memcpy(more, row->in.p, row->in.n);
    assert_int_equal(http_proxy_header_parse(sv_of(more, row->in.n + 5), &other), HTTP_DONE);
    assert_int_equal(other.size, header.size);
    assert_int_equal(other.source, header.source);
}

static void every_form_of_a_header_is_read(void **state)
{
    static const struct row rows[] = {
        { SV("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"), HTTP_PROXY_CLIENT, 56324,
          "192.0.2.7" },
        { SV("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), HTTP_PROXY_CLIENT,
          65535, "255.255.255.255" },
        { SV("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), HTTP_PROXY_CLIENT, 0, "0.0.0.0" },
        { SV("PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), HTTP_PROXY_CLIENT, 1, "2001:db8::7" },
        { SV("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), HTTP_PROXY_CLIENT, 1, "192.0.2.7" },
        { SV("PROXY UNKNOWN\r\n"), HTTP_PROXY_UNKNOWN, 0, NULL },
        { SV("PROXY UNKNOWN 1 2 3 whatever\r\n"), HTTP_PROXY_UNKNOWN, 0, NULL },
        { V2("\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"), HTTP_PROXY_CLIENT,
          56324, "192.0.2.7" },
        { V2("\x21\x11\x00\x10\xc0\x00\x02\x07\xc6\x33\x64\x01\x00\x01\x01\xbb\x04\x00\x01x"),
          HTTP_PROXY_CLIENT, 1, "192.0.2.7" },
        { V2("\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"
             "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50\x01\xbb"),
          HTTP_PROXY_CLIENT, 80, "2001:db8::7" },
        { V2("\x21\x00\x00\x00"), HTTP_PROXY_UNKNOWN, 0, NULL },
        { V2("\x21\x00\x00\x03\x04\x00\x00"), HTTP_PROXY_UNKNOWN, 0, NULL },
        { V2("\x20\x00\x00\x00"), HTTP_PROXY_SENDER, 0, NULL },
        { V2("\x20\xff\x00\x02zz"), HTTP_PROXY_SENDER, 0, NULL },
        { V2("\x20\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"), HTTP_PROXY_SENDER,
          0, NULL },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        check_good(&rows[i]);
    }
}

static void a_unix_client_of_the_balancer_has_no_address(void **state)
{
    char bytes[16 + 216] = SIGNATURE "\x21\x31\x00\xd8";
    struct http_proxy_header header = { 0 };

    (void)state;
    assert_int_equal(http_proxy_header_parse(sv_of(bytes, sizeof(bytes)), &header), HTTP_DONE);
    assert_int_equal(header.source, HTTP_PROXY_UNKNOWN);
}

static void what_is_no_header_is_refused(void **state)
{
    static const struct sv rows[] = {
        SV("GET / HTTP/1.1\r\n"),
        SV("\x16\x03\x01\x02\x00"),
        SV("proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n"),
        SV("PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n"),
        SV("PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n"),
        SV("PROXY\tTCP4 192.0.2.7 198.51.100.1 1 2\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1 \r\n"),
        SV("PROXY TCP4 192.0.2.7 1 2\r\n"),
        SV("PROXY TCP4\r\n"),
        SV("PROXY \r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n"),
        SV("PROXY TCP4 192.0.2.7 198.51.100.1 1 99999999999999999999\r\n"),
        SV("PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n"),
        SV("PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n"),
        SV("PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n"),
        SV("PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n"),
        SV("PROXY TCP6 192.0.2.7 ::1 1 2\r\n"),
        SV("PROXY TCP6 fe80::1%lo ::1 1 2\r\n"),
        SV("PROXY TCP6 [::1] ::1 1 2\r\n"),
        SV("PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n"),
        SV("PROXY UNKNOWNX\r\n"),
        V2("\x11\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"), /* version 1 */
        V2("\x22\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"), /* command 2 */
        V2("\x21\x12\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"), /* a datagram */
        V2("\x21\x41\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"), /* no family */
        V2("\x21\x11\x00\x0b\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01"),     /* too short */
        V2("\x21\x21\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"),
        V2("\x21\x11\xff\xff"), /* 64 KiB of extensions: known before they come */
        SV("\r\n\r\n\0\r\nQUIX"),
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_proxy_header header = { .size = 77 };

        if (http_proxy_header_parse(rows[i], &header) != HTTP_ERROR) {
            fail_msg("row %zu: %.*s", i, SV_ARG(rows[i]));
        }
        assert_int_equal(header.size, 77);
    }
}

static void a_line_without_end_is_given_up(void **state)
{
    char line[200];
    struct http_proxy_header header = { 0 };

    (void)state;
    (void)snprintf(line, sizeof(line), "PROXY UNKNOWN %0120d", 0);
    assert_int_equal(http_proxy_header_parse(sv_of(line, 106), &header), HTTP_MORE);
    assert_int_equal(http_proxy_header_parse(sv_of(line, 107), &header), HTTP_ERROR);
    line[105] = '\r';
    line[106] = '\n';
    assert_int_equal(http_proxy_header_parse(sv_of(line, 107), &header), HTTP_DONE);
    line[105] = '0';
    line[106] = '\r';
    line[107] = '\n';
    assert_int_equal(http_proxy_header_parse(sv_of(line, 108), &header), HTTP_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_a_header_is_read),
        cmocka_unit_test(a_unix_client_of_the_balancer_has_no_address),
        cmocka_unit_test(what_is_no_header_is_refused),
        cmocka_unit_test(a_line_without_end_is_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
