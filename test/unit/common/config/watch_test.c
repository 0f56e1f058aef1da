#include "common/config/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "test/support/cmocka.h"

#define HEAD "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\ninsecure_server: true\n"

enum { PATH = 128, WAIT_MS = 20000 };

struct world {
    char folder[32];
    char file[PATH];
    struct loop *loop;
    struct config_watch *watch;
    struct config_opts opts;
    char name[65]; /* cookie_name of the last that was applied */
    unsigned applied;
    bool refuse;
    int64_t until;
    uint64_t rejected_before;
    unsigned wanted;
};

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static const char *in(const struct world *w, const char *name, char room[PATH])
{
    (void)snprintf(room, PATH, "%s/%s", w->folder, name);
    return room;
}

static enum err on_apply(const struct config *config, struct diag *d, void *arg)
{
    struct world *w = arg;

    if (w->refuse) {
        diag_set(d, "this test takes nothing");
        return ERR_INVALID;
    }
    w->applied++;
    (void)snprintf(w->name, sizeof(w->name), "%s", config->cookie_name.p);
    return ERR_OK;
}

static void open_world(struct world *w)
{
    struct config *first = NULL;
    struct config_errors *errors = NULL;

    (void)snprintf(w->folder, sizeof(w->folder), "/tmp/postern-watch-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    if (w->file[0] == '\0') {
        write_text(in(w, "c.yaml", w->file), HEAD "cookie_name: one\n");
    }
    w->opts = (struct config_opts){ .file = w->file, .part = CONFIG_PART_DATABROKER };
    assert_int_equal(config_load(&w->opts, &first, &errors), ERR_OK);
    w->loop = loop_new();
    w->watch = config_watch_new(w->loop, &w->opts, first, on_apply, w);
    config_unref(&first);
}

static void close_world(struct world *w)
{
    config_watch_free(&w->watch);
    loop_free(&w->loop);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct world *w = arg;
    struct config_watch_state state = { 0 };

    (void)fd;
    (void)what;
    config_watch_state(w->watch, &state);
    if (w->applied >= w->wanted || state.rejected > w->rejected_before ||
        clock_mono_ms() > w->until) {
        (void)event_base_loopbreak(loop_base(w->loop));
    }
}

/* Turns until something was applied or rejected; then long enough for a second time to show. */
static void turn(struct world *w, unsigned wanted, int64_t ms)
{
    struct timeval tick = { 0, 20000 };
    struct event *timer = event_new(loop_base(w->loop), -1, EV_PERSIST, on_tick, w);
    struct config_watch_state state = { 0 };

    config_watch_state(w->watch, &state);
    w->rejected_before = state.rejected;
    w->wanted = wanted;
    w->until = clock_mono_ms() + ms;
    assert_int_equal(event_add(timer, &tick), 0);
    assert_int_equal(event_base_dispatch(loop_base(w->loop)), 0);
    event_free(timer);
}

static void exactly_once(struct world *w, const char *name)
{
    unsigned before = w->applied;

    turn(w, before + 1, WAIT_MS);
    assert_int_equal(w->applied, before + 1);
    assert_string_equal(w->name, name);
    turn(w, before + 2, 3500);
    assert_int_equal(w->applied, before + 1);
}

static void a_rename_over_the_file_counts_once(void **state)
{
    struct world w = { 0 };
    char other[PATH];

    (void)state;
    open_world(&w);
    write_text(in(&w, "new", other), HEAD "cookie_name: two\n");
    assert_int_equal(rename(other, w.file), 0);
    exactly_once(&w, "two");
    close_world(&w);
}

static void truncate_then_write_counts_once(void **state)
{
    struct world w = { 0 };
    FILE *f = NULL;

    (void)state;
    open_world(&w);
    f = fopen(w.file, "w"); /* empty from now on */
    assert_non_null(f);
    turn(&w, 1, 1500);
    assert_int_equal(w.applied, 0);
    assert_int_equal(w.rejected_before, 0);
    assert_true(fputs(HEAD "cookie_name: two\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    exactly_once(&w, "two");
    close_world(&w);
}

static void a_swapped_symbolic_link_counts_once(void **state)
{
    struct world w = { 0 };
    char path[PATH];
    char link[PATH];

    (void)state;
    (void)snprintf(w.folder, sizeof(w.folder), "/tmp/postern-watch-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    /* As Kubernetes mounts a ConfigMap: c.yaml -> ..data/c.yaml, ..data -> a folder. */
    assert_int_equal(mkdir(in(&w, "v1", path), 0700), 0);
    assert_int_equal(mkdir(in(&w, "v2", path), 0700), 0);
    write_text(in(&w, "v1/c.yaml", path), HEAD "cookie_name: one\n");
    write_text(in(&w, "v2/c.yaml", path), HEAD "cookie_name: two\n");
    assert_int_equal(symlink("v1", in(&w, "..data", path)), 0);
    assert_int_equal(symlink("..data/c.yaml", in(&w, "c.yaml", path)), 0);
    (void)in(&w, "c.yaml", w.file);
    open_world(&w);
    (void)snprintf(w.folder, sizeof(w.folder), "%.*s", 26, w.file);
    assert_int_equal(symlink("v2", in(&w, "..new", link)), 0);
    assert_int_equal(rename(link, in(&w, "..data", path)), 0);
    exactly_once(&w, "two");
    close_world(&w);
}

static void a_touched_file_is_no_change(void **state)
{
    struct world w = { 0 };

    (void)state;
    open_world(&w);
    write_text(w.file, HEAD "cookie_name: one\n");
    turn(&w, 1, 2500);
    assert_int_equal(w.applied, 0);
    close_world(&w);
}

static void a_file_that_it_names_counts(void **state)
{
    struct world w = { 0 };
    char secret[PATH];

    (void)state;
    open_world(&w);
    write_text(in(&w, "secret", secret), "//////////////////////////////////////////8=\n");
    write_text(w.file, "shared_secret_file: secret\ninsecure_server: true\ncookie_name: two\n");
    exactly_once(&w, "two");
    write_text(secret, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
    exactly_once(&w, "two");
    close_world(&w);
}

static void a_bad_one_keeps_the_last_good_one_until_it_is_mended(void **state)
{
    struct world w = { 0 };
    struct config_watch_state s = { 0 };

    (void)state;
    open_world(&w);
    write_text(w.file, HEAD "cookie_nam: two\n");
    turn(&w, 1, WAIT_MS);
    config_watch_state(w.watch, &s);
    assert_int_equal(w.applied, 0);
    assert_int_equal(s.rejected, 1);
    assert_true(s.last_was_rejected);
    assert_string_equal(config_watch_current(w.watch)->cookie_name.p, "one");
    turn(&w, 1, 2500);
    config_watch_state(w.watch, &s);
    assert_int_equal(s.rejected, 1); /* told once */
    write_text(w.file, HEAD "cookie_name: two\n");
    exactly_once(&w, "two");
    config_watch_state(w.watch, &s);
    assert_false(s.last_was_rejected);
    assert_int_equal(s.generation, 2);
    close_world(&w);
}

static void what_the_daemon_refuses_is_not_in_use(void **state)
{
    struct world w = { 0 };

    (void)state;
    open_world(&w);
    w.refuse = true;
    write_text(w.file, HEAD "cookie_name: two\n");
    turn(&w, 1, WAIT_MS);
    assert_string_equal(config_watch_current(w.watch)->cookie_name.p, "one");
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rename_over_the_file_counts_once),
        cmocka_unit_test(truncate_then_write_counts_once),
        cmocka_unit_test(a_swapped_symbolic_link_counts_once),
        cmocka_unit_test(a_touched_file_is_no_change),
        cmocka_unit_test(a_file_that_it_names_counts),
        cmocka_unit_test(a_bad_one_keeps_the_last_good_one_until_it_is_mended),
        cmocka_unit_test(what_the_daemon_refuses_is_not_in_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
