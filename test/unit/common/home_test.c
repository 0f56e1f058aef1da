/* home: a thread whose work comes one piece at a time stays where that comes from, but not in a crowd,
 * nor in vain, nor against somebody's will. */
#include "common/home.h"

#include <unistd.h>

#include "test/support/cmocka.h"
#include "test/support/wander.h"

/* One look's worth of pieces, of which so many came alone. */
static bool note(struct home *h, unsigned fit)
{
    bool due = false;

    for (unsigned i = 0; i < HOME_LOOK; i++) {
        assert_false(due);
        due = home_note(h, i < fit);
    }
    return due;
}

static unsigned judge(struct home *h, unsigned fit, unsigned where)
{
    assert_true(note(h, fit));
    h->place = home_judge(h, where);
    return h->place;
}

static void work_that_comes_alone_is_gone_to(void **state)
{
    struct home h = { 0 };

    (void)state;
    assert_int_equal(judge(&h, HOME_FIT - 1, 2), 0);
    assert_int_equal(judge(&h, HOME_LOOK, 0), 0);
    assert_int_equal(judge(&h, HOME_FIT, 2), 2);
    assert_int_equal(judge(&h, HOME_FIT, 2), 2);
}

static void a_crowd_ends_it_and_it_does_not_come_back_at_once(void **state)
{
    struct home h = { 0 };

    (void)state;
    assert_int_equal(judge(&h, HOME_LOOK, 2), 2);
    assert_int_equal(judge(&h, HOME_FIT - 1, 2), 0);
    for (unsigned n = HOME_LOOK; n < HOME_RESPITE_MIN - HOME_LOOK; n += HOME_LOOK) {
        assert_int_equal(judge(&h, HOME_LOOK, 2), 0);
    }
    assert_int_equal(judge(&h, HOME_LOOK, 2), 2);
}

/* How many pieces it takes until h is where it should be. */
static unsigned pieces_until(struct home *h, unsigned where)
{
    unsigned n = HOME_LOOK;

    while (judge(h, HOME_LOOK, where) != where) {
        n += HOME_LOOK;
        assert_true(n <= HOME_RESPITE_MAX);
    }
    return n;
}

static void who_is_sent_to_and_fro_goes_less_and_less(void **state)
{
    struct home h = { 0 };
    unsigned where = 1;

    (void)state;
    assert_int_equal(pieces_until(&h, where), HOME_LOOK);
    for (unsigned rest = HOME_RESPITE_MIN; rest <= HOME_RESPITE_MAX; rest *= 2) {
        where = 3 - where;
        assert_int_equal(pieces_until(&h, where), rest);
    }
    where = 3 - where;
    assert_int_equal(pieces_until(&h, where), HOME_RESPITE_MAX);
    for (unsigned n = 0; n < HOME_RESPITE_MAX; n += HOME_LOOK) {
        assert_int_equal(judge(&h, HOME_LOOK, where), where);
    }
    assert_int_equal(h.respite, 0); /* it was the right place */
}

static void who_is_led_goes_at_once(void **state)
{
    struct home h = { .led = true };

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(pieces_until(&h, 1 + i % 2), HOME_LOOK);
    }
}

/* --- with the kernel -------------------------------------------------------------------------- */

static void assert_allowed(const cpu_set_t *want)
{
    cpu_set_t now;

    assert_int_equal(sched_getaffinity(0, sizeof(now), &now), 0);
    assert_true(CPU_EQUAL(&now, want));
}

static cpu_set_t only(unsigned place)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(place - 1, &one);
    return one;
}

static void look(struct home *h, unsigned fit, unsigned where)
{
    assert_true(note(h, fit));
    home_look(h, where);
}

static void come_and_leave(unsigned place, const cpu_set_t *before)
{
    const cpu_set_t one = only(place);
    struct home h = { 0 };

    look(&h, HOME_LOOK, place);
    assert_int_equal(h.place, place);
    assert_allowed(&one);
    look(&h, 0, place);
    assert_int_equal(h.place, 0);
    assert_allowed(before);
    home_leave(&h);
    assert_allowed(before);
}

static void it_stays_there_and_leaves_as_it_was(void **state)
{
    (void)state;
    wander(come_and_leave);
}

static void have_no_work(unsigned place, const cpu_set_t *before)
{
    struct home h = { 0 };

    look(&h, HOME_LOOK, place);
    home_idle(&h);
    assert_int_equal(h.place, place);
    home_idle(&h);
    assert_int_equal(h.place, 0);
    assert_allowed(before);
}

static void who_has_no_work_leaves(void **state)
{
    (void)state;
    wander(have_no_work);
}

static void be_bound(unsigned place, const cpu_set_t *before)
{
    cpu_set_t others = *before;
    struct home h = { 0 };

    CPU_CLR(place - 1, &others);
    look(&h, HOME_LOOK, place);
    assert_int_equal(sched_setaffinity(0, sizeof(others), &others), 0);
    home_leave(&h);
    assert_allowed(&others); /* what somebody set meanwhile stays */
    h = (struct home){ 0 };
    look(&h, HOME_LOOK, place);
    assert_int_equal(h.place, 0); /* not allowed there */
    assert_allowed(&others);
}

static void what_somebody_allows_stays(void **state)
{
    (void)state;
    wander(be_bound);
}

static void be_bound_there(unsigned place, const cpu_set_t *before)
{
    const cpu_set_t one = only(place);
    struct home h = { 0 };

    look(&h, HOME_LOOK, place);
    assert_int_equal(sched_setaffinity(getpid(), sizeof(one), &one), 0);
    home_leave(&h);
    assert_int_equal(sched_setaffinity(getpid(), sizeof(*before), before), 0);
    assert_allowed(&one);
}

static void a_process_that_is_bound_to_that_very_place_stays_bound(void **state)
{
    (void)state;
    wander(be_bound_there);
}

static void be_told_nonsense(unsigned place, const cpu_set_t *before)
{
    const unsigned nonsense[] = { CPU_SETSIZE, CPU_SETSIZE + 1, INT32_MAX, UINT32_MAX };

    (void)place;
    for (size_t i = 0; i < ARRAY_LEN(nonsense); i++) {
        struct home h = { 0 };

        look(&h, HOME_LOOK, nonsense[i]);
        assert_int_equal(h.place, 0);
        assert_allowed(before);
    }
}

static void a_place_that_is_not_there_is_none(void **state)
{
    (void)state;
    wander(be_told_nonsense);
}

static void have_one(unsigned place, const cpu_set_t *before)
{
    const cpu_set_t one = only(place);
    struct home h = { 0 };

    (void)before;
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    look(&h, HOME_LOOK, place);
    assert_int_equal(h.place, 0); /* it is there anyway */
    assert_allowed(&one);
}

static void with_one_processor_there_is_nothing_to_do(void **state)
{
    (void)state;
    wander(have_one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_that_comes_alone_is_gone_to),
        cmocka_unit_test(a_crowd_ends_it_and_it_does_not_come_back_at_once),
        cmocka_unit_test(who_is_sent_to_and_fro_goes_less_and_less),
        cmocka_unit_test(who_is_led_goes_at_once),
        cmocka_unit_test(it_stays_there_and_leaves_as_it_was),
        cmocka_unit_test(who_has_no_work_leaves),
        cmocka_unit_test(what_somebody_allows_stays),
        cmocka_unit_test(a_process_that_is_bound_to_that_very_place_stays_bound),
        cmocka_unit_test(a_place_that_is_not_there_is_none),
        cmocka_unit_test(with_one_processor_there_is_nothing_to_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
