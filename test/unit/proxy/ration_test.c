#include "proxy/ration.h"

#include "test/support/cmocka.h"

static struct proxy_ration fresh(void)
{
    struct proxy_ration r;

    proxy_ration_init(&r);
    return r;
}

static void who_asks_for_little_gets_a_whole_turn_each_time(void **state)
{
    struct proxy_ration r = fresh();
    int i = 0;

    (void)state;
    for (i = 0; i < 10; i++) {
        proxy_ration_serve(&r);
        assert_int_equal(r.left, PROXY_RATION_TURN);
        proxy_ration_spend(&r, PROXY_RATION_TURN - 1);
        assert_int_not_equal(r.left, 0);
    }
}

static void who_has_had_its_turn_gets_less_until_that_is_enough(void **state)
{
    struct proxy_ration r = fresh();

    (void)state;
    proxy_ration_serve(&r);
    proxy_ration_spend(&r, SIZE_MAX);
    assert_int_equal(r.left, 0);
    proxy_ration_serve(&r);
    assert_int_equal(r.left, PROXY_RATION_LATE);
    assert_int_not_equal(r.left, 0);
    proxy_ration_spend(&r, PROXY_RATION_LATE);
    assert_int_equal(r.left, 0);
    proxy_ration_serve(&r);
    proxy_ration_spend(&r, 1);
    proxy_ration_serve(&r);
    assert_int_equal(r.left, PROXY_RATION_TURN);
}

static void bites_grow_while_they_are_cheap_and_shrink_at_once(void **state)
{
    struct proxy_ration r = fresh();

    (void)state;
    assert_int_equal(r.bite, PROXY_BITE_FIRST);
    proxy_ration_taste(&r, PROXY_BITE_FIRST, 0);
    assert_int_equal(r.bite, 2 * PROXY_BITE_FIRST);
    while (r.bite < PROXY_BITE_MAX) {
        uint32_t before = r.bite;

        proxy_ration_taste(&r, r.bite, r.bite / PROXY_BODY_BYTES);
        assert_int_equal(r.bite, 2 * before);
    }
    proxy_ration_taste(&r, r.bite, 1);
    assert_int_equal(r.bite, PROXY_BITE_MAX);
    proxy_ration_taste(&r, PROXY_BITE_MAX, 4 * PROXY_BITE_COST);
    assert_int_equal(r.bite, PROXY_BITE_MAX / 4);
    proxy_ration_taste(&r, PROXY_BITE_MAX / 4, UINT32_MAX);
    assert_int_equal(r.bite, PROXY_BITE_MIN);
    proxy_ration_taste(&r, 0, 0);
    assert_int_equal(r.bite, PROXY_BITE_MIN);
}

static void chatter_has_a_bound_that_time_lifts(void **state)
{
    struct proxy_ration r = fresh();
    int i = 0;

    (void)state;
    for (i = 0; i < PROXY_CHATTER_MAX; i++) {
        assert_true(proxy_ration_chatter(&r, 5000));
    }
    assert_false(proxy_ration_chatter(&r, 5000));
    assert_false(proxy_ration_chatter(&r, 5001)); /* a tenth of one */
    for (i = 0; i < PROXY_CHATTER_PER_S - 2; i++) {
        assert_true(proxy_ration_chatter(&r, 6000));
    }
    assert_false(proxy_ration_chatter(&r, 6000));
    assert_false(proxy_ration_chatter(&r, 0)); /* a clock that went back forgives nothing */
    assert_true(proxy_ration_chatter(&r, INT64_MAX / 1000));
    assert_int_equal(r.chatter, 1);
}

static void chatter_beside_what_has_a_purpose_has_none(void **state)
{
    struct proxy_ration r = fresh();
    int i = 0;

    (void)state;
    proxy_ration_purpose(&r);
    assert_int_equal(r.chatter, 0);
    for (i = 0; i < 3 * PROXY_CHATTER_MAX; i++) {
        assert_true(proxy_ration_chatter(&r, 5000));
        proxy_ration_purpose(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_asks_for_little_gets_a_whole_turn_each_time),
        cmocka_unit_test(who_has_had_its_turn_gets_less_until_that_is_enough),
        cmocka_unit_test(bites_grow_while_they_are_cheap_and_shrink_at_once),
        cmocka_unit_test(chatter_has_a_bound_that_time_lifts),
        cmocka_unit_test(chatter_beside_what_has_a_purpose_has_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
