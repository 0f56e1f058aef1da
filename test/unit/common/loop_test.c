#include "common/loop.h"

#include "test/support/cmocka.h"

/* An event that is never quiet, as that of a connection which sends faster than it is read. */
struct busy {
    struct loop *loop;
    struct event *event;
    unsigned raised;
    unsigned deferred;
    unsigned flushed;
    unsigned timed;
};

enum { RAISED_MAX = 100000 };

static void on_deferred(void *arg)
{
    struct busy *b = arg;

    b->deferred++;
}

static void on_flush(void *arg)
{
    struct busy *b = arg;

    b->flushed++;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct busy *b = arg;

    (void)fd;
    (void)what;
    b->timed++;
}

static void on_busy(evutil_socket_t fd, short what, void *arg)
{
    struct busy *b = arg;

    (void)fd;
    (void)what;
    if (++b->raised == RAISED_MAX || (b->deferred > 0 && b->flushed > 0 && b->timed > 0)) {
        loop_stop(b->loop);
        return;
    }
    loop_raise(b->loop, b->event);
}

static void nothing_starves_behind_an_event_that_raises_itself(void **state)
{
    struct busy b = { .loop = loop_new_private() };
    struct event *timer = event_new(loop_base(b.loop), -1, 0, on_timer, &b);
    const struct timeval soon = { .tv_usec = 1 };

    (void)state;
    b.event = event_new(loop_base(b.loop), -1, EV_PERSIST, on_busy, &b);
    assert_non_null(timer);
    assert_non_null(b.event);
    loop_on_flush(b.loop, on_flush, &b);
    loop_gather(b.loop);
    loop_defer(b.loop, on_deferred, &b);
    assert_int_equal(event_add(timer, &soon), 0);
    event_active(b.event, 0, 0);
    loop_run(b.loop);
    assert_int_equal(b.deferred, 1);
    assert_int_equal(b.flushed, 1);
    assert_int_equal(b.timed, 1);
    assert_true(b.raised < RAISED_MAX);
    event_free(timer);
    event_free(b.event);
    loop_free(&b.loop);
}

struct ticking {
    struct loop *loop;
    struct loop_tick *tick;
    unsigned times;
};

static void on_tick(void *arg)
{
    struct ticking *t = arg;

    if (++t->times == 3) {
        loop_tick_free(&t->tick);
        loop_stop(t->loop);
    }
}

static void a_tick_comes_until_it_is_freed_in_its_own_call_too(void **state)
{
    struct ticking t = { .loop = loop_new_private() };

    (void)state;
    t.tick = loop_tick_new(t.loop, 1, on_tick, &t);
    loop_run(t.loop);
    assert_int_equal(t.times, 3);
    assert_null(t.tick);
    loop_tick_free(&t.tick);
    loop_free(&t.loop);
}

static void on_hurried(evutil_socket_t fd, short what, void *arg)
{
    struct busy *b = arg;

    (void)fd;
    (void)what;
    if (++b->raised == 1) {
        loop_gather(b->loop);
        loop_hurry(b->loop);
        loop_raise(b->loop, b->event);
        return;
    }
    loop_stop(b->loop);
}

static void what_is_in_a_hurry_does_not_wait_for_a_quiet_turn(void **state)
{
    struct busy b = { .loop = loop_new_private() };

    (void)state;
    b.event = event_new(loop_base(b.loop), -1, EV_PERSIST, on_hurried, &b);
    assert_non_null(b.event);
    loop_on_flush(b.loop, on_flush, &b);
    event_active(b.event, 0, 0);
    loop_run(b.loop);
    assert_int_equal(b.raised, 2);
    assert_int_equal(b.flushed, 1);
    event_free(b.event);
    loop_free(&b.loop);
}

struct glutton {
    struct busy busy;
    unsigned turns;
    unsigned flushed_at; /* late turns that came before the flush */
};

static void on_glutton_late(void *arg)
{
    struct glutton *g = arg;

    assert_true(g->busy.raised > g->turns); /* what was ready came first, each time */
    if (++g->turns == 3) {
        loop_stop(g->busy.loop);
        return;
    }
    loop_late(g->busy.loop);
    event_active(g->busy.event, 0, 0);
}

static void on_glutton_flush(void *arg)
{
    struct glutton *g = arg;

    g->busy.flushed++;
    g->flushed_at = g->turns;
}

static void on_other(evutil_socket_t fd, short what, void *arg)
{
    struct glutton *g = arg;

    (void)fd;
    (void)what;
    g->busy.raised++;
}

static void late_work_runs_behind_what_is_ready_once_a_turn(void **state)
{
    struct glutton g = { .busy = { .loop = loop_new_private() } };

    (void)state;
    g.busy.event = event_new(loop_base(g.busy.loop), -1, EV_PERSIST, on_other, &g);
    assert_non_null(g.busy.event);
    loop_on_late(g.busy.loop, on_glutton_late, &g);
    loop_late(g.busy.loop);
    event_active(g.busy.event, 0, 0);
    loop_run(g.busy.loop);
    assert_int_equal(g.turns, 3);
    event_free(g.busy.event);
    loop_free(&g.busy.loop);
}

static void on_idle_late(void *arg)
{
    struct glutton *g = arg;

    if (++g->turns == 5) {
        loop_stop(g->busy.loop);
        return;
    }
    loop_late(g->busy.loop);
}

static void a_flush_does_not_wait_for_late_work(void **state)
{
    struct glutton g = { .busy = { .loop = loop_new_private() } };

    (void)state;
    loop_on_late(g.busy.loop, on_idle_late, &g);
    loop_on_flush(g.busy.loop, on_glutton_flush, &g);
    loop_gather(g.busy.loop);
    loop_late(g.busy.loop);
    loop_run(g.busy.loop);
    assert_int_equal(g.busy.flushed, 1);
    assert_int_equal(g.flushed_at, 0);
    loop_free(&g.busy.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_starves_behind_an_event_that_raises_itself),
        cmocka_unit_test(a_tick_comes_until_it_is_freed_in_its_own_call_too),
        cmocka_unit_test(what_is_in_a_hurry_does_not_wait_for_a_quiet_turn),
        cmocka_unit_test(late_work_runs_behind_what_is_ready_once_a_turn),
        cmocka_unit_test(a_flush_does_not_wait_for_late_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
