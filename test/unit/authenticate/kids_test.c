/* kids: whoever makes up tokens must not make us fetch keys. */
#include "authenticate/kids.h"

#include <stdio.h>

#include "test/support/cmocka.h"

static void fetches_for_unknown_keys_are_few(void **state)
{
    struct authn_kids kids = { .forced = 0 };
    int64_t now_ms = 1000000;
    unsigned asked = 0;
    char kid[16];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(kid, sizeof(kid), "k%d", i);
        asked += authn_kids_may_ask(&kids, sv_from(kid), now_ms + i) ? 1 : 0;
    }
    assert_int_equal(asked, 3);
    assert_true(authn_kids_may_ask(&kids, SV("fresh"), now_ms + 20100));
}

static void a_key_that_did_not_come_is_not_looked_for_again(void **state)
{
    struct authn_kids kids = { .forced = 0 };

    (void)state;
    assert_true(authn_kids_may_ask(&kids, SV("a"), 1000000));
    assert_false(authn_kids_may_ask(&kids, SV("a"), 1000001));
    assert_false(authn_kids_may_ask(&kids, SV("a"), 1059999));
    assert_true(authn_kids_may_ask(&kids, SV("a"), 1060001));
}

static void tokens_without_a_kid_use_up_the_same_right(void **state)
{
    struct authn_kids kids = { .forced = 0 };

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_true(authn_kids_may_ask(&kids, SV(""), 1000000));
    }
    assert_false(authn_kids_may_ask(&kids, SV(""), 1000000));
    assert_false(authn_kids_may_ask(&kids, SV("a"), 1000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fetches_for_unknown_keys_are_few),
        cmocka_unit_test(a_key_that_did_not_come_is_not_looked_for_again),
        cmocka_unit_test(tokens_without_a_kid_use_up_the_same_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
