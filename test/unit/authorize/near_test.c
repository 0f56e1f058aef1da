/* authz_near: the thread of the checks goes to the one worker that asks, and stays no longer than that. */
#include "authorize/near.h"

#include "test/support/cmocka.h"
#include "test/support/wander.h"

static const int first;
static const int second;

static void ask(struct authz_near *near, const void *asker, size_t checks, unsigned place)
{
    for (unsigned i = 0; i < HOME_LOOK; i++) {
        authz_near_note(near, asker, checks, place, near->asked_ms);
    }
}

static void follow(unsigned place, const cpu_set_t *before)
{
    struct authz_near near = { .asked_ms = 5 };

    (void)before;
    ask(&near, &first, 1, 0);
    assert_int_equal(near.home.place, 0);
    ask(&near, &first, 1, place);
    assert_int_equal(near.home.place, place);
    authz_near_note(&near, &first, 1, place, near.asked_ms + 1000);
    assert_int_equal(near.home.place, place);
    authz_near_note(&near, &first, 1, place, near.asked_ms + 1001);
    assert_int_equal(near.home.place, 0);
}

static void it_goes_to_who_asks_until_that_one_pauses(void **state)
{
    (void)state;
    wander(follow);
}

static void stay_away(unsigned place, const cpu_set_t *before)
{
    struct authz_near near = { .asked_ms = 5 };

    (void)before;
    ask(&near, &first, 1, place);
    assert_int_equal(near.home.place, place);
    for (unsigned i = 0; i < HOME_LOOK; i++) {
        authz_near_note(&near, i % 2 == 0 ? &first : &second, 1, place, near.asked_ms);
    }
    assert_int_equal(near.home.place, 0);
}

static void where_two_ask_it_stays_with_none(void **state)
{
    (void)state;
    wander(stay_away);
}

static void be_crowded(unsigned place, const cpu_set_t *before)
{
    struct authz_near near = { .asked_ms = 5 };

    (void)before;
    ask(&near, &first, 1, place);
    assert_int_equal(near.home.place, place);
    ask(&near, &first, 4, place);
    assert_int_equal(near.home.place, 0);
}

static void where_many_checks_come_together_it_leaves(void **state)
{
    (void)state;
    wander(be_crowded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_to_who_asks_until_that_one_pauses),
        cmocka_unit_test(where_two_ask_it_stays_with_none),
        cmocka_unit_test(where_many_checks_come_together_it_leaves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
