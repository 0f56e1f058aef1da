#include "cli/policy_cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/policy_case.h"
#include "common/diag.h"
#include "common/mem.h"
#include "common/sv.h"
#include "common/yaml.h"

enum { FILE_MAX_BYTES = 64 * 1024 * 1024, DIFFERENCE_MAX_BYTES = 64 * 1024 };

static const char usage[] =
    "Usage: postern policy test [--skip PREFIX[,PREFIX…]] FILE\n"
    "       postern policy diff OLD NEW    which verdicts change between two configurations\n"
    "\n"
    "Asks policies what they answer, without any server, and compares with what you expect.\n"
    "Prints every case that differs and ends with \"N passed, N failed\".\n"
    "\n"
    "FILE is one of\n"
    "  cases.yaml    policy: …            # what to test, as in config.yaml; or route: …\n"
    "                policies: …          # and the central ones that stand beside it\n"
    "                cases:\n"
    "                  - name: ana may read\n"
    "                    input: {user: ana, email: ana@example.com, path: /}\n"
    "                    expect: allow\n"
    "  cases.jsonl   one case a line, each with its own \"policy\" as text\n"
    "\n"
    "  --skip PREFIX   leave out cases whose name starts so; counted apart\n"
    "  -h, --help      this text\n"
    "\n"
    "expect: allow, deny, login, invalid_cert, not_found, mcp_error, device_unauthenticated,\n"
    "device_unauthorized or bad_policy. The keys of `input`: docs/policy.md.\n"
    "Exit code: 0 all hold, 1 some do not, 2 the file cannot be used.\n";

struct tally {
    size_t passed;
    size_t failed;
    size_t skipped;
    struct sv skip; /* prefixes with commas */
};

static bool is_skipped(const struct tally *tally, struct sv name)
{
    struct sv rest = tally->skip;

    while (rest.p != NULL) {
        struct sv prefix = sv_cut(&rest, ',');

        if (prefix.n != 0 && sv_starts(name, prefix)) {
            return true;
        }
    }
    return false;
}

static void run_case(const struct cli_policy_suite *suite, const json_t *item, struct tally *tally)
{
    CLEANUP(buf_deinit) struct buf difference;
    const char *name = cli_policy_case_name(item);

    buf_init(&difference, DIFFERENCE_MAX_BYTES);
    if (is_skipped(tally, sv_from(name))) {
        tally->skipped++;
        return;
    }
    if (cli_policy_case_run(suite, item, &difference)) {
        tally->passed++;
        return;
    }
    tally->failed++;
    (void)printf("%s\n%s", name, buf_cstr(&difference));
}

static int unusable(const struct diag *d)
{
    char line[DIAG_LINE];

    (void)fprintf(stderr, "postern policy test: %s\n", diag_format(d, line));
    return 2;
}

static enum err read_file(const char *path, struct buf *text, struct diag *d)
{
    FILE *f = fopen(path, "re");
    bool failed = f == NULL;

    diag_at(d, path, 0, 0);
    while (!failed && !feof(f)) {
        char *room = buf_room(text, 65536);
        size_t n = room == NULL ? 0 : fread(room, 1, 65536, f);

        buf_grew(text, n);
        failed = room == NULL || ferror(f) != 0;
    }
    if (failed) {
        char reason[128];

        diag_set(d, "%s",
                 text->err == ERR_LIMIT ? "the file is too big"
                                        : strerror_r(errno, reason, sizeof(reason)));
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return failed ? ERR_IO : ERR_OK;
}

static enum err run_lines(struct sv text, const char *path, struct tally *tally, struct diag *d)
{
    const struct cli_policy_suite suite = { .file = path };
    struct sv rest = text;
    int number = 0;

    while (rest.p != NULL) {
        struct sv line = sv_trim(sv_cut(&rest, '\n'));
        json_error_t error;
        json_t *item = NULL;

        number++;
        if (line.n == 0 || line.p[0] == '#' || sv_eq(line, SV("\r"))) {
            continue;
        }
        item = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, &error);
        if (item == NULL) {
            diag_set(d, "%s", error.text);
            diag_at(d, path, number, error.column);
            return ERR_INVALID;
        }
        run_case(&suite, item, tally);
        json_decref(item);
    }
    return ERR_OK;
}

static enum err run_document(struct sv text, const char *path, struct tally *tally, struct diag *d)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct cli_policy_suite suite = { .file = path };
    const json_t *cases = NULL;
    enum err err = yaml_parse(text, path, &doc, d);
    size_t i = 0;

    if (err != ERR_OK) {
        return err;
    }
    suite.doc = doc;
    cases = yaml_root(doc);
    if (json_is_object(cases)) {
        suite.policy = json_object_get(cases, "policy");
        suite.route = json_object_get(cases, "route");
        suite.policies = json_object_get(cases, "policies");
        cases = json_object_get(cases, "cases");
    }
    if (!json_is_array(cases)) {
        diag_set(d, "no list of cases: write `cases:` and start each with -");
        return ERR_INVALID;
    }
    for (i = 0; i < json_array_size(cases); i++) {
        run_case(&suite, json_array_get(cases, i), tally);
    }
    return ERR_OK;
}

static int test_file(const char *path, struct sv skip)
{
    CLEANUP(buf_deinit) struct buf text;
    struct tally tally = { .skip = skip };
    struct diag d = { 0 };
    struct sv sv = { 0 };
    enum err err = ERR_OK;

    buf_init(&text, FILE_MAX_BYTES);
    err = read_file(path, &text, &d);
    if (err == ERR_OK) {
        sv = buf_sv(&text);
        err = sv_ends(sv_from(path), SV(".jsonl")) ? run_lines(sv, path, &tally, &d)
                                                   : run_document(sv, path, &tally, &d);
    }
    if (err == ERR_OK && tally.passed + tally.failed + tally.skipped == 0) {
        diag_set(&d, "there is no case in it");
        err = ERR_INVALID;
    }
    (void)fflush(stdout);
    if (err != ERR_OK) {
        return unusable(&d);
    }
    if (tally.skipped != 0) {
        (void)printf("%zu skipped (%.*s)\n", tally.skipped, SV_ARG(skip));
    }
    (void)printf("%zu passed, %zu failed\n", tally.passed, tally.failed);
    (void)fflush(stdout);
    return tally.failed == 0 ? 0 : 1;
}

static int bad_usage(const char *what)
{
    (void)fprintf(stderr, "postern policy: %s\n\n%s", what, usage);
    return 2;
}

int cli_policy_main(int argc, char **argv)
{
    struct sv skip = { 0 };
    const char *file = NULL;
    int i = 0;

    if (argc > 1 && strcmp(argv[1], "diff") == 0) {
        return cli_policy_diff_main(argc - 1, argv + 1);
    }
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            (void)fputs(usage, stdout);
            return 0;
        }
    }
    if (argc < 2 || strcmp(argv[1], "test") != 0) {
        return bad_usage(argc < 2 ? "which command?" : "the commands are test and diff");
    }
    for (i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--skip") == 0 && i + 1 < argc) {
            skip = sv_from(argv[++i]);
        } else if (strncmp(argv[i], "--skip=", 7) == 0) {
            skip = sv_from(argv[i] + 7);
        } else if (argv[i][0] == '-' || file != NULL) {
            return bad_usage(argv[i][0] == '-' ? "unknown option" : "give one file");
        } else {
            file = argv[i];
        }
    }
    return file == NULL ? bad_usage("give a file of cases") : test_file(file, skip);
}
