#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/command.h"
#include "test/support/cmocka.h"

static int run_file(const char *path)
{
    char policy[] = "policy";
    char test[] = "test";
    char file[256];
    char *argv[] = { policy, test, file, NULL };

    (void)snprintf(file, sizeof(file), "%s", path);
    return cli_policy_main(3, argv);
}

/* Writes text to a file with that ending and runs it. */
static int run_text(const char *ending, const char *text)
{
    char path[64];
    FILE *f = NULL;
    int fd = -1;
    int code = 0;

    (void)snprintf(path, sizeof(path), "/tmp/policy-test-XXXXXX%s", ending);
    fd = mkstemps(path, (int)sv_from(ending).n);
    assert_true(fd >= 0);
    f = fdopen(fd, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    code = run_file(path);
    (void)unlink(path);
    return code;
}

static void every_reference_case_holds(void **state)
{
    static const char path[] = "../shared/cases/policy/cases.jsonl";

    (void)state;
    if (access(path, R_OK) != 0) {
        skip();
    }
    assert_int_equal(run_file(path), 0);
}

static void every_case_of_our_own_holds(void **state)
{
    (void)state;
    assert_int_equal(run_file("test/unit/cli/policy_cases.yaml"), 0);
    assert_int_equal(run_file("test/unit/cli/policy_cases.jsonl"), 0);
}

static void a_case_that_differs_is_a_failure(void **state)
{
    static const char *const wrong[] = {
        /* outcome, status, reasons on either side, error class, an unknown reason */
        "{policy: {allow: {or: [accept: 1]}}, expect: deny}",
        "{policy: {allow: {or: [reject: 1]}}, expect: deny, status: 404}",
        "{policy: {allow: {or: [accept: 1]}}, expect: allow, reasons: {allow: {reasons: [reject]}}}",
        "{policy: {allow: {or: [accept: 1]}}, expect: allow, reasons: {deny: {value: true}}}",
        "{policy: {allow: {or: [acept: 1]}}, expect: bad_policy, error_class: shape}",
        "{policy: {allow: {or: [acept: 1]}}, expect: deny}",
        "{policy: {allow: {or: [accept: 1]}}, expect: allow, reasons: {allow: {reasons: [nope]}}}",
        /* what nobody can run must not pass */
        "{policy: {allow: {or: [accept: 1]}}, expect: allow, input: {usr: ana}}",
        "{policy: {allow: {or: [accept: 1]}}, expcet: allow}",
        "{policy: {allow: {or: [accept: 1]}}}",
        "{expect: allow}",
        "7",
    };
    char text[512];
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(wrong); i++) {
        (void)snprintf(text, sizeof(text), "- %s\n", wrong[i]);
        assert_int_equal(run_text(".yaml", text), 1);
    }
}

static void a_file_may_name_its_policy_once(void **state)
{
    (void)state;
    assert_int_equal(run_text(".yaml", "policy:\n  allow:\n    or:\n      - email: a@b.c\n"
                                       "cases:\n"
                                       "  - {name: a, input: {email: a@b.c}, expect: allow}\n"
                                       "  - {name: b, input: {email: x@b.c}, expect: deny}\n"
                                       "  - {name: c, expect: login}\n"),
                     0);
    assert_int_equal(run_text(".yaml", "route: {allowed_domains: [b.c]}\n"
                                       "cases:\n"
                                       "  - {name: a, input: {email: a@b.c}, expect: allow}\n"
                                       "  - {name: b, input: {email: a@x.c}, expect: deny}\n"),
                     0);
}

static void a_file_that_cannot_be_used_is_told_apart(void **state)
{
    (void)state;
    assert_int_equal(run_file("/nonexistent/cases.yaml"), 2);
    assert_int_equal(run_file("/tmp"), 2);
    assert_int_equal(run_text(".yaml", "cases: [\n"), 2);
    assert_int_equal(run_text(".yaml", "policy: {}\n"), 2);
    assert_int_equal(run_text(".yaml", "cases: []\n"), 2);
    assert_int_equal(run_text(".jsonl", "{\"name\": \n"), 2);
    assert_int_equal(run_text(".jsonl", "# nothing\n\n"), 2);
}

static void the_command_line_is_checked(void **state)
{
    char policy[] = "policy";
    char test[] = "test";
    char help[] = "--help";
    char skip_option[] = "--skip=anonymous-,ssh-";
    char other[] = "--other";
    char file[] = "test/unit/cli/policy_cases.yaml";
    char *bare[] = { policy, NULL };
    char *helped[] = { policy, help, NULL };
    char *skipped[] = { policy, test, skip_option, file, NULL };
    char *unknown[] = { policy, test, other, file, NULL };
    char *no_file[] = { policy, test, NULL };

    (void)state;
    assert_int_equal(cli_policy_main(1, bare), 2);
    assert_int_equal(cli_policy_main(2, helped), 0);
    assert_int_equal(cli_policy_main(4, skipped), 0);
    assert_int_equal(cli_policy_main(4, unknown), 2);
    assert_int_equal(cli_policy_main(2, no_file), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reference_case_holds),
        cmocka_unit_test(every_case_of_our_own_holds),
        cmocka_unit_test(a_case_that_differs_is_a_failure),
        cmocka_unit_test(a_file_may_name_its_policy_once),
        cmocka_unit_test(a_file_that_cannot_be_used_is_told_apart),
        cmocka_unit_test(the_command_line_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
