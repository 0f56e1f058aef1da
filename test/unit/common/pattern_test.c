#include "common/pattern.h"

#include <string.h>

#include "test/support/cmocka.h"

static struct pattern *make(const char *text, enum pattern_extent extent)
{
    struct pattern *p = NULL;
    struct diag d = { 0 };

    if (pattern_new(sv_from(text), extent, &p, &d) != ERR_OK) {
        fail_msg("%s: %s", text, d.text);
    }
    return p;
}

static void the_whole_text_must_match_whatever_alternatives_there_are(void **state)
{
    static const struct {
        const char *pattern;
        const char *text;
        enum pattern_answer answer;
    } rows[] = {
        { "/item/[0-9]+|/thing", "/item/17", PATTERN_YES },
        { "/item/[0-9]+|/thing", "/thing", PATTERN_YES },
        { "/item/[0-9]+|/thing", "/thing2", PATTERN_NO },
        { "/item/[0-9]+|/thing", "/x/thing", PATTERN_NO },
        { "/a|/ab", "/ab", PATTERN_YES }, /* the shorter alternative stands first */
        { "/a", "/a\n", PATTERN_NO },
        { "/a.", "/a\n", PATTERN_YES },
        { "/.", "/\xc3\xa9", PATTERN_YES }, /* one character, two bytes */
        { "/.*", "/\xff", PATTERN_GAVE_UP },
        { "", "", PATTERN_YES },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pattern *p = make(rows[i].pattern, PATTERN_WHOLE);

        assert_int_equal(pattern_fits(p, sv_from(rows[i].text)), rows[i].answer);
        pattern_prepare(p);
        assert_int_equal(pattern_fits(p, sv_from(rows[i].text)), rows[i].answer);
        pattern_unref(&p);
    }
    pattern_thread_end();
}

static void a_pattern_at_its_bounds_says_neither_yes_nor_no(void **state)
{
    struct pattern *p = make("/(a+)+", PATTERN_WHOLE);
    char text[64];

    (void)state;
    memset(text, 'a', sizeof(text));
    text[0] = '/';
    text[sizeof(text) - 1] = '!';
    assert_int_equal(pattern_fits(p, sv_of(text, sizeof(text))), PATTERN_GAVE_UP);
    pattern_unref(&p);
    pattern_thread_end();
}

static void equal_patterns_are_one(void **state)
{
    struct pattern *a = make("/x", PATTERN_WHOLE);
    struct pattern *b = make("/x", PATTERN_WHOLE);
    struct pattern *c = make("/x", PATTERN_PART);

    (void)state;
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    pattern_unref(&a);
    assert_int_equal(pattern_fits(b, SV("/x")), PATTERN_YES);
    pattern_unref(&b);
    pattern_unref(&c);
    pattern_unref(&c);
    pattern_thread_end();
}

static void every_match_is_replaced_as_re2_does(void **state)
{
    static const struct {
        const char *pattern;
        const char *substitution;
        const char *text;
        const char *result;
        enum pattern_answer answer;
    } rows[] = {
        { "^/service/([^/]+)(/.*)$", "\\2/instance/\\1", "/service/foo/v1/api",
          "/v1/api/instance/foo", PATTERN_YES },
        { "one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz", PATTERN_YES },
        { "^(.*?)one(.*)$", "\\1two\\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz",
          PATTERN_YES },
        { "(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb", PATTERN_YES },
        { "b*", "-", "abc", "-a-c-", PATTERN_YES },
        { "", "-", "ab", "-a-b-", PATTERN_YES },
        { "x", "-", "abc", "abc", PATTERN_NO },
        { "(a)|(b)", "[\\1\\2]", "ab", "[a][b]", PATTERN_YES },
        { "a", "\\0\\0\\\\", "/a", "/aa\\", PATTERN_YES },
        { "", "-", "\xc3\xa9", "-\xc3\xa9-", PATTERN_YES },
        { "", "-", "", "-", PATTERN_YES },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pattern *p = make(rows[i].pattern, PATTERN_PART);
        struct diag d = { 0 };
        struct buf out;

        buf_init(&out, 1024);
        assert_int_equal(pattern_check_substitution(p, sv_from(rows[i].substitution), &d), ERR_OK);
        assert_int_equal(
            pattern_replace(p, sv_from(rows[i].text), sv_from(rows[i].substitution), &out),
            rows[i].answer);
        assert_string_equal(buf_cstr(&out), rows[i].result);
        buf_deinit(&out);
        pattern_unref(&p);
    }
    pattern_thread_end();
}

static void replacing_has_bounds(void **state)
{
    struct pattern *p = make("a", PATTERN_PART);
    struct pattern *slow = make("(a+)+[!?]", PATTERN_PART);
    char text[PATTERN_REPLACED_MAX + 1];
    struct buf out;

    (void)state;
    memset(text, 'a', sizeof(text));
    buf_init(&out, 1024);
    assert_int_equal(pattern_replace(p, sv_of(text, sizeof(text)), SV("b"), &out), PATTERN_GAVE_UP);
    buf_reset(&out);
    assert_int_equal(pattern_replace(p, sv_of(text, sizeof(text) - 1), SV("b"), &out), PATTERN_YES);
    buf_reset(&out);
    assert_int_equal(pattern_replace(slow, sv_of(text, sizeof(text)), SV("b"), &out),
                     PATTERN_GAVE_UP);
    buf_deinit(&out);
    buf_init(&out, 100);
    assert_int_equal(pattern_replace(p, sv_of(text, 60), SV("bb"), &out), PATTERN_GAVE_UP);
    buf_deinit(&out);
    pattern_unref(&p);
    pattern_unref(&slow);
    pattern_thread_end();
}

static void what_does_not_compile_is_refused_with_its_place(void **state)
{
    static const char *const bad[] = { "(a", "a)|(b", "[", "\\C", "(?x)a #" };
    static const char *const substitutions[] = { "\\2", "\\x", "\\", "a\\" };
    struct pattern *p = NULL;

    (void)state;
    for (size_t i = 0; i + 1 < ARRAY_LEN(bad); i++) {
        struct diag d = { 0 };

        assert_int_equal(pattern_new(sv_from(bad[i]), PATTERN_WHOLE, &p, &d), ERR_INVALID);
        assert_true(strncmp(d.text, "at character ", 13) == 0);
    }
    p = make(bad[ARRAY_LEN(bad) - 1], PATTERN_WHOLE); /* a comment hides nothing of ours */
    assert_int_equal(pattern_fits(p, SV("ab")), PATTERN_NO);
    pattern_unref(&p);
    p = make("(a)", PATTERN_PART);
    for (size_t i = 0; i < ARRAY_LEN(substitutions); i++) {
        struct diag d = { 0 };

        assert_int_equal(pattern_check_substitution(p, sv_from(substitutions[i]), &d), ERR_INVALID);
    }
    pattern_unref(&p);
    pattern_thread_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_text_must_match_whatever_alternatives_there_are),
        cmocka_unit_test(a_pattern_at_its_bounds_says_neither_yes_nor_no),
        cmocka_unit_test(equal_patterns_are_one),
        cmocka_unit_test(every_match_is_replaced_as_re2_does),
        cmocka_unit_test(replacing_has_bounds),
        cmocka_unit_test(what_does_not_compile_is_refused_with_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
