/* emit: no value ends its line, wherever the byte stands that would. */
#include "proxy/emit.h"

#include <string.h>

#include "test/support/cmocka.h"

enum { LONGEST = 67 };

static bool passes(struct sv value)
{
    struct proxy_emit e;
    struct buf text;
    bool whole = false;

    buf_init(&text, 4096);
    proxy_emit_h1(&e, &text);
    proxy_emit_field(&e, SV("X-Any"), value);
    whole = proxy_emit_end(&e);
    buf_deinit(&text);
    return whole;
}

/* Every byte at one place of a value of n bytes. */
static void try_every_byte(size_t n, size_t at)
{
    char value[LONGEST];

    memset(value, n % 2 == 0 ? 'a' : '\t', n);
    for (unsigned c = 0; c < 256; c++) {
        bool want = c != '\r' && c != '\n' && c != '\0';

        value[at] = (char)c;
        if (passes(sv_of(value, n)) != want) {
            fail_msg("byte %u at %zu of %zu", c, at, n);
        }
    }
}

static void a_byte_that_ends_a_line_is_found_wherever_it_stands(void **state)
{
    (void)state;
    for (size_t n = 1; n <= LONGEST; n++) {
        for (size_t at = 0; at < n; at++) {
            try_every_byte(n, at);
        }
    }
    assert_true(passes(SV("")));
}

/* Lines as they came travel together; whatever else a line says is written as we write it. */
static void fields_of_a_head_are_written_one_behind_the_other(void **state)
{
    static const char head_text[] = "HTTP/1.1 200 OK\r\nA: 1\r\nb: 2\r\nC:3\r\nD:  4 \r\nE: \r\n"
                                    "f: a\tb\r\nG:\r\n\r\n";
    struct http_field fields[8];
    struct http_field mixed[4];
    struct http_head head;
    struct proxy_emit e;
    struct buf text;

    (void)state;
    http_head_init_response(&head, NULL, HTTP_GET, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, sv_from(head_text)), HTTP_DONE);
    buf_init(&text, 4096);
    proxy_emit_h1(&e, &text);
    proxy_emit_fields(&e, fields, 0);
    proxy_emit_fields(&e, fields, head.n);
    assert_true(proxy_emit_end(&e));
    assert_string_equal(buf_cstr(&text), "A: 1\r\nb: 2\r\nC: 3\r\nD: 4\r\nE: \r\nf: a\tb\r\n"
                                         "G: \r\n\r\n");
    buf_reset(&text);
    mixed[0] = fields[0];
    mixed[1] = fields[5]; /* no neighbour */
    mixed[2] = fields[1];
    mixed[3] = (struct http_field){ .name = SV("x"), .value = SV("y\r\nz: w") }; /* in no line */
    proxy_emit_h1(&e, &text);
    proxy_emit_fields(&e, mixed, 3);
    assert_true(proxy_emit_end(&e));
    assert_string_equal(buf_cstr(&text), "A: 1\r\nf: a\tb\r\nb: 2\r\n\r\n");
    proxy_emit_fields(&e, mixed, 4);
    assert_false(proxy_emit_end(&e));
    buf_deinit(&text);
}

/* RFC 7541 §6.2.3. In HTTP/1 there is no table, and it is a field like the others. */
static void an_id_gets_no_place_in_the_table_of_http_2(void **state)
{
    struct proxy_emit e;
    struct arena arena;
    struct buf text;

    (void)state;
    arena_init(&arena);
    proxy_emit_h2(&e, &arena);
    proxy_emit_status(&e, 204, SV("No Content"));
    proxy_emit_clean(&e, SV("server"), SV("s"));
    proxy_emit_unique(&e, SV("x-request-id"), SV("1"));
    proxy_emit_clean(&e, SV("vary"), SV("*"));
    assert_true(proxy_emit_end(&e));
    assert_int_equal(e.n, 4);
    assert_int_equal(e.nv[0].valuelen, 3);
    assert_memory_equal(e.nv[0].value, "204", 3);
    assert_int_equal(e.nv[1].flags, NGHTTP2_NV_FLAG_NONE);
    assert_int_equal(e.nv[2].flags, NGHTTP2_NV_FLAG_NO_INDEX);
    assert_int_equal(e.nv[3].flags, NGHTTP2_NV_FLAG_NONE);
    while (!e.failed) { /* until it is full: nobody else's flag is touched */
        proxy_emit_unique(&e, SV("x"), SV("y"));
    }
    assert_int_equal(e.n, PROXY_EMIT_FIELDS_MAX);
    assert_int_equal(e.nv[3].flags, NGHTTP2_NV_FLAG_NONE);
    arena_deinit(&arena);

    buf_init(&text, 4096);
    proxy_emit_h1(&e, &text);
    proxy_emit_status(&e, 204, SV("No Content"));
    proxy_emit_unique(&e, SV("x-request-id"), SV("1"));
    assert_true(proxy_emit_end(&e));
    assert_string_equal(buf_cstr(&text), "HTTP/1.1 204 No Content\r\nx-request-id: 1\r\n\r\n");
    buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_byte_that_ends_a_line_is_found_wherever_it_stands),
        cmocka_unit_test(fields_of_a_head_are_written_one_behind_the_other),
        cmocka_unit_test(an_id_gets_no_place_in_the_table_of_http_2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
