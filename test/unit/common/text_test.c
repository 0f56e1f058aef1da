/* sv, buf, b64, hex, duration: the text that everything else is built of, at its edges. */
#include <string.h>

#include "common/b64.h"
#include "common/buf.h"
#include "common/duration.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"
#include "common/sv.h"
#include "test/support/cmocka.h"

static void sv_cut_yields_every_piece_once(void **state)
{
    struct sv s = SV("a,,b,");
    const char *want[] = { "a", "", "b", "" };
    size_t n = 0;

    (void)state;
    while (s.p != NULL) {
        struct sv piece = sv_cut(&s, ',');

        assert_true(n < ARRAY_LEN(want));
        assert_true(sv_eq(piece, sv_from(want[n])));
        n++;
    }
    assert_int_equal(n, ARRAY_LEN(want));
}

static void sv_u64_accepts_the_range_and_nothing_else(void **state)
{
    static const struct {
        const char *text;
        uint64_t max;
        enum err err;
        uint64_t v;
    } rows[] = {
        { "0", 10, ERR_OK, 0 },
        { "10", 10, ERR_OK, 10 },
        { "11", 10, ERR_LIMIT, 0 },
        { "18446744073709551615", UINT64_MAX, ERR_OK, UINT64_MAX },
        { "18446744073709551616", UINT64_MAX, ERR_LIMIT, 0 },
        { "99999999999999999999999", UINT64_MAX, ERR_LIMIT, 0 },
        { "", 10, ERR_INVALID, 0 },
        { "+1", 10, ERR_INVALID, 0 },
        { "-1", 10, ERR_INVALID, 0 },
        { " 1", 10, ERR_INVALID, 0 },
        { "1 ", 10, ERR_INVALID, 0 },
        { "0x1", 10, ERR_INVALID, 0 },
        { "5", 0, ERR_LIMIT, 0 },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t v = 0;

        assert_int_equal(sv_u64(sv_from(rows[i].text), rows[i].max, &v), rows[i].err);
        assert_true(v == rows[i].v);
    }
}

/* Every byte at one place of a text of n. */
static void try_every_byte(size_t n, size_t at)
{
    char text[80];

    memset(text, 'a', n);
    for (unsigned c = 0; c < 256; c++) {
        bool want = c >= 0x20 && c != 0x7f;

        text[at] = (char)c;
        if (sv_is_plain(sv_of(text, n)) != want) {
            fail_msg("byte %u at %zu of %zu", c, at, n);
        }
    }
}

static void sv_is_plain_finds_a_control_byte_wherever_it_stands(void **state)
{
    (void)state;
    assert_true(sv_is_plain(SV("")));
    assert_true(sv_is_plain((struct sv){ 0 }));
    for (size_t n = 1; n <= 67; n++) {
        for (size_t at = 0; at < n; at++) {
            try_every_byte(n, at);
        }
    }
}

static void sv_is_utf8_knows_the_forbidden_forms(void **state)
{
    static const struct {
        const char *text;
        bool valid;
    } rows[] = {
        { "plain", true },
        { "\xc3\xa4", true },
        { "\xf0\x9f\x98\x80", true },
        { "\xc0\xaf", false },         /* overlong */
        { "\xe0\x80\xaf", false },     /* overlong */
        { "\xed\xa0\x80", false },     /* surrogate */
        { "\xf4\x90\x80\x80", false }, /* beyond U+10FFFF */
        { "\xc3", false },             /* cut */
        { "\x80", false },
        { "\xff", false },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(sv_is_utf8(sv_from(rows[i].text)), rows[i].valid);
    }
}

static void buf_keeps_its_cap_and_its_first_error(void **state)
{
    struct buf b;
    struct sv out = { 0 };

    (void)state;
    buf_init(&b, 4);
    buf_add_str(&b, "abcd");
    assert_int_equal(buf_finish(&b, &out), ERR_OK);
    buf_add_char(&b, 'e');
    buf_add_str(&b, "");
    assert_int_equal(buf_finish(&b, &out), ERR_LIMIT);
    assert_string_equal(buf_cstr(&b), "");
    buf_reset(&b);
    buf_printf(&b, "%d", 1234);
    assert_string_equal(buf_cstr(&b), "1234");
    buf_drop_front(&b, 3);
    assert_string_equal(buf_cstr(&b), "4");
    buf_deinit(&b);
}

static void json_and_html_escape_what_could_break_out(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 1000);
    buf_add_json(&b, SV("a\"\\\n\x01\x7f\xff\xc3\xa4</script>"));
    assert_string_equal(buf_cstr(&b), "\"a\\\"\\\\\\n\\u0001\\u007f\\ufffd\xc3\xa4</script>\"");
    buf_reset(&b);
    buf_add_html(&b, SV("<a href=\"x\" id='y'>&"));
    assert_string_equal(buf_cstr(&b), "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;");
    buf_reset(&b);
    buf_add_urlenc(&b, SV("a b/?&=%\xc3~"));
    assert_string_equal(buf_cstr(&b), "a%20b%2F%3F%26%3D%25%C3~");
    buf_deinit(&b);
}

enum { LONGEST = 40 };

/* n letters with byte c at one place. */
static void check_json(size_t n, size_t at, unsigned c)
{
    char text[LONGEST];
    struct buf whole;
    struct buf parts;
    struct buf one;

    buf_init(&whole, 256);
    buf_init(&parts, 256);
    buf_init(&one, 16);
    memset(text, 'a', n);
    text[at] = (char)c;
    buf_add_json(&whole, sv_of(text, n));
    buf_add_json(&one, sv_of(text + at, 1));
    buf_add_char(&parts, '"');
    buf_add(&parts, text, at);
    buf_add(&parts, one.p + 1, one.n - 2);
    buf_add(&parts, text + at + 1, n - at - 1);
    buf_add_char(&parts, '"');
    assert_string_equal(buf_cstr(&whole), buf_cstr(&parts));
    buf_deinit(&whole);
    buf_deinit(&parts);
    buf_deinit(&one);
}

/* Texts are looked at in blocks by their length, a single byte alone: all must say the same. */
static void json_escapes_a_byte_wherever_it_stands(void **state)
{
    (void)state;
    for (size_t n = 1; n <= LONGEST; n++) {
        for (size_t at = 0; at < n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                check_json(n, at, c);
            }
        }
    }
}

static void json_keeps_letters_wherever_they_stand(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 256);
    for (size_t n = 3; n < 40; n++) {
        for (size_t at = 0; at + 3 <= n; at++) {
            char text[40];

            memset(text, 'a', sizeof(text));
            /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes, not a C string */
            memcpy(text + at, "\xe2\x82\xac", 3);
            buf_reset(&b);
            buf_add_json(&b, sv_of(text, n));
            assert_int_equal(b.n, n + 2);
            assert_memory_equal(b.p + 1, text, n);
        }
    }
    buf_deinit(&b);
}

static void b64_round_trips_every_length(void **state)
{
    unsigned char bytes[70];
    size_t n = 0;

    (void)state;
    rand_bytes(bytes, sizeof(bytes));
    for (n = 0; n <= sizeof(bytes); n++) {
        unsigned char back[128];
        size_t got = SIZE_MAX;
        struct buf b;

        buf_init(&b, 200);
        b64_url_add(&b, sv_of(bytes, n));
        assert_int_equal(b64_decode(buf_sv(&b), back, sizeof(back), &got), ERR_OK);
        assert_int_equal(got, n);
        assert_memory_equal(back, bytes, n);
        buf_reset(&b);
        b64_std_add(&b, sv_of(bytes, n));
        assert_int_equal(b64_decode(buf_sv(&b), back, sizeof(back), &got), ERR_OK);
        assert_int_equal(got, n);
        buf_deinit(&b);
    }
}

static void b64_refuses_second_spellings(void **state)
{
    static const char *const bad[] = { "A",     "AA=",  "AB",    "AAB",  "A===",
                                       "AA==A", "A A=", "AA\n=", "====", "=AAA" };
    char out[64];
    size_t n = 0;
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(b64_decode(sv_from(bad[i]), out, sizeof(out), &n), ERR_INVALID);
    }
    assert_int_equal(b64_decode(SV("AA"), out, 2, &n), ERR_LIMIT);
}

static void secret_from_b64_gives_the_bytes(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_from_b64(SV("aGVsbG8="), &s), ERR_OK);
    assert_true(secret_eq(s, SV("hello")));
    assert_false(secret_eq(s, SV("hellO")));
    assert_false(secret_eq(s, SV("hell")));
    secret_free(&s);
    assert_null(s);
    assert_int_equal(secret_from_b64(SV("!!"), &s), ERR_INVALID);
}

static void hex_round_trips(void **state)
{
    struct buf b;
    unsigned char out[8];
    size_t n = 0;

    (void)state;
    buf_init(&b, 64);
    hex_add(&b, SV("\x00\xff\x7f"));
    assert_string_equal(buf_cstr(&b), "00ff7f");
    assert_int_equal(hex_decode(SV("00FF7f"), out, sizeof(out), &n), ERR_OK);
    assert_int_equal(n, 3);
    assert_int_equal(hex_decode(SV("0"), out, sizeof(out), &n), ERR_INVALID);
    assert_int_equal(hex_decode(SV("0g"), out, sizeof(out), &n), ERR_INVALID);
    assert_int_equal(hex_decode(SV("0000"), out, 1, &n), ERR_LIMIT);
    buf_deinit(&b);
}

static void durations_are_go_s(void **state)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } rows[] = { { "0", 0 },
                 { "0s", 0 },
                 { "1s", 1000 },
                 { "1h30m", 5400000 },
                 { "1.5h", 5400000 },
                 { "300ms", 300 },
                 { "1m0.5s", 60500 },
                 { "1500us", 2 },
                 { "", -1 },
                 { "1", -1 },
                 { "s", -1 },
                 { "1x", -1 },
                 { "-1s", -1 },
                 { "1s ", -1 },
                 { "1.2.3s", -1 },
                 { ".s", -1 },
                 { ".5s", 500 },
                 { "1e9s", -1 },
                 { "99999999999999999999h", -1 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t ms = -1;
        enum err err = duration_parse(sv_from(rows[i].text), &ms);

        if (rows[i].ms < 0 ? err == ERR_OK : err != ERR_OK || ms != rows[i].ms) {
            fail_msg("%s: %s %lld", rows[i].text, err_name(err), (long long)ms);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sv_cut_yields_every_piece_once),
        cmocka_unit_test(sv_u64_accepts_the_range_and_nothing_else),
        cmocka_unit_test(sv_is_plain_finds_a_control_byte_wherever_it_stands),
        cmocka_unit_test(sv_is_utf8_knows_the_forbidden_forms),
        cmocka_unit_test(buf_keeps_its_cap_and_its_first_error),
        cmocka_unit_test(json_and_html_escape_what_could_break_out),
        cmocka_unit_test(json_escapes_a_byte_wherever_it_stands),
        cmocka_unit_test(json_keeps_letters_wherever_they_stand),
        cmocka_unit_test(b64_round_trips_every_length),
        cmocka_unit_test(b64_refuses_second_spellings),
        cmocka_unit_test(secret_from_b64_gives_the_bytes),
        cmocka_unit_test(hex_round_trips),
        cmocka_unit_test(durations_are_go_s),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
