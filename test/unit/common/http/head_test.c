/* head: what is taken, what is refused and why, and that the way bytes arrive changes nothing. */
#include "common/http/head.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/http/chars.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

struct row {
    const char *head; /* "\r\n\r\n" is added */
    enum http_fault fault;
};

static enum http_fault parse(const char *text, enum http_kind kind, struct http_head *head,
                             struct http_field *fields, size_t cap)
{
    enum http_step step = HTTP_MORE;

    http_head_init(head, kind, NULL, fields, cap);
    step = http_head_parse(head, sv_from(text));
    assert_int_not_equal(step, HTTP_MORE);
    assert_int_equal(step == HTTP_ERROR, head->fault != HTTP_FAULT_NONE);
    return head->fault;
}

static void check(const struct row *rows, size_t n, enum http_kind kind)
{
    struct http_field fields[64];
    struct http_head head;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        char text[1024];
        enum http_fault fault = HTTP_FAULT_NONE;

        (void)snprintf(text, sizeof(text), "%s\r\n\r\n", rows[i].head);
        fault = parse(text, kind, &head, fields, ARRAY_LEN(fields));
        if (fault != rows[i].fault) {
            print_error("want %s, got %s:\n%s", http_fault_name(rows[i].fault),
                        http_fault_name(fault), text);
        }
        assert_int_equal(fault, rows[i].fault);
    }
}

#define H "\r\nHost: a"

static void request_lines_have_one_form(void **state)
{
    static const struct row rows[] = {
        { "GET / HTTP/1.1" H, 0 },
        { "\r\nGET / HTTP/1.1" H, 0 },
        { "M-SEARCH * HTTP/1.1" H, HTTP_FAULT_METHOD_UNKNOWN },
        { "get / HTTP/1.1" H, HTTP_FAULT_METHOD_UNKNOWN },
        { "TRACE / HTTP/1.1" H, HTTP_FAULT_METHOD_REFUSED },
        { "GET /" H, HTTP_FAULT_START_LINE }, /* HTTP/0.9 */
        { "GET  / HTTP/1.1" H, HTTP_FAULT_START_LINE },
        { "GET /  HTTP/1.1" H, HTTP_FAULT_START_LINE },
        { "GET / HTTP/1.1 " H, HTTP_FAULT_START_LINE },
        { "GET\t/ HTTP/1.1" H, HTTP_FAULT_START_LINE },
        { "GET /\tHTTP/1.1" H, HTTP_FAULT_TARGET },
        { " GET / HTTP/1.1" H, HTTP_FAULT_START_LINE },
        { "\r\n\r\nGET / HTTP/1.1" H, HTTP_FAULT_START_LINE },
        { "\nGET / HTTP/1.1" H, HTTP_FAULT_LINE_END },
        { "GET / HTTP/1.1\nHost: a", HTTP_FAULT_LINE_END },
        { "GET / \rHTTP/1.1" H, HTTP_FAULT_START_LINE },
        { "GET /\x01 HTTP/1.1" H, HTTP_FAULT_TARGET },
        { "GET /\x7f HTTP/1.1" H, HTTP_FAULT_TARGET },
        { "GET /\xc3\xa4 HTTP/1.1" H, HTTP_FAULT_TARGET },
        { "GET /a#b HTTP/1.1" H, HTTP_FAULT_TARGET },
        { "GET / http/1.1" H, HTTP_FAULT_START_LINE },
        { "GET / HTTP/1.10" H, HTTP_FAULT_START_LINE },
        { "GET / HTTP/1" H, HTTP_FAULT_START_LINE },
        { "GET / HTTP/1.2" H, HTTP_FAULT_VERSION },
        { "GET / HTTP/2.0" H, HTTP_FAULT_VERSION },
        { "PRI * HTTP/2.0\r\n\r\nSM", HTTP_FAULT_VERSION },
        { "GET / HTTP/0.9" H, HTTP_FAULT_VERSION },
        { "GET a HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "GET * HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "OPTIONS * HTTP/1.1" H, 0 },
        { "OPTIONS *a HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "GET a:80 HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "GET ftp://a/ HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "GET file:///etc/passwd HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "CONNECT / HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "CONNECT a HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "CONNECT a:22 HTTP/1.1" H, 0 },
        { "CONNECT a:22 HTTP/1.1" H ":22", 0 },
        { "CONNECT a:22 HTTP/1.1" H ":23", HTTP_FAULT_HOST_MISMATCH },
        { "CONNECT b:22 HTTP/1.1" H, HTTP_FAULT_HOST_MISMATCH },
        { "CONNECT http://a:22 HTTP/1.1" H, HTTP_FAULT_TARGET_FORM },
        { "\x16\x03\x01 HTTP/1.1" H, HTTP_FAULT_START_LINE }, /* TLS */
    };

    (void)state;
    check(rows, ARRAY_LEN(rows), HTTP_REQUEST);
}

#define G "GET / HTTP/1.1"

static void the_host_is_one_and_agrees_with_the_target(void **state)
{
    static const struct row rows[] = {
        { G, HTTP_FAULT_HOST_MISSING },
        { "GET / HTTP/1.0", HTTP_FAULT_HOST_MISSING },
        { "GET http://a/ HTTP/1.1", HTTP_FAULT_HOST_MISSING },
        { G "\r\nHost: a\r\nHost: a", HTTP_FAULT_DUPLICATE },
        { G "\r\nHost: a\r\nhOST: b", HTTP_FAULT_DUPLICATE },
        { G "\r\nHost:", HTTP_FAULT_HOST },
        { G "\r\nHost: a,b", HTTP_FAULT_HOST },
        { G "\r\nHost: a b", HTTP_FAULT_HOST },
        { G "\r\nHost: a/b", HTTP_FAULT_HOST },
        { G "\r\nHost: a?b", HTTP_FAULT_HOST },
        { G "\r\nHost: a@b", HTTP_FAULT_HOST },
        { G "\r\nHost: a%00", HTTP_FAULT_HOST },
        { G "\r\nHost: a%2eb", HTTP_FAULT_HOST },
        { G "\r\nHost: a:", HTTP_FAULT_HOST },
        { G "\r\nHost: a:0", HTTP_FAULT_HOST },
        { G "\r\nHost: a:080", HTTP_FAULT_HOST },
        { G "\r\nHost: a:65536", HTTP_FAULT_HOST },
        { G "\r\nHost: a:80:80", HTTP_FAULT_HOST },
        { G "\r\nHost: \xc3\xa4", HTTP_FAULT_HOST },
        { G "\r\nHost: ::1", HTTP_FAULT_HOST },
        { G "\r\nHost: [::1", HTTP_FAULT_HOST },
        { G "\r\nHost: [::1]x", HTTP_FAULT_HOST },
        { G "\r\nHost: [::1%25eth0]", HTTP_FAULT_HOST },
        { G "\r\nHost: [v1.x]", HTTP_FAULT_HOST },
        { G "\r\nHost: 127.1", HTTP_FAULT_HOST },
        { G "\r\nHost: 0x7f.0.0.1", HTTP_FAULT_HOST },
        { G "\r\nHost: 2130706433", HTTP_FAULT_HOST },
        { G "\r\nHost: 010.0.0.1", HTTP_FAULT_HOST },
        { G "\r\nHost: 1.2.3.4.", HTTP_FAULT_HOST },
        { G "\r\nHost: a..b", HTTP_FAULT_HOST },
        { G "\r\nHost: .a", HTTP_FAULT_HOST },
        { G "\r\nHost: my_app.example.com:8443", 0 },
        { G "\r\nHost: [::1]:80", 0 },
        { G "\r\nHost: 1.2.3.4", 0 },
        { "GET http://a/ HTTP/1.1" H, 0 },
        { "GET http://A:80/ HTTP/1.1" H, 0 },
        { "GET https://a:443/ HTTP/1.1" H, 0 },
        { "GET http://a:81/ HTTP/1.1" H, HTTP_FAULT_HOST_MISMATCH },
        { "GET http://b/ HTTP/1.1" H, HTTP_FAULT_HOST_MISMATCH },
        { "GET http://b@a/ HTTP/1.1" H, HTTP_FAULT_TARGET },
        { "GET http:///x HTTP/1.1" H, HTTP_FAULT_TARGET },
        { "GET http://a\\@b/ HTTP/1.1" H, HTTP_FAULT_TARGET },
    };

    (void)state;
    check(rows, ARRAY_LEN(rows), HTTP_REQUEST);
}

#define P "POST / HTTP/1.1" H

/* CL.TE, TE.CL, TE.TE and their disguises. */
static void a_body_has_one_end(void **state)
{
    static const struct row rows[] = {
        { P "\r\nContent-Length: 5", 0 },
        { P "\r\nTransfer-Encoding: chunked", 0 },
        { P "\r\nTransfer-Encoding: CHUNKED", 0 },
        { P "\r\nTransfer-Encoding:\tchunked\t", 0 },
        { P "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", HTTP_FAULT_LENGTH_AND_CODING },
        { P "\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", HTTP_FAULT_LENGTH_AND_CODING },
        { P "\r\nContent-Length: 0\r\nTransfer-Encoding: identity", HTTP_FAULT_LENGTH_AND_CODING },
        { P "\r\nContent-Length: 5\r\nContent-Length: 5", HTTP_FAULT_DUPLICATE },
        { P "\r\nContent-Length: 5\r\ncontent-length: 6", HTTP_FAULT_DUPLICATE },
        { P "\r\nContent-Length: 5, 5", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 5,6", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length:", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: +5", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: -5", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 05", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 5 5", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 0x5", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 5.0", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 5;", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: \"5\"", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 99999999999999999999", HTTP_FAULT_LENGTH },
        { P "\r\nContent-Length: 18446744073709551621", HTTP_FAULT_LENGTH },
        { P "\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", HTTP_FAULT_DUPLICATE },
        { P "\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x", HTTP_FAULT_DUPLICATE },
        { P "\r\nTransfer-Encoding: chunked, chunked", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: chunked, identity", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: identity", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: gzip, chunked", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: xchunked", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: chunked;q=1", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: \"chunked\"", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: ,chunked", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding:", HTTP_FAULT_CODING },
        { P "\r\nTransfer-Encoding: chunked\x0b", HTTP_FAULT_CONTROL },
        { P "\r\nTransfer-Encoding : chunked", HTTP_FAULT_NAME },
        { P "\r\nTransfer-Encoding\t: chunked", HTTP_FAULT_NAME },
        { P "\r\n Transfer-Encoding: chunked", HTTP_FAULT_FOLD },
        { P "\r\nTransfer-Encoding:\r\n chunked", HTTP_FAULT_FOLD },
        { P "\r\nX: y\nTransfer-Encoding: chunked", HTTP_FAULT_LINE_END },
        { P "\r\nX: y\rTransfer-Encoding: chunked", HTTP_FAULT_LINE_END },
        { P "\r\nTransfer_Encoding: chunked", HTTP_FAULT_UNDERSCORE },
        { "POST / HTTP/1.0" H "\r\nTransfer-Encoding: chunked", HTTP_FAULT_CODING_VERSION },
        { "POST / HTTP/1.0" H, HTTP_FAULT_LENGTH_REQUIRED },
        { "POST / HTTP/1.0" H "\r\nContent-Length: 0", 0 },
        { "CONNECT a:1 HTTP/1.1" H "\r\nContent-Length: 5", HTTP_FAULT_UPGRADE_BODY },
        { "CONNECT a:1 HTTP/1.1" H "\r\nTransfer-Encoding: chunked", HTTP_FAULT_UPGRADE_BODY },
        { G H "\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5",
          HTTP_FAULT_UPGRADE_BODY },
        { P "\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nContent-Length: 5", 0 },
    };

    (void)state;
    check(rows, ARRAY_LEN(rows), HTTP_REQUEST);
}

static void fields_are_clean_or_refused(void **state)
{
    static const struct row rows[] = {
        { G H "\r\nX:", 0 },
        { G H "\r\nX: \t ", 0 },
        { G H "\r\nX: a\tb", 0 },
        { G H "\r\nX: \x80\xff caf\xc3\xa9", 0 },
        { G H "\r\n!#$%&'*+-.^`|~: x", 0 },
        { G H "\r\n: x", HTTP_FAULT_NAME },
        { G H "\r\nX", HTTP_FAULT_NAME },
        { G H "\r\nX : y", HTTP_FAULT_NAME },
        { G H "\r\nX y: z", HTTP_FAULT_NAME },
        { G H "\r\nX\xc3\xa4: z", HTTP_FAULT_NAME },
        { G H "\r\nX\x01: z", HTTP_FAULT_NAME },
        { G H "\r\n\"X\": z", HTTP_FAULT_NAME },
        { G H "\r\nX(: z", HTTP_FAULT_NAME },
        { G H "\r\nX: a\r\n b", HTTP_FAULT_FOLD },
        { G H "\r\nX: a\r\n\tb", HTTP_FAULT_FOLD },
        { G "\r\n Host: a", HTTP_FAULT_FOLD },
        { G H "\r\nX: a\x01", HTTP_FAULT_CONTROL },
        { G H "\r\nX: 0123456789\x7f", HTTP_FAULT_CONTROL },
        { G H "\r\nX: 01234567\x1f"
              "9abcdef",
          HTTP_FAULT_CONTROL },
        { G H "\r\nX: a\rb", HTTP_FAULT_LINE_END },
        { G H "\r\nX: a\r", HTTP_FAULT_LINE_END },
        { G H "\r\nX: a\nY: b", HTTP_FAULT_LINE_END },
        { G H "\r\nX_Y: z", HTTP_FAULT_UNDERSCORE },
        { G H "\r\nX_Pomerium_Jwt_Assertion: z", HTTP_FAULT_UNDERSCORE },
        { G H "\r\nAuthorization: a\r\nAuthorization: b", HTTP_FAULT_DUPLICATE },
        { G H "\r\nContent-Type: a\r\nContent-Type: b", HTTP_FAULT_DUPLICATE },
        { G H "\r\nOrigin: http://a\r\nOrigin: http://b", HTTP_FAULT_DUPLICATE },
        { G H "\r\nAccept: a\r\nAccept: b\r\nCookie: a=1\r\nCookie: b=2", 0 },
        { G H "\r\nExpect: 100-continue", 0 },
        { G H "\r\nExpect: 200-ok", HTTP_FAULT_EXPECT },
        { G H "\r\nConnection: close, X-Real-IP", 0 },
        { G H "\r\nConnection: ,, close ,", 0 },
        { G H "\r\nConnection: host", HTTP_FAULT_CONNECTION },
        { G H "\r\nConnection: Content-Length", HTTP_FAULT_CONNECTION },
        { G H "\r\nConnection: a b", HTTP_FAULT_CONNECTION },
        { G H "\r\nConnection: \"close\"", HTTP_FAULT_CONNECTION },
    };
    struct http_field fields[8];
    struct http_head head;

    (void)state;
    check(rows, ARRAY_LEN(rows), HTTP_REQUEST);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, SV(G H "\r\nX: a\0b\r\n\r\n")), HTTP_ERROR);
    assert_int_equal(head.fault, HTTP_FAULT_CONTROL);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, SV(G H "\r\nX\0: b\r\n\r\n")), HTTP_ERROR);
    assert_int_equal(head.fault, HTTP_FAULT_NAME);
}

static void the_message_is_told_in_full(void **state)
{
    static const char text[] = "GET /p?q HTTP/1.1\r\nhost: a:80\r\nX-One:  1 \r\nCookie: a\r\n"
                               "Connection: x-one, Keep-Alive\r\nCookie: b\r\nTE: trailers\r\n\r\n"
                               "body";
    struct http_field fields[16];
    struct http_head head;

    (void)state;
    assert_int_equal(parse(text, HTTP_REQUEST, &head, fields, ARRAY_LEN(fields)), HTTP_FAULT_NONE);
    assert_int_equal(head.size, sizeof(text) - 1 - 4);
    assert_int_equal(head.method, HTTP_GET);
    assert_int_equal(head.form, HTTP_FORM_ORIGIN);
    assert_true(sv_eq(head.target, SV("/p?q")));
    assert_true(sv_eq(head.host, SV("a:80")));
    assert_int_equal(head.n, 6);
    assert_int_equal(head.framing, HTTP_BODY_NONE);
    assert_true(head.keep_alive);
    assert_true(head.te_trailers);
    assert_true(sv_eq(http_head_find(&head, SV("X-ONE"))->value, SV("1")));
    assert_int_equal(http_head_find(&head, SV("x-one"))->flags, HTTP_F_HOP);
    assert_int_equal(http_head_get(&head, HTTP_H_TE)->flags, HTTP_F_HOP | HTTP_F_LINE);
    assert_int_equal(http_head_get(&head, HTTP_H_COOKIE)->flags, HTTP_F_LINE);
    assert_int_equal(http_head_count(&head, HTTP_H_COOKIE), 2);
    assert_int_equal(http_head_count(&head, HTTP_H_ACCEPT), 0);
    assert_null(http_head_find(&head, SV("absent")));
    assert_null(http_head_get(&head, HTTP_H_ACCEPT));
    assert_int_equal(http_head_value(&head, HTTP_H_ACCEPT).n, 0);
    assert_int_equal(http_head_parse(&head, sv_from(text)), HTTP_DONE);
}

static void keep_alive_and_upgrade_follow_version_and_connection(void **state)
{
    static const struct {
        const char *head;
        bool keep_alive;
        bool upgrade;
        bool websocket;
    } rows[] = {
        { G H, true, false, false },
        { G H "\r\nConnection: close", false, false, false },
        { G H "\r\nConnection: Keep-Alive, CLOSE", false, false, false },
        { "GET / HTTP/1.0" H, false, false, false },
        { "GET / HTTP/1.0" H "\r\nConnection: keep-alive", true, false, false },
        { G H "\r\nUpgrade: websocket", true, false, false },
        { G H "\r\nConnection: upgrade", true, false, false },
        { G H "\r\nConnection: Upgrade\r\nUpgrade: WebSocket", true, true, true },
        { G H "\r\nConnection: Upgrade\r\nUpgrade: h2c", true, true, false },
        { G H "\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c", true, true, false },
        { G H "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c", true, true, false },
        { P "\r\nConnection: Upgrade\r\nUpgrade: websocket", true, true, false },
        { "GET / HTTP/1.0" H "\r\nConnection: Upgrade\r\nUpgrade: websocket", false, false, false },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_field fields[8];
        struct http_head head;
        char text[256];

        (void)snprintf(text, sizeof(text), "%s\r\n\r\n", rows[i].head);
        assert_int_equal(parse(text, HTTP_REQUEST, &head, fields, ARRAY_LEN(fields)), 0);
        assert_int_equal(head.keep_alive, rows[i].keep_alive);
        assert_int_equal(head.upgrade, rows[i].upgrade);
        assert_int_equal(head.websocket, rows[i].websocket);
    }
}

static void responses_end_where_status_and_method_say(void **state)
{
    static const struct {
        const char *head;
        enum http_method method;
        enum http_fault fault;
        enum http_framing framing;
        bool keep_alive;
    } rows[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 3", HTTP_GET, 0, HTTP_BODY_LENGTH, true },
        { "HTTP/1.1 200\r\nContent-Length: 3", HTTP_GET, 0, HTTP_BODY_LENGTH, true },
        { "HTTP/1.1 200 \r\nContent-Length: 0", HTTP_GET, 0, HTTP_BODY_LENGTH, true },
        { "HTTP/1.1 200 OK", HTTP_GET, 0, HTTP_BODY_UNTIL_CLOSE, false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 3", HTTP_GET, 0, HTTP_BODY_LENGTH, false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", HTTP_GET, 0, HTTP_BODY_CHUNKED, true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3", HTTP_HEAD, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", HTTP_HEAD, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 304 x\r\nContent-Length: 3", HTTP_GET, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 204 x", HTTP_GET, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 204 x\r\nContent-Length: 0", HTTP_GET, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 204 x\r\nContent-Length: 3", HTTP_GET, 0, HTTP_BODY_NONE, false },
        { "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked", HTTP_GET, 0, HTTP_BODY_NONE, false },
        { "HTTP/1.1 100 Continue", HTTP_POST, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket", HTTP_GET, 0,
          HTTP_BODY_NONE, true },
        { "HTTP/1.1 200 x", HTTP_CONNECT, 0, HTTP_BODY_NONE, true },
        { "HTTP/1.1 403 x\r\nContent-Length: 1", HTTP_CONNECT, 0, HTTP_BODY_LENGTH, true },
        { "HTTP/1.1 200 x\r\nx_y: z\r\nContent-Type: a\r\nContent-Type: b\r\nContent-Length: 1",
          HTTP_GET, 0, HTTP_BODY_LENGTH, true },
        { "HTTP/1.1 200 x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", HTTP_GET,
          HTTP_FAULT_LENGTH_AND_CODING, 0, false },
        { "HTTP/1.1 200 x\r\nContent-Length: 3\r\nContent-Length: 3", HTTP_GET,
          HTTP_FAULT_DUPLICATE, 0, false },
        { "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip", HTTP_GET, HTTP_FAULT_CODING, 0, false },
        { "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked", HTTP_GET, HTTP_FAULT_CODING_VERSION, 0,
          false },
        { "HTTP/1.1 99 x", HTTP_GET, HTTP_FAULT_STATUS, 0, false },
        { "HTTP/1.1 600 x", HTTP_GET, HTTP_FAULT_STATUS, 0, false },
        { "HTTP/1.1 2000 x", HTTP_GET, HTTP_FAULT_STATUS, 0, false },
        { "HTTP/1.1 20x x", HTTP_GET, HTTP_FAULT_STATUS, 0, false },
        { "HTTP/1.1  200 x", HTTP_GET, HTTP_FAULT_STATUS, 0, false },
        { "HTTP/2.0 200 x", HTTP_GET, HTTP_FAULT_VERSION, 0, false },
        { "HTP/1.1 200 x", HTTP_GET, HTTP_FAULT_START_LINE, 0, false },
        { "HTTP/1.1 200 a\rb", HTTP_GET, HTTP_FAULT_LINE_END, 0, false },
        { "HTTP/1.1 200 a\x01", HTTP_GET, HTTP_FAULT_CONTROL, 0, false },
        { "HTTP/1.1 200 x\r\nA: b\r\n c", HTTP_GET, HTTP_FAULT_FOLD, 0, false },
        { "\r\nHTTP/1.1 200 x", HTTP_GET, HTTP_FAULT_START_LINE, 0, false },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_field fields[8];
        struct http_head head;
        char text[256];

        (void)snprintf(text, sizeof(text), "%s\r\n\r\n", rows[i].head);
        http_head_init_response(&head, NULL, rows[i].method, fields, ARRAY_LEN(fields));
        assert_int_equal(http_head_parse(&head, sv_from(text)),
                         rows[i].fault == HTTP_FAULT_NONE ? HTTP_DONE : HTTP_ERROR);
        assert_int_equal(head.fault, rows[i].fault);
        if (rows[i].fault == HTTP_FAULT_NONE) {
            assert_int_equal(head.framing, rows[i].framing);
            assert_int_equal(head.keep_alive, rows[i].keep_alive);
        }
    }
}

/* A parser that is fed byte by byte, from a buffer that moves each time. */
static void check_split(const char *text, enum http_kind kind)
{
    struct http_field whole_fields[32];
    struct http_field fields[32];
    struct http_head whole;
    struct http_head head;
    enum http_step want = HTTP_MORE;
    enum http_step step = HTTP_MORE;
    size_t n = strlen(text);
    char *copy = NULL;
    size_t i = 0;

    http_head_init(&whole, kind, NULL, whole_fields, ARRAY_LEN(whole_fields));
    want = http_head_parse(&whole, sv_from(text));
    http_head_init(&head, kind, NULL, fields, ARRAY_LEN(fields));
    for (i = 0; i <= n && step == HTTP_MORE; i++) {
        char *moved = mem_dup(text, i + 1);

        step = http_head_parse(&head, sv_of(moved, i));
        mem_free(&copy);
        copy = moved;
    }
    assert_int_equal(step, want);
    assert_int_equal(head.fault, whole.fault);
    if (want == HTTP_DONE) {
        assert_int_equal(head.size, whole.size);
        assert_int_equal(head.n, whole.n);
        assert_true(sv_eq(head.target, whole.target));
        assert_true(sv_eq(head.host, whole.host));
        assert_int_equal(head.framing, whole.framing);
        for (i = 0; i < head.n; i++) {
            assert_true(sv_eq(fields[i].name, whole_fields[i].name));
            assert_true(sv_eq(fields[i].value, whole_fields[i].value));
        }
    }
    mem_free(&copy);
}

static void the_way_bytes_arrive_changes_nothing(void **state)
{
    (void)state;
    check_split("GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\nConnection: x\r\n\r\nrest", HTTP_REQUEST);
    check_split("\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nrest", HTTP_REQUEST);
    check_split("GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", HTTP_REQUEST);
    check_split("GET /a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", HTTP_REQUEST);
    check_split("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrest", HTTP_RESPONSE);
    check_split("X: y\r\nZ: 1\r\n\r\n", HTTP_TRAILER);
    check_split("\r\n", HTTP_TRAILER);
}

static void limits_have_their_own_answers(void **state)
{
    static const struct http_rules rules = { .head_bytes = 400, .line_bytes = 64, .fields = 3 };
    struct http_field fields[8];
    struct http_head head;
    struct buf text;
    int i = 0;

    (void)state;
    buf_init(&text, 4096);
    buf_add_str(&text, "GET /");
    for (i = 0; i < 80; i++) {
        buf_add_char(&text, 'a');
    }
    http_head_init(&head, HTTP_REQUEST, &rules, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, buf_sv(&text)), HTTP_ERROR); /* before its end */
    assert_int_equal(head.fault, HTTP_FAULT_TARGET_LONG);
    assert_int_equal(http_fault_status(head.fault), 414);

    buf_reset(&text);
    buf_add_str(&text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for (i = 0; i < 400; i++) {
        buf_add_char(&text, 'a');
    }
    http_head_init(&head, HTTP_REQUEST, &rules, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, buf_sv(&text)), HTTP_ERROR);
    assert_int_equal(head.fault, HTTP_FAULT_HEAD_LARGE);
    assert_int_equal(http_fault_status(head.fault), 431);

    http_head_init(&head, HTTP_REQUEST, &rules, fields, ARRAY_LEN(fields));
    assert_int_equal(
        http_head_parse(&head, SV("GET / HTTP/1.1\r\nHost: a\r\nB: \r\nC: \r\nD: \r\n\r\n")),
        HTTP_ERROR);
    assert_int_equal(head.fault, HTTP_FAULT_FIELDS_MANY);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, 2);
    assert_int_equal(http_head_parse(&head, SV("GET / HTTP/1.1\r\nHost: a\r\nB: \r\nC: \r\n\r\n")),
                     HTTP_ERROR);
    assert_int_equal(head.fault, HTTP_FAULT_FIELDS_MANY);
    buf_deinit(&text);
}

static void a_line_is_told_apart_from_what_only_means_the_same(void **state)
{
    static const struct {
        const char *line;
        bool as_we_write_it;
    } rows[] = {
        { "X-Any: v", true },     { "X-Any: a, b", true }, { "X-Any: ", true },
        { "accept: a\tb", true }, { "X-Any:v", false },    { "X-Any:  v", false },
        { "X-Any:\tv", false },   { "X-Any: v ", false },  { "X-Any: v\t", false },
        { "X-Any:", false },      { "X-Any:  ", false },   { "Accept: \tv", false },
    };
    struct http_field fields[8];
    struct http_head head;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[128];
        struct sv line = sv_from(rows[i].line);

        (void)snprintf(text, sizeof(text), G H "\r\n%s\r\nX-Last: z\r\n\r\n", rows[i].line);
        http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
        assert_int_equal(http_head_parse(&head, sv_from(text)), HTTP_DONE);
        if (((fields[1].flags & HTTP_F_LINE) != 0) != rows[i].as_we_write_it) {
            fail_msg("\"%s\"", rows[i].line);
        }
        assert_ptr_equal(fields[2].name.p, fields[1].name.p + line.n + 2);
        if (rows[i].as_we_write_it) {
            assert_true(sv_starts(http_field_line(&fields[1]), line));
            assert_ptr_equal(http_field_line(&fields[1]).p + http_field_line(&fields[1]).n,
                             fields[2].name.p);
        }
    }
    http_head_init(&head, HTTP_TRAILER, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_add(&head, SV("x-any"), SV("v")), HTTP_FAULT_NONE);
    assert_int_equal(fields[0].flags, 0); /* a field of HTTP/2 stands in no line */
}

static void underscore_rules_are_three(void **state)
{
    static const struct http_rules drop = { .underscores = HTTP_UNDERSCORE_DROP };
    static const struct http_rules allow = { .underscores = HTTP_UNDERSCORE_ALLOW };
    struct http_field fields[8];
    struct http_head head;

    (void)state;
    http_head_init(&head, HTTP_REQUEST, &drop, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, SV(G H "\r\nX_Y: z\r\n\r\n")), HTTP_DONE);
    assert_int_equal(fields[1].flags, HTTP_F_DROP | HTTP_F_UNDERSCORE | HTTP_F_LINE);
    http_head_init(&head, HTTP_REQUEST, &allow, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, SV(G H "\r\nX_Y: z\r\n\r\n")), HTTP_DONE);
    assert_int_equal(fields[1].flags, HTTP_F_UNDERSCORE | HTTP_F_LINE);
}

struct h2_row {
    enum http_method method;
    enum http_fault fault;
    const char *target;
    const char *authority;
    const char *name;
    const char *value;
};

static void heads_from_http2_pass_the_same_checks(void **state)
{
    static const struct h2_row rows[] = {
        { HTTP_GET, 0, "/a", "x", "accept", "a" },
        { HTTP_POST, 0, "/a", "x", "content-length", "5" },
        { HTTP_POST, HTTP_FAULT_LENGTH, "/a", "x", "content-length", "+5" },
        { HTTP_GET, 0, "/a", "x", "host", "X" },
        { HTTP_GET, HTTP_FAULT_HOST_MISMATCH, "/a", "x", "host", "y" },
        { HTTP_GET, 0, "/a", "", "host", "y" },
        { HTTP_GET, HTTP_FAULT_HOST_MISSING, "/a", "", "accept", "y" },
        { HTTP_GET, HTTP_FAULT_HOST, "/a", "x y", "accept", "y" },
        { HTTP_GET, HTTP_FAULT_CONNECTION, "/a", "x", "connection", "close" },
        { HTTP_GET, HTTP_FAULT_CONNECTION, "/a", "x", "transfer-encoding", "chunked" },
        { HTTP_GET, HTTP_FAULT_CONNECTION, "/a", "x", "upgrade", "websocket" },
        { HTTP_GET, 0, "/a", "x", "te", "trailers" },
        { HTTP_GET, HTTP_FAULT_CONNECTION, "/a", "x", "te", "gzip" },
        { HTTP_GET, HTTP_FAULT_TARGET, "/a b", "x", "a", "b" },
        { HTTP_GET, HTTP_FAULT_TARGET, "/a#b", "x", "a", "b" },
        { HTTP_GET, HTTP_FAULT_TARGET_FORM, "a", "x", "a", "b" },
        { HTTP_GET, HTTP_FAULT_TARGET_FORM, "", "x", "a", "b" },
        { HTTP_OPTIONS, 0, "*", "x", "a", "b" },
        { HTTP_CONNECT, 0, "x:22", "x:22", "a", "b" },
        { HTTP_CONNECT, HTTP_FAULT_TARGET_FORM, "y:22", "x:22", "a", "b" },
        { HTTP_TRACE, HTTP_FAULT_METHOD_REFUSED, "/", "x", "a", "b" },
        { HTTP_UNKNOWN, HTTP_FAULT_METHOD_UNKNOWN, "/", "x", "a", "b" },
        { HTTP_GET, HTTP_FAULT_NAME, "/", "x", "a b", "b" },
        { HTTP_GET, HTTP_FAULT_LINE_END, "/", "x", "a", "b\nc" },
        { HTTP_GET, HTTP_FAULT_UNDERSCORE, "/", "x", "a_b", "c" },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_field fields[8];
        struct http_head head;
        enum http_fault fault = HTTP_FAULT_NONE;

        http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
        head.http2 = true;
        head.method = rows[i].method;
        head.target = sv_from(rows[i].target);
        head.host = rows[i].authority[0] == '\0' ? (struct sv){ 0 } : sv_from(rows[i].authority);
        fault = http_head_add(&head, sv_from(rows[i].name), sv_from(rows[i].value));
        if (fault == HTTP_FAULT_NONE) {
            fault = http_head_seal(&head);
        }
        if (fault != rows[i].fault) {
            print_error("row %zu: want %s, got %s\n", i, http_fault_name(rows[i].fault),
                        http_fault_name(fault));
        }
        assert_int_equal(fault, rows[i].fault);
    }
}

static void every_fault_has_a_status_and_a_name(void **state)
{
    int fault = 0;

    (void)state;
    for (fault = 1; fault < HTTP_FAULT_COUNT; fault++) {
        unsigned status = http_fault_status((enum http_fault)fault);

        assert_true(status >= 400 && status <= 505);
        assert_true(http_status_reason(status).n > 0);
        assert_false(sv_eq(http_status_reason(status), SV("Unknown")));
        assert_true(strlen(http_fault_name((enum http_fault)fault)) > 3);
    }
    assert_int_equal(http_fault_status(HTTP_FAULT_COUNT), 400);
    assert_true(sv_eq(http_status_reason(999), SV("Unknown")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_lines_have_one_form),
        cmocka_unit_test(the_host_is_one_and_agrees_with_the_target),
        cmocka_unit_test(a_body_has_one_end),
        cmocka_unit_test(fields_are_clean_or_refused),
        cmocka_unit_test(the_message_is_told_in_full),
        cmocka_unit_test(keep_alive_and_upgrade_follow_version_and_connection),
        cmocka_unit_test(responses_end_where_status_and_method_say),
        cmocka_unit_test(the_way_bytes_arrive_changes_nothing),
        cmocka_unit_test(limits_have_their_own_answers),
        cmocka_unit_test(a_line_is_told_apart_from_what_only_means_the_same),
        cmocka_unit_test(underscore_rules_are_three),
        cmocka_unit_test(heads_from_http2_pass_the_same_checks),
        cmocka_unit_test(every_fault_has_a_status_and_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
