#include "common/yaml.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

/* Parses text and compares with JSON; NULL json: it must be refused. */
struct row {
    const char *yaml;
    const char *json;
};

static void check_row(const struct row *row)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct diag d = { 0 };
    enum err err = yaml_parse(sv_from(row->yaml), "t.yaml", &doc, &d);
    json_t *want = NULL;

    if (row->json == NULL) {
        if (err == ERR_OK) {
            fail_msg("accepted: %s", row->yaml);
        }
        assert_null(doc);
        assert_true(d.text[0] != '\0');
        assert_string_equal(d.file, "t.yaml");
        return;
    }
    if (err != ERR_OK) {
        fail_msg("refused: %s: %s", row->yaml, d.text);
    }
    want = json_loads(row->json, JSON_DECODE_ANY, NULL);
    assert_non_null(want);
    if (!json_equal(yaml_root(doc), want)) {
        char *got = json_dumps(yaml_root(doc), JSON_ENCODE_ANY | JSON_COMPACT);

        print_error("%s gave %s, not %s\n", row->yaml, got, row->json);
        json_decref(want);
        fail();
    }
    json_decref(want);
}

static void check_rows(const struct row *rows, size_t n)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        check_row(&rows[i]);
    }
}

static void scalars_follow_the_core_schema(void **state)
{
    static const struct row rows[] = {
        { "", "null" },
        { "# only a comment\n", "null" },
        { "~", "null" },
        { "Null", "null" },
        { "[true, True, TRUE]", "[true,true,true]" },
        { "[yes, no, on, off, y, NO, tRUE]",
          "[\"yes\",\"no\",\"on\",\"off\",\"y\",\"NO\",\"tRUE\"]" },
        { "[17:00, 1:2:3]", "[\"17:00\",\"1:2:3\"]" },
        { "[0, 7, -3, +4, 1_000, 0x1F, 0o17, 017, 0b101]", "[0,7,-3,4,1000,31,15,15,5]" },
        { "9223372036854775807", "9223372036854775807" },
        { "-9223372036854775808", "-9223372036854775808" },
        { "9223372036854775808", "9223372036854775808.0" },
        { "[1.5, -.5, 1e3, 2., 1E-2]", "[1.5,-0.5,1000.0,2.0,0.01]" },
        { "[1.2.3, 0xZZ, -, +, ., 1e, --1, 1-2]",
          "[\"1.2.3\",\"0xZZ\",\"-\",\"+\",\".\",\"1e\",\"--1\",\"1-2\"]" },
        { "[\"5\", 'true', \"~\"]", "[\"5\",\"true\",\"~\"]" },
        { "|\n  5\n", "\"5\\n\"" },
        { "[!!str 5, !!str true, ! 7]", "[\"5\",\"true\",\"7\"]" },
        { "[!!int \"5\", !!float 5, !!bool true, !!null ~]", "[5,5,true,null]" },
        { "!!map {a: !!seq [1]}", "{\"a\":[1]}" },
        { "!!int x", NULL },
        { "!local x", NULL },
        { "!!binary aGk=", NULL },
        { "!!seq {a: 1}", NULL },
        { ".inf", NULL },
        { "-.INF", NULL },
        { ".nan", NULL },
        { "1e999", NULL },
        { "\".inf\"", "\".inf\"" },
        { "\"a\\0b\"", NULL },
        { "\"\\ud83d\"", NULL },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows));
}

static void full_dates_become_rfc3339_and_others_stay(void **state)
{
    static const struct row rows[] = {
        { "2024-05-01", "\"2024-05-01T00:00:00Z\"" },
        { "2024-5-1", "\"2024-05-01T00:00:00Z\"" },
        { "2024-05-01T10:00:00Z", "\"2024-05-01T10:00:00Z\"" },
        { "2024-05-01t10:00:00.250Z", "\"2024-05-01T10:00:00.25Z\"" },
        { "2024-05-01T01:30:00+02:00", "\"2024-04-30T23:30:00Z\"" },
        { "2024-12-31T23:30:00-05:00", "\"2025-01-01T04:30:00Z\"" },
        { "2024-05-01 10:00:00", "\"2024-05-01T10:00:00Z\"" },
        { "2020-01-02T16:20:00", "\"2020-01-02T16:20:00\"" },
        { "2023-02-29", "\"2023-02-29\"" },
        { "2024-02-29", "\"2024-02-29T00:00:00Z\"" },
        { "2024-13-01", "\"2024-13-01\"" },
        { "2024-05-01T24:00:00Z", "\"2024-05-01T24:00:00Z\"" },
        { "2024-05-01T10:00:00+25:00", "\"2024-05-01T10:00:00+25:00\"" },
        { "24-05-01", "\"24-05-01\"" },
        { "\"2024-05-01\"", "\"2024-05-01\"" },
        { "2024-05-01: x", NULL },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows));
}

static void json_is_yaml(void **state)
{
    static const struct row rows[] = {
        { "{\"a\": [1, {\"b\": null}], \"c\": \"x\\u00e9\\n\"}",
          "{\"a\":[1,{\"b\":null}],\"c\":\"x\\u00e9\\n\"}" },
        { "{\n\t\"a\": {\n\t\t\"b\": 1\n\t}\n}", "{\"a\":{\"b\":1}}" },
        { "[]", "[]" },
        { "{}", "{}" },
        { "[[1], [[]]]", "[[1],[[]]]" },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows));
}

static void keys_are_text_and_stand_once(void **state)
{
    static const struct row rows[] = {
        { "a: 1\nb: 2\n", "{\"a\":1,\"b\":2}" },
        { "\"1\": x", "{\"1\":\"x\"}" },
        { "a: 1\na: 2\n", NULL },
        { "{a: 1, \"a\": 2}", NULL },
        { "1: x", NULL },
        { "true: x", NULL },
        { "~: x", NULL },
        { "? [a]\n: x", NULL },
        { "? {a: b}\n: x", NULL },
        { "a: &x b\n*x : c", NULL },
        { "\"a\\0\": 1", NULL },
        { "!!int 1: x", NULL },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows));
}

static void aliases_and_merges_share_trees(void **state)
{
    static const struct row rows[] = {
        { "a: &x [1]\nb: *x\n", "{\"a\":[1],\"b\":[1]}" },
        { "[&a 1, &a 2, *a]", "[1,2,2]" },
        { "[*nowhere]", NULL },
        { "&a [*a]", NULL },
        { "&a {b: *a}", NULL },
        { "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n", "{\"x\":{\"a\":1,\"b\":2},"
                                                     "\"y\":{\"a\":1,\"b\":3}}" },
        { "x: &x {a: 1}\ny: &y {a: 2, b: 2}\nz: {<<: [*x, *y]}\n",
          "{\"x\":{\"a\":1},\"y\":{\"a\":2,\"b\":2},\"z\":{\"a\":1,\"b\":2}}" },
        { "{<<: {a: 1}}", "{\"a\":1}" },
        { "{<<: 1}", NULL },
        { "{<<: [1]}", NULL },
        { "{<<: {a: 1}, <<: {b: 1}}", NULL },
        { "{\"<<\": 1}", "{\"<<\":1}" },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows));
}

static void broken_text_is_refused_with_its_place(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct diag d = { 0 };
    static const struct row rows[] = {
        { "a: [1", NULL },        { "a: b: c", NULL },
        { "\tx: 1", NULL },       { "%YAML 9.9\n--- x", NULL },
        { "@x", NULL },           { "a: 'x", NULL },
        { "a:\n - b\n c", NULL }, { "\"\xff\"", NULL },
        { "\xc0\x80", NULL },
    };

    (void)state;
    check_rows(rows, ARRAY_LEN(rows));
    assert_int_equal(yaml_parse(SV("ok: 1\nfine:\n  - a\n  - {b: 1, b: 2}\n"), "x.yaml", &doc, &d),
                     ERR_INVALID);
    assert_int_equal(d.line, 4);
    assert_int_equal(d.column, 12);
    assert_non_null(strstr(d.text, "\"b\""));
}

static void a_second_document_is_an_error_of_its_own(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct diag d = { 0 };

    (void)state;
    assert_int_equal(yaml_parse(SV("a: 1\n---\nb: 2\n"), NULL, &doc, &d), ERR_UNSUPPORTED);
    assert_null(doc);
    assert_int_equal(d.line, 2);
    assert_int_equal(yaml_parse(SV("--- a\n--- {"), NULL, &doc, NULL), ERR_UNSUPPORTED);
    assert_int_equal(yaml_parse(SV("---\na: 1\n...\n"), NULL, &doc, NULL), ERR_OK);
    assert_false(yaml_is_empty(doc));
}

static void an_empty_text_is_told_from_a_null(void **state)
{
    struct yaml_doc *doc = NULL;

    (void)state;
    assert_int_equal(yaml_parse(SV(" \n# x\n"), NULL, &doc, NULL), ERR_OK);
    assert_true(yaml_is_empty(doc));
    assert_true(json_is_null(yaml_root(doc)));
    yaml_doc_free(&doc);
    assert_int_equal(yaml_parse(SV("null"), NULL, &doc, NULL), ERR_OK);
    assert_false(yaml_is_empty(doc));
    yaml_doc_free(&doc);
}

static void deep_nesting_ends_at_the_bound(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct buf text;
    size_t i = 0;

    (void)state;
    buf_init(&text, 1 << 20);
    for (i = 0; i < 100000; i++) {
        buf_add_char(&text, '[');
    }
    assert_int_equal(yaml_parse(buf_sv(&text), NULL, &doc, NULL), ERR_LIMIT);
    buf_reset(&text);
    for (i = 0; i < YAML_DEPTH_MAX; i++) {
        buf_add_char(&text, '[');
    }
    for (i = 0; i < YAML_DEPTH_MAX; i++) {
        buf_add_char(&text, ']');
    }
    assert_int_equal(yaml_parse(buf_sv(&text), NULL, &doc, NULL), ERR_OK);
    buf_deinit(&text);
}

/* Each line holds the one before in a list: 200 lines would be 200 deep. */
static void depth_counts_through_aliases(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct buf text;
    unsigned i = 0;

    (void)state;
    buf_init(&text, 1 << 20);
    buf_add_str(&text, "a0: &a0 [x]\n");
    for (i = 1; i < 200; i++) {
        buf_printf(&text, "a%u: &a%u [*a%u]\n", i, i, i - 1);
    }
    assert_int_equal(yaml_parse(buf_sv(&text), NULL, &doc, NULL), ERR_LIMIT);
    buf_deinit(&text);
}

static void an_alias_bomb_is_refused(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct diag d = { 0 };
    struct buf text;
    unsigned i = 0;

    (void)state;
    buf_init(&text, 1 << 20);
    buf_add_str(&text, "a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for (i = 1; i < 12; i++) {
        buf_printf(&text, "a%u: &a%u [*a%u,*a%u,*a%u,*a%u,*a%u,*a%u,*a%u,*a%u]\n", i, i, i - 1,
                   i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    }
    assert_int_equal(yaml_parse(buf_sv(&text), "bomb", &doc, &d), ERR_LIMIT);
    assert_int_not_equal(d.line, 0);
    buf_deinit(&text);
}

static void every_member_and_item_has_its_place(void **state)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    json_t *root = NULL;
    json_t *list = NULL;
    json_t *other = json_object();
    struct yaml_pos pos;

    (void)state;
    assert_int_equal(yaml_parse(SV("top: 1\nlist:\n  - a: x\n    bb: y\n  - 7\nm: {<<: {q: 1}}\n"),
                                "f.yaml", &doc, NULL),
                     ERR_OK);
    root = yaml_root(doc);
    list = json_object_get(root, "list");
    assert_string_equal(yaml_file(doc), "f.yaml");
    pos = yaml_member_pos(doc, root, "list");
    assert_int_equal(pos.line, 2);
    assert_int_equal(pos.column, 1);
    pos = yaml_item_pos(doc, list, 1);
    assert_int_equal(pos.line, 5);
    assert_int_equal(pos.column, 5);
    pos = yaml_member_pos(doc, json_array_get(list, 0), "bb");
    assert_int_equal(pos.line, 4);
    assert_int_equal(pos.column, 5);
    pos = yaml_member_pos(doc, json_object_get(root, "m"), "q");
    assert_int_equal(pos.line, 6);
    assert_int_equal(yaml_member_pos(doc, root, "nothing").line, 0);
    assert_int_equal(yaml_item_pos(doc, list, 2).line, 0);
    assert_int_equal(yaml_item_pos(doc, other, 0).line, 0);
    json_decref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_follow_the_core_schema),
        cmocka_unit_test(full_dates_become_rfc3339_and_others_stay),
        cmocka_unit_test(json_is_yaml),
        cmocka_unit_test(keys_are_text_and_stand_once),
        cmocka_unit_test(aliases_and_merges_share_trees),
        cmocka_unit_test(broken_text_is_refused_with_its_place),
        cmocka_unit_test(a_second_document_is_an_error_of_its_own),
        cmocka_unit_test(an_empty_text_is_told_from_a_null),
        cmocka_unit_test(deep_nesting_ends_at_the_bound),
        cmocka_unit_test(depth_counts_through_aliases),
        cmocka_unit_test(an_alias_bomb_is_refused),
        cmocka_unit_test(every_member_and_item_has_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
