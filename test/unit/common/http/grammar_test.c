/* The smaller grammars: names and sets of them, methods, dates, forms, cookies, and the table of
 * bytes under all of it. */
#include <stdio.h>
#include <string.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/http/chars.h"
#include "common/http/cookie.h"
#include "common/http/date.h"
#include "common/http/form.h"
#include "common/http/head.h"
#include "common/http/method.h"
#include "common/http/name.h"
#include "test/support/cmocka.h"

static bool in(const char *set, int c)
{
    return c != 0 && strchr(set, c) != NULL;
}

/* The table says what the RFCs say, derived again from their grammar. */
static void every_byte_has_its_class(void **state)
{
    int c = 0;

    (void)state;
    for (c = 0; c < 256; c++) {
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool unreserved = alnum || in("-._~", c);
        char ch = (char)c;

        assert_int_equal(http_char_is(ch, HTTP_CH_TOKEN), alnum || in("!#$%&'*+-.^_`|~", c));
        assert_int_equal(http_char_is(ch, HTTP_CH_VALUE), c == '\t' || (c >= 0x20 && c != 0x7f));
        assert_int_equal(http_char_is(ch, HTTP_CH_UNRESERVED), unreserved);
        assert_int_equal(http_char_is(ch, HTTP_CH_PATH), unreserved || in("!$&'()*+,;=:@/", c));
        assert_int_equal(http_char_is(ch, HTTP_CH_PATH_ENCODE), in("[]^|{}`", c));
        assert_int_equal(http_char_is(ch, HTTP_CH_QUERY), c > 0x20 && c < 0x7f && c != '#');
        assert_int_equal(http_char_is(ch, HTTP_CH_HEX), in("0123456789abcdefABCDEF", c));
        assert_int_equal(http_char_is(ch, HTTP_CH_HOST), alnum || in("-._", c));
    }
}

static void every_known_name_finds_itself(void **state)
{
    int id = 0;

    (void)state;
    for (id = 1; id < HTTP_H_COUNT; id++) {
        struct sv text = http_name_text((enum http_name)id);
        char upper[64];
        size_t i = 0;

        assert_int_equal(http_name_id(text), id);
        for (i = 0; i < text.n; i++) {
            upper[i] = (char)(text.p[i] >= 'a' && text.p[i] <= 'z' ? text.p[i] - 32 : text.p[i]);
        }
        assert_int_equal(http_name_id(sv_of(upper, text.n)), id);
        upper[text.n - 1] = '!';
        assert_int_equal(http_name_id(sv_of(upper, text.n)), HTTP_H_OTHER);
    }
    assert_int_equal(http_name_id(SV("")), HTTP_H_OTHER);
    assert_int_equal(http_name_id(SV("x")), HTTP_H_OTHER);
    assert_int_equal(http_name_id(SV("x-pomerium-claim-email")), HTTP_H_OTHER);
}

/* The comparison looks at many bytes at once: no other byte may slip through at any place. */
static void try_every_byte_at(unsigned id, size_t at)
{
    struct sv text = http_name_text((enum http_name)id);
    bool letter = text.p[at] >= 'a' && text.p[at] <= 'z';
    char name[64];

    memcpy(name, text.p, text.n);
    for (unsigned c = 0; c < 256; c++) {
        bool same = (char)c == text.p[at] || (letter && (char)(c | 0x20U) == text.p[at]);

        name[at] = (char)c;
        if ((http_name_id(sv_of(name, text.n)) == (enum http_name)id) != same) {
            fail_msg("byte %u at %zu of %.*s", c, at, SV_ARG(text));
        }
    }
}

static void a_name_with_one_other_byte_has_no_number(void **state)
{
    (void)state;
    for (unsigned id = 1; id < HTTP_H_COUNT; id++) {
        for (size_t at = 0; at < http_name_text((enum http_name)id).n; at++) {
            try_every_byte_at(id, at);
        }
    }
}

static void names_are_compared_as_the_most_careless_do(void **state)
{
    (void)state;
    assert_true(http_name_eq_loose(SV("X-Pomerium-Claim-Email"), SV("x_pomerium_CLAIM.email")));
    assert_true(http_name_eq_loose(SV("a-b"), SV("A~B")));
    assert_false(http_name_eq_loose(SV("a-b"), SV("ab")));
    assert_false(http_name_eq_loose(SV("a-b"), SV("a-c")));
}

static void a_set_tells_its_members_by_number_too(void **state)
{
    struct http_name_set *set = http_name_set_new();

    (void)state;
    assert_int_equal(http_name_set_add_prefix(set, SV("X-Forwarded-")), ERR_OK);
    assert_int_equal(http_name_set_add(set, SV("X_Real_Ip")), ERR_OK);
    assert_int_equal(http_name_set_add(set, SV("x-nobody-knows")), ERR_OK);
    for (unsigned id = 1; id < HTTP_H_COUNT; id++) {
        struct sv text = http_name_text((enum http_name)id);

        assert_int_equal(http_name_bits_has(http_name_set_numbers(set), id),
                         http_name_set_has(set, text));
        assert_int_equal(http_name_bits_has(http_name_set_numbers(set), id),
                         sv_starts(text, SV("x-forwarded-")) || id == HTTP_H_X_REAL_IP);
        assert_false(http_name_bits_has(http_name_set_numbers(NULL), id));
    }
    http_name_set_free(&set);
}

static void a_set_knows_all_spellings_of_its_members(void **state)
{
    static const char *const members[] = { "x-pomerium-jwt-assertion",
                                           "X_Pomerium_Claim_Email",
                                           "X-POMERIUM-",
                                           "x.pomerium.anything",
                                           "X-Email",
                                           "x_email",
                                           "x-forwarded-for",
                                           "X_Forwarded_For" };
    static const char *const others[] = { "x-pomeriu", "x-emai",        "x-emaill",       "y-email",
                                          "",          "xx-pomerium-a", "x-forwarded-fo", "x" };
    struct http_name_set *set = http_name_set_new();
    size_t i = 0;

    (void)state;
    assert_int_equal(http_name_set_add_prefix(set, SV("X-Pomerium-")), ERR_OK);
    assert_int_equal(http_name_set_add(set, SV("X-Email")), ERR_OK);
    assert_int_equal(http_name_set_add(set, SV("x-forwarded-for")), ERR_OK);
    assert_int_equal(http_name_set_add(set, SV("a b")), ERR_INVALID);
    assert_int_equal(http_name_set_add(set, SV("")), ERR_INVALID);
    for (i = 0; i < ARRAY_LEN(members); i++) {
        assert_true(http_name_set_has(set, sv_from(members[i])));
    }
    for (i = 0; i < ARRAY_LEN(others); i++) {
        assert_false(http_name_set_has(set, sv_from(others[i])));
    }
    assert_false(http_name_set_has(NULL, SV("x-email")));
    for (i = 3; i < HTTP_NAME_SET_MAX; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "n-%zu", i);
        assert_int_equal(http_name_set_add(set, sv_from(name)), ERR_OK);
    }
    assert_int_equal(http_name_set_add(set, SV("one-more")), ERR_LIMIT);
    assert_true(http_name_set_has(set, SV("N_1000")));
    http_name_set_free(&set);
    assert_null(set);
    http_name_set_free(&set);
}

static void methods_are_case_sensitive(void **state)
{
    int m = 0;

    (void)state;
    for (m = 1; m < HTTP_METHOD_COUNT; m++) {
        assert_int_equal(http_method_id(http_method_text((enum http_method)m)), m);
    }
    assert_int_equal(http_method_id(SV("get")), HTTP_UNKNOWN);
    assert_int_equal(http_method_id(SV("GE")), HTTP_UNKNOWN);
    assert_int_equal(http_method_id(SV("GETT")), HTTP_UNKNOWN);
    assert_int_equal(http_method_id(SV("")), HTTP_UNKNOWN);
    assert_int_equal(http_method_text(HTTP_UNKNOWN).n, 0);
    assert_true(http_method_is_safe(HTTP_GET));
    assert_false(http_method_is_safe(HTTP_POST));
    assert_false(http_method_is_safe(HTTP_UNKNOWN));
}

static void lists_skip_what_is_empty(void **state)
{
    (void)state;
    assert_true(http_list_has(SV(" a,, B ,"), SV("b")));
    assert_false(http_list_has(SV("ab, b c"), SV("b")));
    assert_false(http_list_has(SV(""), SV("")));
}

static void dates_are_imf_fixdates(void **state)
{
    static const struct {
        int64_t at;
        const char *text;
    } rows[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
        { 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },
        { 951782400, "Tue, 29 Feb 2000 00:00:00 GMT" },
        { INT64_C(253402300799), "Fri, 31 Dec 9999 23:59:59 GMT" },
    };

    static const char *const bad[] = {
        "Sun, 06 Nov 1994 08:49:37 UTC", "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 anF 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 0094 08:49:37 GMT", ""
    };
    struct http_date cache = { 0 };
    char text[HTTP_DATE_LEN + 1];
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t at = -1;

        assert_true(sv_eq(http_date_at(&cache, rows[i].at), sv_from(rows[i].text)));
        assert_true(sv_eq(http_date_at(&cache, rows[i].at), sv_from(rows[i].text)));
        assert_int_equal(http_date_parse(sv_from(rows[i].text), &at), ERR_OK);
        assert_true(at == rows[i].at);
    }
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t at = -1;

        assert_int_equal(http_date_parse(sv_from(bad[i]), &at), ERR_INVALID);
    }
    http_date_format(INT64_MAX, text);
    assert_string_equal(text, rows[3].text);
    http_date_format(INT64_MIN, text);
    assert_string_equal(text, rows[0].text);
}

static void forms_have_each_wanted_key_once(void **state)
{
    static const struct {
        const char *text;
        enum err err;
        const char *code;
    } rows[] = {
        { "code=a&state=b", ERR_OK, "a" },
        { "x=y&code=a+b%2B%3d&", ERR_OK, "a b+=" },
        { "&&code=&", ERR_OK, "" },
        { "code", ERR_OK, "" },
        { "code=a=b", ERR_OK, "a=b" },
        { "%63ode=a", ERR_OK, "a" },
        { "x=%zz&code=a", ERR_OK, "a" }, /* nobody reads x */
        { "", ERR_NOT_FOUND, NULL },
        { "Code=a", ERR_NOT_FOUND, NULL },
        { "code=a&code=a", ERR_EXISTS, NULL },
        { "code=a&%63ode=b", ERR_EXISTS, NULL },
        { "code=%", ERR_INVALID, NULL },
        { "code=%4", ERR_INVALID, NULL },
        { "code=%zz", ERR_INVALID, NULL },
        { "code=%00", ERR_INVALID, NULL },
        { "code=%ff", ERR_INVALID, NULL },
        { "c%00ode=1&code=a", ERR_INVALID, NULL },
    };
    struct arena arena;
    struct buf text;
    struct sv value = SV("");
    size_t i = 0;

    (void)state;
    arena_init(&arena);
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(http_form_get(sv_from(rows[i].text), SV("code"), &arena, &value),
                         rows[i].err);
        assert_true(rows[i].code == NULL || sv_eq(value, sv_from(rows[i].code)));
    }
    buf_init(&text, 1 << 20);
    for (i = 0; i < HTTP_FORM_PAIRS_MAX; i++) {
        buf_add_str(&text, "a=b&");
    }
    assert_int_equal(http_form_get(buf_sv(&text), SV("code"), &arena, &value), ERR_NOT_FOUND);
    buf_add_str(&text, "code=1");
    assert_int_equal(http_form_get(buf_sv(&text), SV("code"), &arena, &value), ERR_LIMIT);
    buf_reset(&text);
    while (text.n <= HTTP_FORM_BYTES_MAX) {
        buf_add_char(&text, 'a');
    }
    assert_int_equal(http_form_get(buf_sv(&text), SV("code"), &arena, &value), ERR_LIMIT);
    buf_reset(&text);
    buf_add_str(&text, "https://a/?");
    http_form_add(&text, SV("k y"), SV("v&=+"));
    http_form_add(&text, SV("b"), SV(""));
    assert_string_equal(buf_cstr(&text), "https://a/?k%20y=v%26%3D%2B&b=");
    buf_deinit(&text);
    arena_deinit(&arena);
}

static void nothing_is_present_after_an_error(void **state)
{
    struct http_form_value wanted[] = { { .key = { "a", 1 } }, { .key = { "b", 1 } } };
    struct arena arena;

    (void)state;
    arena_init(&arena);
    assert_int_equal(http_form_read(SV("a=1&b=2&a=3"), wanted, ARRAY_LEN(wanted), &arena),
                     ERR_EXISTS);
    assert_false(wanted[0].present || wanted[1].present);
    assert_int_equal(http_form_read(SV("b=2"), wanted, ARRAY_LEN(wanted), &arena), ERR_OK);
    assert_false(wanted[0].present);
    assert_true(wanted[1].present);
    arena_deinit(&arena);
}

/* ---- cookies ---------------------------------------------------------------------------------- */

static const struct http_cookie_names ours = { .exact = { { "_ours", 5 } },
                                               .prefix = { { "__Host-_p", 9 } },
                                               .n_exact = 1,
                                               .n_prefix = 1 };

static void our_cookies_are_taken_out_and_foreign_ones_stay(void **state)
{
    static const struct {
        const char *in;
        enum http_cookie_strip what;
        const char *out;
    } rows[] = {
        { "a=1; _ours=x; b=2", HTTP_COOKIE_STRIPPED, "a=1; b=2" },
        { "_ours=x; b=2", HTTP_COOKIE_STRIPPED, "b=2" },
        { "a=1; _ours=x", HTTP_COOKIE_STRIPPED, "a=1" },
        { "_ours=x", HTTP_COOKIE_EMPTY, "" },
        { "_ours=x; _ours=y;__Host-_pomerium_login=z", HTTP_COOKIE_EMPTY, "" },
        { "_ours", HTTP_COOKIE_SAME, "" }, /* a value without a name, as browsers read it */
        { "a=1", HTTP_COOKIE_SAME, "" },
        { "", HTTP_COOKIE_EMPTY, "" },
        { "a=1;b=2;_ours=x;c=\"3\"", HTTP_COOKIE_STRIPPED, "a=1;b=2;c=\"3\"" },
        { "a=1;  b = 2 ;_ours = x;c", HTTP_COOKIE_STRIPPED, "a=1;  b = 2 ;c" },
        { "_OURS=x; x_ours=1; _ours2=3", HTTP_COOKIE_SAME, "" },
        { "a=_ours=x; _ours=1", HTTP_COOKIE_STRIPPED, "a=_ours=x" },
        { "a=\xc3\xa4; _ours=1; b={\"x\":1,\"y\":2}", HTTP_COOKIE_STRIPPED,
          "a=\xc3\xa4; b={\"x\":1,\"y\":2}" },
        { "; ;_ours=1; a=b;", HTTP_COOKIE_STRIPPED, "a=b;" },
        { "_ours=1;; \t; a=b", HTTP_COOKIE_STRIPPED, "a=b" },
        { ";_ours=1;;", HTTP_COOKIE_EMPTY, "" },
        { "a=1;_ours=x;", HTTP_COOKIE_STRIPPED, "a=1;" },
        { "a=1;_ours=x;_ours=y;;b=2", HTTP_COOKIE_STRIPPED, "a=1;;b=2" },
        { "a=1;_ours=x; b=2;_ours=y;c;_ours", HTTP_COOKIE_STRIPPED, "a=1; b=2;c;_ours" },
        /* no value of HTTP/2 ends with a blank */
        { "a=1 ; _ours=x", HTTP_COOKIE_STRIPPED, "a=1" },
        { "a=1; b=2 \t; _ours=x", HTTP_COOKIE_STRIPPED, "a=1; b=2" },
    };
    struct buf out;
    size_t i = 0;

    (void)state;
    buf_init(&out, 4096);
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        buf_reset(&out);
        assert_int_equal(http_cookie_strip(sv_from(rows[i].in), &ours, &out), rows[i].what);
        if (!sv_eq(buf_sv(&out), sv_from(rows[i].out))) {
            print_error("%s: %s\n", rows[i].in, buf_cstr(&out));
        }
        assert_true(sv_eq(buf_sv(&out), sv_from(rows[i].out)));
    }
    buf_deinit(&out);
}

static void all_cookie_fields_become_one_without_ours(void **state)
{
    static const struct {
        const char *fields;
        enum http_cookie_strip what;
        const char *out;
    } rows[] = {
        { "", HTTP_COOKIE_EMPTY, "" },
        { "Cookie: a=1\r\n", HTTP_COOKIE_SAME, "a=1" },
        { "Cookie: a=1\r\nCookie: b=2\r\n", HTTP_COOKIE_SAME, "a=1; b=2" },
        { "Cookie: _ours=x\r\n", HTTP_COOKIE_EMPTY, "" },
        { "Cookie: _ours=x\r\nCookie: a=1\r\nCookie: _ours=y\r\n", HTTP_COOKIE_STRIPPED, "a=1" },
        { "Cookie: a=1; _ours=x\r\nAccept: _ours=z\r\nCookie: b=2\r\n", HTTP_COOKIE_STRIPPED,
          "a=1; b=2" },
    };
    struct http_field fields[8];
    struct http_head head;
    char text[256];
    struct buf out;

    (void)state;
    buf_init(&out, 4096);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", rows[i].fields);
        http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
        assert_int_equal(http_head_parse(&head, sv_from(text)), HTTP_DONE);
        buf_reset(&out);
        assert_int_equal(http_cookie_strip_all(&head, &ours, &out), rows[i].what);
        assert_string_equal(buf_cstr(&out), rows[i].out);
    }
    buf_deinit(&out);
}

static void every_cookie_of_a_name_is_found(void **state)
{
    struct http_field fields[8];
    struct http_head head;
    struct sv values[2];

    (void)state;
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(
        http_head_parse(&head, SV("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; s=2; S=9; s=\r\n"
                                  "Accept: s=8\r\nCookie: ss=3;s=4\r\n\r\n")),
        HTTP_DONE);
    assert_int_equal(http_cookie_find(&head, SV("s"), values, ARRAY_LEN(values)), 3);
    assert_true(sv_eq(values[0], SV("2")));
    assert_true(sv_eq(values[1], SV("")));
    assert_int_equal(http_cookie_find(&head, SV("x"), values, ARRAY_LEN(values)), 1);
    assert_int_equal(http_cookie_find(&head, SV("y"), values, ARRAY_LEN(values)), 0);
    assert_int_equal(http_cookie_find(&head, SV("x"), NULL, 0), 1);
}

static void a_set_cookie_keeps_its_promises(void **state)
{
    static const struct {
        struct http_set_cookie cookie;
        enum err err;
        const char *text;
    } rows[] = {
        { { .name = { "__Host-a", 8 }, .value = { "v", 1 } },
          ERR_OK,
          "__Host-a=v; Path=/; Secure; HttpOnly; SameSite=Lax" },
        { { .name = { "a", 1 },
            .value = { "v", 1 },
            .path = { "/x", 2 },
            .domain = { "d", 1 },
            .max_age_s = 60,
            .same_site = HTTP_SAME_SITE_STRICT,
            .insecure = true,
            .script_readable = true },
          ERR_OK,
          "a=v; Path=/x; Domain=d; Max-Age=60; SameSite=Strict" },
        { { .name = { "a", 1 }, .max_age_s = -1 },
          ERR_OK,
          "a=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax" },
        { { .name = { "__Host-a", 8 }, .insecure = true }, ERR_INVALID, "" },
        { { .name = { "__host-a", 8 }, .domain = { "d", 1 } }, ERR_INVALID, "" },
        { { .name = { "__Host-a", 8 }, .path = { "/x", 2 } }, ERR_INVALID, "" },
        { { .name = { "__Secure-a", 10 }, .insecure = true }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .insecure = true, .same_site = HTTP_SAME_SITE_NONE },
          ERR_INVALID,
          "" },
        { { .name = { "", 0 } }, ERR_INVALID, "" },
        { { .name = { "a=b", 3 } }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .value = { "x;y", 3 } }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .value = { "x y", 3 } }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .value = { "x\r\n", 3 } }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .path = { "x", 1 } }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .path = { "/;Domain=e", 10 } }, ERR_INVALID, "" },
        { { .name = { "a", 1 }, .domain = { "d;x", 3 } }, ERR_INVALID, "" },
    };

    static char large[HTTP_SET_COOKIE_MAX];
    struct http_set_cookie too_large = { .name = SV("a"), .value = sv_of(large, sizeof(large)) };
    struct buf out;
    size_t i = 0;

    (void)state;
    buf_init(&out, 65536);
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        buf_reset(&out);
        assert_int_equal(http_set_cookie_add(&out, &rows[i].cookie), rows[i].err);
        assert_string_equal(buf_cstr(&out), rows[i].text);
    }
    memset(large, 'a', sizeof(large));
    assert_int_equal(http_set_cookie_add(&out, &too_large), ERR_LIMIT);
    assert_string_equal(buf_cstr(&out), "");
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_has_its_class),
        cmocka_unit_test(every_known_name_finds_itself),
        cmocka_unit_test(a_name_with_one_other_byte_has_no_number),
        cmocka_unit_test(names_are_compared_as_the_most_careless_do),
        cmocka_unit_test(a_set_knows_all_spellings_of_its_members),
        cmocka_unit_test(a_set_tells_its_members_by_number_too),
        cmocka_unit_test(methods_are_case_sensitive),
        cmocka_unit_test(lists_skip_what_is_empty),
        cmocka_unit_test(dates_are_imf_fixdates),
        cmocka_unit_test(forms_have_each_wanted_key_once),
        cmocka_unit_test(nothing_is_present_after_an_error),
        cmocka_unit_test(our_cookies_are_taken_out_and_foreign_ones_stay),
        cmocka_unit_test(all_cookie_fields_become_one_without_ours),
        cmocka_unit_test(every_cookie_of_a_name_is_found),
        cmocka_unit_test(a_set_cookie_keeps_its_promises),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
