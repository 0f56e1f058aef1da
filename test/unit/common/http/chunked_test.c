/* chunked: the sizes, extensions and trailers that one server takes and another one does not. */
#include "common/http/chunked.h"

#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

struct result {
    enum http_step step;
    enum http_fault fault;
    char body[128];
    size_t n;
    size_t rest;
    size_t trailers;
};

/* Feeds text in pieces of step bytes; what the decoder leaves is offered again with more. */
static struct result decode(struct sv text, size_t piece, const struct http_name_set *refuse)
{
    struct http_field trailers[HTTP_TRAILERS_MAX];
    struct http_chunked_opts opts = {
        .trailers = trailers, .cap = ARRAY_LEN(trailers), .max_bytes = 100, .refuse = refuse
    };
    struct http_chunked c;
    struct result r = { .step = HTTP_MORE };
    size_t start = 0;
    size_t end = 0;

    http_chunked_init(&c, &opts);
    while (r.step == HTTP_MORE && end < text.n) {
        struct sv in = { 0 };
        struct sv data = { 0 };

        end = MIN(end + piece, text.n);
        in = sv_of(text.p + start, end - start);
        do {
            r.step = http_chunked_next(&c, &in, &data);
            if (r.step == HTTP_DATA) {
                assert_true(r.n + data.n <= sizeof(r.body));
                memcpy(r.body + r.n, data.p, data.n);
                r.n += data.n;
            }
        } while (r.step == HTTP_DATA);
        start = end - in.n;
    }
    r.fault = c.fault;
    r.rest = text.n - start;
    r.trailers = c.trailer.n;
    return r;
}

struct row {
    const char *text;
    enum http_fault fault;
    const char *body;
    size_t rest;
};

static void sizes_are_read_in_one_way_only(void **state)
{
    static const struct row rows[] = {
        { "0\r\n\r\n", 0, "", 0 },
        { "5\r\nhello\r\n0\r\n\r\n", 0, "hello", 0 },
        { "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET", 0, "hello world", 3 },
        { "A\r\n0123456789\r\n0\r\n\r\n", 0, "0123456789", 0 },
        { "a\r\n0123456789\r\n0\r\n\r\n", 0, "0123456789", 0 },
        { "3\r\n\r\n\r\r\n0\r\n\r\n", 0, "\r\n\r", 0 },
        { "\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "00\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "05\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "0x5\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "+5\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "-5\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { " 5\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "5 \r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "5\t\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "5_0\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "g\r\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "5\nhello\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "5\rhello\r\n0\r\n\r\n", HTTP_FAULT_LINE_END, "", 0 },
        { "5\r\rhello\r\n0\r\n\r\n", HTTP_FAULT_LINE_END, "", 0 },
        { "5\r\nhello0\r\n\r\n", HTTP_FAULT_CHUNK, "hello", 0 },
        { "5\r\nhello\n0\r\n\r\n", HTTP_FAULT_CHUNK, "hello", 0 },
        { "5\r\nhello\r0\r\n\r\n", HTTP_FAULT_CHUNK, "hello", 0 },
        { "5\r\nhello\r\n\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "hello", 0 },
        { "ffffffffffffffff\r\n", HTTP_FAULT_CHUNK_LARGE, "", 0 },
        { "10000000000000005\r\nhello", HTTP_FAULT_CHUNK_LARGE, "", 0 },
        { "65\r\n", HTTP_FAULT_CHUNK_LARGE, "", 0 }, /* 101 of 100 */
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        size_t piece = 0;

        for (piece = 1; piece < 20; piece++) {
            struct result r = decode(sv_from(rows[i].text), piece, NULL);

            assert_int_equal(r.fault, rows[i].fault);
            assert_int_equal(r.step, r.fault == HTTP_FAULT_NONE ? HTTP_DONE : HTTP_ERROR);
            assert_true(sv_eq(sv_of(r.body, r.n), sv_from(rows[i].body)));
            if (piece == 1 && r.fault == HTTP_FAULT_NONE) {
                assert_int_equal(r.rest, rows[i].rest);
            }
        }
    }
}

static void extensions_are_checked_bounded_and_dropped(void **state)
{
    static const struct row rows[] = {
        { "2;a\r\nok\r\n0\r\n\r\n", 0, "ok", 0 },
        { "2;a=b;c=\"d;\\\"e\"\r\nok\r\n0;x\r\n\r\n", 0, "ok", 0 },
        { "2;\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;;a\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a=\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2; a\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a b\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a\"b\"\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a=\"b\"c\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a=\"b\nc\"\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a=\"b\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a=\x80\r\nok\r\n0\r\n\r\n", HTTP_FAULT_CHUNK, "", 0 },
        { "2;a\rX\nok\r\n0\r\n\r\n", HTTP_FAULT_LINE_END, "", 0 },
    };
    struct buf text;
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        size_t piece = 0;

        for (piece = 1; piece < 20; piece++) {
            struct result r = decode(sv_from(rows[i].text), piece, NULL);

            assert_int_equal(r.fault, rows[i].fault);
            assert_true(sv_eq(sv_of(r.body, r.n), sv_from(rows[i].body)));
        }
    }
    buf_init(&text, 8192);
    buf_add_str(&text, "2;");
    for (i = 0; i < HTTP_CHUNK_EXTENSION_MAX + 1; i++) {
        buf_add_char(&text, 'a');
    }
    assert_int_equal(decode(buf_sv(&text), 4096, NULL).fault, HTTP_FAULT_CHUNK_LARGE);
    buf_reset(&text);
    for (i = 0; i < 17; i++) { /* many small ones: a bound on all of them together */
        size_t j = 0;

        buf_add_str(&text, "1;");
        for (j = 0; j < HTTP_CHUNK_EXTENSION_MAX - 2; j++) {
            buf_add_char(&text, 'a');
        }
        buf_add_str(&text, "\r\nx\r\n");
    }
    assert_int_equal(decode(buf_sv(&text), 7000, NULL).fault, HTTP_FAULT_CHUNK_LARGE);
    buf_deinit(&text);
}

static void trailers_follow_the_rules_of_fields_and_some_more(void **state)
{
    static const struct {
        const char *trailer;
        enum http_fault fault;
        size_t count;
    } rows[] = {
        { "Grpc-Status: 0\r\nX-Sum: a", 0, 2 },
        { "Content-Length: 5", HTTP_FAULT_TRAILER, 0 },
        { "transfer-encoding: chunked", HTTP_FAULT_TRAILER, 0 },
        { "Host: a", HTTP_FAULT_TRAILER, 0 },
        { "Authorization: a", HTTP_FAULT_TRAILER, 0 },
        { "Cookie: a", HTTP_FAULT_TRAILER, 0 },
        { "Set-Cookie: a", HTTP_FAULT_TRAILER, 0 },
        { "Content-Type: a", HTTP_FAULT_TRAILER, 0 },
        { "X-Forwarded-For: a", HTTP_FAULT_TRAILER, 0 },
        { "X-Pomerium-Jwt-Assertion: a", HTTP_FAULT_TRAILER, 0 },
        { "X-Pomerium-Claim-Email: a", HTTP_FAULT_TRAILER, 0 },
        { "Connection: a", HTTP_FAULT_TRAILER, 0 },
        { "X_Y: a", HTTP_FAULT_UNDERSCORE, 0 },
        { "X : a", HTTP_FAULT_NAME, 0 },
        { "X: a\r\n b", HTTP_FAULT_FOLD, 0 },
        { "X: a\nY: b", HTTP_FAULT_LINE_END, 0 },
    };
    struct http_name_set *refuse = http_name_set_new();
    size_t i = 0;

    (void)state;
    assert_int_equal(http_name_set_add_prefix(refuse, SV("x-pomerium-")), ERR_OK);
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf text;
        size_t piece = 0;

        buf_init(&text, 1024);
        buf_printf(&text, "1\r\nx\r\n0\r\n%s\r\n\r\nrest", rows[i].trailer);
        for (piece = 1; piece < 60; piece += 7) {
            struct result r = decode(buf_sv(&text), piece, refuse);

            assert_int_equal(r.fault, rows[i].fault);
            if (r.fault == HTTP_FAULT_NONE) {
                assert_int_equal(r.step, HTTP_DONE);
                assert_int_equal(r.trailers, rows[i].count);
            }
        }
        buf_deinit(&text);
    }
    http_name_set_free(&refuse);
}

static void trailers_are_bounded(void **state)
{
    struct buf text;
    int i = 0;

    (void)state;
    buf_init(&text, 65536);
    buf_add_str(&text, "0\r\n");
    for (i = 0; i <= HTTP_TRAILERS_MAX; i++) {
        buf_add_str(&text, "X: y\r\n");
    }
    buf_add_str(&text, "\r\n");
    assert_int_equal(decode(buf_sv(&text), 65536, NULL).fault, HTTP_FAULT_FIELDS_MANY);
    buf_reset(&text);
    buf_add_str(&text, "0\r\nX: ");
    for (i = 0; i < 9000; i++) {
        buf_add_char(&text, 'a');
    }
    assert_int_equal(decode(buf_sv(&text), 65536, NULL).fault, HTTP_FAULT_HEAD_LARGE);
    buf_deinit(&text);
}

static void chunk_heads_are_what_the_decoder_reads(void **state)
{
    char out[HTTP_CHUNK_HEAD_SIZE];

    (void)state;
    assert_true(sv_eq(http_chunk_head(out, 1), SV("1\r\n")));
    assert_true(sv_eq(http_chunk_head(out, 0x1f4), SV("1f4\r\n")));
    assert_true(sv_eq(http_chunk_head(out, UINT64_MAX), SV("ffffffffffffffff\r\n")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read_in_one_way_only),
        cmocka_unit_test(extensions_are_checked_bounded_and_dropped),
        cmocka_unit_test(trailers_follow_the_rules_of_fields_and_some_more),
        cmocka_unit_test(trailers_are_bounded),
        cmocka_unit_test(chunk_heads_are_what_the_decoder_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
