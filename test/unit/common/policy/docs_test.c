#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/policy/central.h"
#include "common/policy/policy.h"
#include "test/support/cmocka.h"

/* docs/policy.md shows policies; what it shows must compile. */
static void read_docs(struct buf *text)
{
    FILE *f = fopen("docs/policy.md", "re");
    size_t n = 1;

    assert_non_null(f);
    while (n != 0) {
        char *room = buf_room(text, 65536);

        assert_non_null(room);
        n = fread(room, 1, 65536, f);
        buf_grew(text, n);
    }
    assert_int_equal(fclose(f), 0);
}

static void check_compiles(struct sv text)
{
    struct policy *policy = NULL;
    struct diag d = { 0 };

    if (policy_compile_text(text, "docs", NULL, &policy, NULL, &d) != ERR_OK) {
        fail_msg("%.*s: %s", (int)text.n, text.p, d.text);
    }
    policy_unref(&policy);
}

/* | `criterion: …` | in the first column of a table whose head says "example". */
static void every_example_of_a_criterion_compiles(void **state)
{
    struct buf docs;
    struct buf policy;
    struct sv rest = { 0 };
    bool examples = false;
    size_t count = 0;

    (void)state;
    buf_init(&docs, 1 << 20);
    buf_init(&policy, 1 << 16);
    read_docs(&docs);
    rest = buf_sv(&docs);
    while (rest.p != NULL) {
        struct sv line = sv_cut(&rest, '\n');

        examples = sv_starts(line, SV("| example |")) || (examples && sv_starts(line, SV("|")));
        if (!examples || !sv_starts(line, SV("| `"))) {
            continue;
        }
        line = sv_from_at(line, 3);
        buf_reset(&policy);
        buf_add_str(&policy, "allow:\n  or:\n    - ");
        buf_add_sv(&policy, sv_cut(&line, '`'));
        buf_add_char(&policy, '\n');
        check_compiles(buf_sv(&policy));
        count++;
    }
    assert_true(count > 30);
    buf_deinit(&docs);
    buf_deinit(&policy);
}

static void every_policy_block_compiles(void **state)
{
    struct buf docs;
    struct sv rest = { 0 };
    size_t count = 0;
    size_t at = 0;

    (void)state;
    buf_init(&docs, 1 << 20);
    read_docs(&docs);
    rest = buf_sv(&docs);
    for (at = sv_search(rest, SV("```yaml\n")); at != SIZE_MAX;
         at = sv_search(rest, SV("```yaml\n"))) {
        struct yaml_doc *doc = NULL;
        struct policy_source source = { 0 };
        struct policy *policy = NULL;
        struct policy_central *central = NULL;
        struct sv block = { 0 };

        rest = sv_from_at(rest, at + 8);
        at = sv_search(rest, SV("```"));
        assert_true(at != SIZE_MAX);
        block = sv_head(rest, at);
        rest = sv_from_at(rest, at + 3);
        assert_int_equal(yaml_parse(block, "docs", &doc, NULL), ERR_OK);
        central = policy_central_new(json_object_get(yaml_root(doc), "policies"), doc);
        assert_int_equal(policy_central_broken(central), 0);
        source.ppl = json_object_get(yaml_root(doc), "policy");
        assert_true(source.ppl != NULL || policy_central_count(central) != 0);
        assert_int_equal(policy_compile(&source, &policy, NULL, NULL), ERR_OK);
        policy_unref(&policy);
        policy_central_unref(&central);
        yaml_doc_free(&doc);
        count++;
    }
    assert_int_equal(count, 5);
    buf_deinit(&docs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_example_of_a_criterion_compiles),
        cmocka_unit_test(every_policy_block_compiles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
