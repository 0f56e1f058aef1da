/* audit: no line is lost without being counted, whatever happens to the file, and nothing can be
 * done to a chain that its verification does not see. */
#include "common/audit/audit.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/audit/verify.h"
#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

enum { WAIT_MS = 10000, TEXT_MAX = 64 * 1024 * 1024 };

static char folder[64];

static struct config *config_of(const char *audit)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct config_opts opts = { .file = "/config.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct buf text;

    buf_init(&text, 65536);
    buf_printf(&text,
               "address: 127.0.0.1:8443\n"
               "shared_secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"
               "audit: {%s}\n",
               audit);
    enum err err = config_parse(buf_sv(&text), &opts, &config, &errors);

    for (size_t i = 0; err != ERR_OK && i < config_errors_count(errors); i++) {
        print_error("%s\n", config_errors_text(errors, i));
    }
    config_errors_free(&errors);
    buf_deinit(&text);
    assert_int_equal(err, ERR_OK);
    return config;
}

static struct config *file_config(const char *more)
{
    char audit[512];

    (void)snprintf(audit, sizeof(audit), "sink: file, folder: %s%s", folder, more);
    return config_of(audit);
}

static struct audit *audit_of(const struct config *config)
{
    struct audit_opts opts = { .config = config };
    struct audit *audit = NULL;
    struct diag d = { .line = 0 };

    if (audit_new(&opts, &audit, &d) != ERR_OK) {
        fail_msg("%s", d.text);
    }
    return audit;
}

static uint64_t add(struct audit *audit, unsigned n)
{
    buf_printf(audit_line(audit), "{\"time\":\"t\",\"service\":\"s\",\"event\":\"e\",\"n\":%u}\n",
               n);
    return audit_added(audit);
}

static void wait_written(const struct audit *audit, uint64_t line)
{
    int64_t until = clock_mono_ms() + WAIT_MS;

    while (audit_written(audit) < line && clock_mono_ms() < until) {
        (void)usleep(1000);
    }
    assert_true(audit_written(audit) >= line);
}

static void wait_working(const struct audit *audit, bool works)
{
    int64_t until = clock_mono_ms() + WAIT_MS;

    while (audit_works(audit) != works && clock_mono_ms() < until) {
        (void)usleep(1000);
    }
    assert_int_equal(audit_works(audit), works);
}

/* One run of the part: lines from..to-1. */
static void run(const char *settings, unsigned from, unsigned to)
{
    struct config *config = file_config(settings);
    struct audit *audit = audit_of(config);
    uint64_t line = 0;

    for (unsigned i = from; i < to; i++) {
        line = add(audit, i);
        assert_true(audit_flush(audit, i % 7 == 0));
    }
    wait_written(audit, line);
    assert_int_equal(audit_lost(audit), 0);
    audit_free(&audit);
    config_unref(&config);
}

static const char *name_of(const char *suffix)
{
    static char name[2][128];
    static unsigned turn;

    turn ^= 1U;
    (void)snprintf(name[turn], sizeof(name[turn]), "%s/authorize.audit.log%s", folder, suffix);
    return name[turn];
}

static void read_file(const char *suffix, struct buf *out)
{
    FILE *f = fopen(name_of(suffix), "r");
    char part[4096];
    size_t n = 0;

    buf_init(out, TEXT_MAX);
    assert_non_null(f);
    while ((n = fread(part, 1, sizeof(part), f)) > 0) {
        buf_add(out, part, n);
    }
    (void)fclose(f);
}

static void write_file(const char *suffix, struct sv text)
{
    FILE *f = fopen(name_of(suffix), "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    (void)fclose(f);
}

static size_t count(struct sv text, const char *what)
{
    size_t n = 0;
    struct sv needle = sv_from(what);

    for (size_t at = sv_search(text, needle); at != SIZE_MAX; at = sv_search(text, needle)) {
        text = sv_from_at(text, at + needle.n);
        n++;
    }
    return n;
}

/* --- verifying -------------------------------------------------------------------------------- */

struct verdict {
    bool whole;
    struct buf findings;
    struct buf summary;
};

static void note_finding(void *arg, const char *sentence)
{
    struct verdict *v = arg;

    buf_add_str(&v->findings, sentence);
    buf_add_char(&v->findings, '\n');
}

static void verdict_free(struct verdict *v)
{
    buf_deinit(&v->findings);
    buf_deinit(&v->summary);
}

static void give_lines(struct audit_verify *verify, struct sv text)
{
    uint64_t number = 0;

    while (text.p != NULL && text.n != 0) {
        size_t end = sv_find(text, '\n');
        bool ends = end != SIZE_MAX;
        size_t n = ends ? end : text.n;

        audit_verify_line(verify, "f", ++number, sv_head(text, n), ends);
        text = sv_from_at(text, ends ? n + 1 : n);
    }
}

static struct verdict verify_text(const struct config *config, struct sv text, const char *head)
{
    struct verdict v = { .whole = false };
    struct audit_verify_opts opts = { .keys = config == NULL ? NULL : config->keys,
                                      .say = note_finding,
                                      .arg = &v };
    struct audit_verify *verify = audit_verify_new(&opts);

    buf_init(&v.findings, 65536);
    buf_init(&v.summary, 65536);
    if (head != NULL) {
        assert_int_equal(audit_verify_expect(verify, sv_from(head)), ERR_OK);
    }
    give_lines(verify, text);
    v.whole = audit_verify_end(verify, &v.summary);
    audit_verify_free(&verify);
    return v;
}

static void check(const char *settings, struct sv text, const char *head, const char *finding)
{
    struct config *config = strstr(settings, "sha256") != NULL ? NULL : file_config(settings);
    struct verdict v = verify_text(config, text, head);

    if (finding == NULL && !v.whole) {
        fail_msg("not whole: %s", buf_cstr(&v.findings));
    }
    if (finding != NULL) {
        assert_false(v.whole);
        if (strstr(buf_cstr(&v.findings), finding) == NULL) {
            fail_msg("no \"%s\" in: %s", finding, buf_cstr(&v.findings));
        }
    }
    verdict_free(&v);
    config_unref(&config);
}

static void check_file(const char *settings, const char *finding)
{
    struct buf text;

    read_file("", &text);
    check(settings, buf_sv(&text), NULL, finding);
    buf_deinit(&text);
}

#define HMAC ", chain: hmac"

/* --- tests ------------------------------------------------------------------------------------ */

static void lines_are_written_once_and_in_order(void **state)
{
    struct buf text;
    struct stat st;
    char expected[64];
    size_t at = 0;

    (void)state;
    run("", 0, 1000);
    read_file("", &text);
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(expected, sizeof(expected), "\"n\":%u}\n", i);
        at = sv_search(buf_sv(&text), sv_from(expected));
        assert_int_not_equal(at, SIZE_MAX);
    }
    assert_int_equal(count(buf_sv(&text), "\n"), 1000);
    assert_int_equal(stat(name_of(""), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    buf_deinit(&text);
}

static void a_chain_goes_on_over_restarts(void **state)
{
    struct buf text;

    (void)state;
    run(HMAC ", group_readable: true", 0, 50);
    run(HMAC ", fsync: true", 50, 60);
    run(HMAC, 60, 61);
    check_file(HMAC, NULL);
    read_file("", &text);
    assert_int_equal(count(buf_sv(&text), "audit opened"), 3);
    assert_int_equal(count(buf_sv(&text), "audit closed"), 3);
    assert_int_equal(count(buf_sv(&text), "\n"), 61 + 6);
    buf_deinit(&text);
}

static void a_plain_chain_needs_no_secret_and_is_taken_for_no_other(void **state)
{
    (void)state;
    run(", chain: sha256", 0, 10);
    check_file("chain: sha256", NULL);
    check_file(HMAC, "a plain chain, which anybody can make");
    (void)unlink(name_of(""));
    run(HMAC, 0, 10);
    check_file("chain: sha256", "a chain with a key");
}

static struct sv line_at(struct sv text, size_t i)
{
    for (; i > 0; i--) {
        text = sv_from_at(text, sv_find(text, '\n') + 1);
    }
    return sv_head(text, sv_find(text, '\n') + 1);
}

/* The text with lines a and b as they are told: -1 leaves out. */
static void rearrange(struct sv text, const int *order, struct buf *out)
{
    buf_init(out, TEXT_MAX);
    for (size_t i = 0; order[i] >= 0; i++) {
        buf_add_sv(out, line_at(text, (size_t)order[i]));
    }
}

static void whatever_is_done_to_a_chain_is_seen(void **state)
{
    static const struct {
        int order[12]; /* of opened, 0…4, closed */
        const char *finding;
    } rows[] = {
        { { 0, 1, 2, 3, 4, 5, 6, -1 }, NULL },
        { { 0, 1, 2, 4, 5, 6, -1 }, "lines 4 to 4 of chain" },
        { { 0, 1, 2, 6, -1 }, "lines 4 to 6 of chain" },
        { { 0, 1, 3, 2, 4, 5, 6, -1 }, "lines 3 to 3 of chain" },
        { { 0, 1, 2, 2, 3, 4, 5, 6, -1 }, "comes after line 3" },
        { { 1, 2, 3, 4, 5, 6, -1 }, "begins in its middle, with line 2" },
    };
    struct buf text;
    struct buf changed;

    (void)state;
    run(HMAC, 0, 5);
    read_file("", &text);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        rearrange(buf_sv(&text), rows[i].order, &changed);
        check(HMAC, buf_sv(&changed), NULL, rows[i].finding);
        buf_deinit(&changed);
    }
    for (size_t i = 0; i < text.n - 1; i++) { /* no byte can be another one */
        char before = text.p[i];

        text.p[i] = (char)(before == 'x' ? 'y' : 'x');
        check(HMAC, buf_sv(&text), NULL, "");
        text.p[i] = before;
    }
    buf_deinit(&text);
}

static void an_end_that_was_cut_off_shows_only_where_the_head_was_noted_down(void **state)
{
    struct config *config = file_config(HMAC);
    struct buf text;
    struct verdict v;
    char *head = NULL;

    (void)state;
    run(HMAC, 0, 5);
    read_file("", &text);
    v = verify_text(config, buf_sv(&text), NULL);
    assert_true(v.whole);
    assert_non_null(strstr(buf_cstr(&v.summary), "ended in order"));
    head = strstr(v.summary.p, "head ");
    assert_non_null(head);
    head += 5;
    *strchr(head, '\n') = '\0';
    text.n -= line_at(buf_sv(&text), 6).n;
    check(HMAC, buf_sv(&text), NULL, NULL);
    check(HMAC, buf_sv(&text), head, "which was there once, is missing");
    verdict_free(&v);
    v = verify_text(config, buf_sv(&text), NULL);
    assert_non_null(strstr(buf_cstr(&v.summary), "no orderly end"));
    verdict_free(&v);
    buf_deinit(&text);
    config_unref(&config);
}

static void another_secret_makes_no_such_chain(void **state)
{
    struct config *other = NULL;
    struct config_opts opts = { .file = "/c", .part = CONFIG_PART_AUTHORIZE };
    struct config_errors *errors = NULL;
    struct buf text;
    struct verdict v;

    (void)state;
    run(HMAC, 0, 5);
    read_file("", &text);
    assert_int_equal(
        config_parse(SV("address: 127.0.0.1:8443\n"
                        "shared_secret: QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n"),
                     &opts, &other, &errors),
        ERR_OK);
    v = verify_text(other, buf_sv(&text), NULL);
    assert_false(v.whole);
    verdict_free(&v);
    config_unref(&other);
    buf_deinit(&text);
}

static void a_line_that_a_crash_has_torn_is_left_and_the_chain_goes_on(void **state)
{
    static const size_t cuts[] = { 0, 1, 2, 40, 150 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        struct buf text;

        (void)unlink(name_of(""));
        run(HMAC, 0, 5);
        read_file("", &text);
        text.n -= line_at(buf_sv(&text), 6).n + cuts[i]; /* no orderly end either */
        write_file("", buf_sv(&text));
        check(HMAC, buf_sv(&text), NULL, NULL);
        run(HMAC, 5, 10);
        check_file(HMAC, NULL);
        buf_deinit(&text);
    }
}

static void a_line_of_no_chain_is_no_crash(void **state)
{
    struct buf text;

    (void)state;
    run(HMAC, 0, 5);
    read_file("", &text);
    buf_add_str(&text, "{\"time\":\"t\",\"decision\":\"allow\"}\n");
    check(HMAC, buf_sv(&text), NULL, "f:8: the line is of no chain");
    write_file("", buf_sv(&text));
    run(HMAC, 5, 6); /* it begins a file of its own */
    check_file(HMAC, NULL);
    buf_deinit(&text);
}

static void the_file_is_turned_over_at_its_size(void **state)
{
    struct config *config = file_config(HMAC ", rotate_size: 1, keep: 2");
    struct audit *audit = audit_of(config);
    struct buf all;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t line = add(audit, i);

        if (i % 100 == 99) {
            assert_true(audit_flush(audit, true));
            wait_written(audit, line);
        }
    }
    audit_free(&audit);
    buf_init(&all, TEXT_MAX);
    for (int i = 2; i >= 0; i--) {
        struct buf part;
        char suffix[8] = "";

        if (i != 0) {
            (void)snprintf(suffix, sizeof(suffix), ".%d", i);
        }
        read_file(suffix, &part);
        check(HMAC, buf_sv(&part), NULL, NULL); /* each by itself, too */
        buf_add_sv(&all, buf_sv(&part));
        buf_deinit(&part);
    }
    check(HMAC, buf_sv(&all), NULL, NULL);
    assert_int_equal(access(name_of(".3"), F_OK), -1);
    assert_int_not_equal(sv_search(buf_sv(&all), SV("\"n\":19999,")), SIZE_MAX);
    buf_deinit(&all);
    config_unref(&config);
}

static void a_file_that_was_moved_away_is_begun_anew(void **state)
{
    struct config *config = file_config(HMAC);
    struct audit *audit = audit_of(config);
    struct buf text;

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        uint64_t line = add(audit, i);

        (void)audit_flush(audit, true);
        wait_written(audit, line);
        if (i == 4) {
            assert_int_equal(rename(name_of(""), name_of(".moved")), 0);
        }
    }
    audit_free(&audit);
    read_file(".moved", &text);
    assert_int_equal(count(buf_sv(&text), "\"n\":"), 5);
    check(HMAC, buf_sv(&text), NULL, NULL);
    buf_deinit(&text);
    read_file("", &text);
    assert_int_equal(count(buf_sv(&text), "\"n\":"), 5);
    check(HMAC, buf_sv(&text), NULL, NULL);
    buf_deinit(&text);
    config_unref(&config);
}

static void set_file_limit(rlim_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = MIN(bytes, limit.rlim_max);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void what_a_full_disk_takes_no_more_is_written_when_it_does(void **state)
{
    struct config *config = file_config(HMAC);
    struct audit *audit = audit_of(config);
    struct buf text;
    uint64_t line = 0;

    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_true(audit_works(audit));
    set_file_limit(2000); /* in the middle of a line */
    for (unsigned i = 0; i < 100; i++) {
        line = add(audit, i);
        assert_true(audit_flush(audit, true));
    }
    wait_working(audit, false);
    set_file_limit(RLIM_INFINITY);
    wait_written(audit, line);
    wait_working(audit, true);
    assert_int_equal(audit_lost(audit), 0);
    audit_free(&audit);
    read_file("", &text);
    assert_int_equal(count(buf_sv(&text), "\"n\":"), 100);
    buf_deinit(&text);
    check_file(HMAC, NULL);
    config_unref(&config);
}

static void what_finds_no_room_is_counted_and_told_to_its_maker(void **state)
{
    struct config *config = file_config("");
    struct audit *audit = audit_of(config);
    struct buf text;
    char filler[1024];
    unsigned made = 0;
    unsigned refused = 0;

    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    memset(filler, 'x', sizeof(filler) - 1);
    filler[sizeof(filler) - 1] = '\0';
    set_file_limit(0);
    (void)add(audit, 0);
    (void)audit_flush(audit, true);
    wait_working(audit, false); /* from here on the writer holds what it holds */
    for (made = 1; made < 40000; made++) {
        buf_printf(audit_line(audit), "{\"n\":%u,\"x\":\"%s\"}\n", made, filler);
        (void)audit_added(audit);
        refused += audit_flush(audit, false) ? 0 : 1;
    }
    assert_true(refused > 1000);
    assert_int_equal(audit_lost(audit), refused);
    set_file_limit(RLIM_INFINITY);
    wait_working(audit, true);
    audit_free(&audit);
    read_file("", &text);
    assert_int_equal(count(buf_sv(&text), "\"n\":") + refused, made);
    buf_deinit(&text);
    config_unref(&config);
}

static void other_settings_lose_no_line_even_while_the_old_ones_fail(void **state)
{
    struct config *config = file_config(HMAC);
    struct audit *audit = audit_of(config);
    struct config *other = NULL;
    struct buf text;
    struct diag d = { .line = 0 };
    char settings[256];
    uint64_t line = 0;

    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    set_file_limit(2000);
    for (unsigned i = 0; i < 100; i++) {
        line = add(audit, i);
        (void)audit_flush(audit, true);
    }
    wait_working(audit, false);
    (void)snprintf(settings, sizeof(settings), "sink: file, folder: %s/none, chain: hmac", folder);
    other = config_of(settings);
    assert_int_equal(audit_set(audit, other, &d), ERR_IO);
    assert_non_null(strstr(d.text, "audit.folder: "));
    config_unref(&other);
    (void)snprintf(settings, sizeof(settings), "%s/other", folder);
    assert_int_equal(mkdir(settings, 0700), 0);
    (void)snprintf(settings, sizeof(settings), "sink: file, folder: %s/other, chain: hmac", folder);
    other = config_of(settings);
    set_file_limit(RLIM_INFINITY);
    assert_int_equal(audit_set(audit, other, &d), ERR_OK);
    wait_written(audit, line);
    audit_free(&audit);
    config_unref(&other);
    read_file("", &text);
    size_t before = count(buf_sv(&text), "\"}\n"); /* its opening, too; a torn one has no end */
    buf_deinit(&text);
    (void)snprintf(folder + strlen(folder), sizeof(folder) - strlen(folder), "/other");
    read_file("", &text);
    check(HMAC, buf_sv(&text), NULL, NULL);
    assert_int_equal(before - 1 + count(buf_sv(&text), "\"n\":"), 100);
    buf_deinit(&text);
    config_unref(&config);
}

static void a_file_has_one_writer(void **state)
{
    struct config *config = file_config("");
    struct audit *audit = audit_of(config);
    struct audit_opts opts = { .config = config };
    struct audit *second = NULL;
    struct diag d = { .line = 0 };

    (void)state;
    assert_int_equal(audit_new(&opts, &second, &d), ERR_EXISTS);
    assert_non_null(strstr(d.text, "another process writes"));
    assert_null(second);
    audit_free(&audit);
    audit_free(&audit);
    config_unref(&config);
}

/* --- each test has a folder ------------------------------------------------------------------- */

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/postern-audit-XXXXXX");
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int remove_folder(void **state)
{
    char *other = strstr(folder, "/other");

    (void)state;
    set_file_limit(RLIM_INFINITY);
    if (other != NULL) {
        *other = '\0';
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the writer has ended */
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(lines_are_written_once_and_in_order),
        IN_FOLDER(a_chain_goes_on_over_restarts),
        IN_FOLDER(a_plain_chain_needs_no_secret_and_is_taken_for_no_other),
        IN_FOLDER(whatever_is_done_to_a_chain_is_seen),
        IN_FOLDER(an_end_that_was_cut_off_shows_only_where_the_head_was_noted_down),
        IN_FOLDER(another_secret_makes_no_such_chain),
        IN_FOLDER(a_line_that_a_crash_has_torn_is_left_and_the_chain_goes_on),
        IN_FOLDER(a_line_of_no_chain_is_no_crash),
        IN_FOLDER(the_file_is_turned_over_at_its_size),
        IN_FOLDER(a_file_that_was_moved_away_is_begun_anew),
        IN_FOLDER(what_a_full_disk_takes_no_more_is_written_when_it_does),
        IN_FOLDER(what_finds_no_room_is_counted_and_told_to_its_maker),
        IN_FOLDER(other_settings_lose_no_line_even_while_the_old_ones_fail),
        IN_FOLDER(a_file_has_one_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
