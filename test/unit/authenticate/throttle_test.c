/* Who guesses passwords waits longer and longer. */
#include "authenticate/throttle.h"

#include <stdio.h>

#include "test/support/cmocka.h"

static int64_t begin(struct authn_throttle *t, const char *account, const char *address, int64_t at)
{
    return authn_throttle_begin(t, sv_from(account), sv_from(address), at);
}

static void end(struct authn_throttle *t, const char *account, const char *address,
                enum authn_attempt how, int64_t at)
{
    authn_throttle_end(t, sv_from(account), sv_from(address), how, at);
}

/* A guess: it fails at once where it may be made at all. */
static int64_t try_it(struct authn_throttle *t, const char *account, const char *address,
                      int64_t at)
{
    int64_t wait = begin(t, account, address, at);

    if (wait == 0) {
        end(t, account, address, AUTHN_ATTEMPT_FAILED, at);
    }
    return wait;
}

static void the_wait_doubles_after_the_free_attempts_and_has_an_end(void **state)
{
    struct authn_throttle *t = authn_throttle_new();
    int64_t now = 1;
    int64_t last = 0;

    (void)state;
    for (int i = 0; i < AUTHN_THROTTLE_ACCOUNT_FREE; i++) {
        assert_int_equal(try_it(t, "a@b", "10.0.0.1", now), 0);
    }
    for (int i = 0; i < 14; i++) {
        int64_t wait = try_it(t, "a@b", "10.0.0.2", now);

        assert_true(wait > 0);
        assert_true(wait <= AUTHN_THROTTLE_LAST_MS);
        assert_true(last == AUTHN_THROTTLE_LAST_MS ? wait == last : wait > last);
        last = wait;
        now += wait;
        assert_int_equal(try_it(t, "a@b", "10.0.0.3", now), 0); /* the wait is over: one more */
    }
    assert_int_equal(last, AUTHN_THROTTLE_LAST_MS);
    authn_throttle_free(&t);
}

static void a_success_clears_the_account_only(void **state)
{
    struct authn_throttle *t = authn_throttle_new();

    (void)state;
    for (int i = 0; i < AUTHN_THROTTLE_ACCOUNT_FREE - 1; i++) {
        assert_int_equal(try_it(t, "a@b", "10.0.0.1", 1), 0);
        assert_int_equal(try_it(t, "c@d", "10.0.0.1", 1), 0);
    }
    assert_int_equal(begin(t, "a@b", "10.0.0.1", 1), 0);
    end(t, "a@b", "10.0.0.1", AUTHN_ATTEMPT_SUCCEEDED, 1);
    assert_int_equal(try_it(t, "c@d", "10.0.0.1", 1), 0);
    assert_true(try_it(t, "c@d", "10.0.0.1", 1) > 0);
    assert_int_equal(try_it(t, "a@b", "10.0.0.1", 1), 0);
    authn_throttle_free(&t);
}

static void many_tabs_may_log_in_at_once(void **state)
{
    struct authn_throttle *t = authn_throttle_new();

    (void)state;
    assert_int_equal(try_it(t, "a@b", "10.0.0.1", 1), 0); /* a typing error before that */
    for (int i = 0; i < 20; i++) {
        assert_int_equal(begin(t, "a@b", "10.0.0.1", 1), 0);
    }
    for (int i = 0; i < 20; i++) {
        end(t, "a@b", "10.0.0.1", AUTHN_ATTEMPT_SUCCEEDED, 1);
    }
    for (int i = 0; i < AUTHN_THROTTLE_ACCOUNT_FREE; i++) { /* afresh */
        assert_int_equal(try_it(t, "a@b", "10.0.0.1", 1), 0);
    }
    assert_true(try_it(t, "a@b", "10.0.0.1", 1) > 0);
    authn_throttle_free(&t);
}

static void many_guesses_at_once_are_bounded_and_paid_for(void **state)
{
    struct authn_throttle *t = authn_throttle_new();
    int64_t now = 1;

    (void)state;
    for (int i = 0; i < AUTHN_THROTTLE_ACCOUNT_OPEN; i++) {
        assert_int_equal(begin(t, "a@b", "10.0.0.1", now), 0);
    }
    assert_true(begin(t, "a@b", "10.0.0.2", now) > 0);
    for (int i = 0; i < AUTHN_THROTTLE_ACCOUNT_OPEN; i++) {
        end(t, "a@b", "10.0.0.1", AUTHN_ATTEMPT_FAILED, now);
    }
    assert_int_equal(begin(t, "a@b", "10.0.0.2", now), AUTHN_THROTTLE_LAST_MS);
    now += AUTHN_THROTTLE_LAST_MS;
    assert_int_equal(begin(t, "a@b", "10.0.0.2", now), 0); /* and from now on one by one */
    assert_true(begin(t, "a@b", "10.0.0.3", now) > 0);
    end(t, "a@b", "10.0.0.2", AUTHN_ATTEMPT_NOT_MADE, now);
    assert_int_equal(begin(t, "a@b", "10.0.0.3", now), 0);
    end(t, "a@b", "10.0.0.3", AUTHN_ATTEMPT_FAILED, now);
    assert_int_equal(begin(t, "a@b", "10.0.0.3", now), AUTHN_THROTTLE_LAST_MS);
    authn_throttle_free(&t);
}

static void one_address_cannot_try_many_accounts(void **state)
{
    struct authn_throttle *t = authn_throttle_new();
    int passed = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        char account[32];

        (void)snprintf(account, sizeof account, "u%d@b", i);
        passed += try_it(t, account, "2001:db8::1", 1) == 0 ? 1 : 0;
    }
    assert_int_equal(passed, AUTHN_THROTTLE_ADDRESS_FREE);
    assert_true(try_it(t, "x@b", "2001:db8::ffff", 1) > 0); /* the same /64 */
    assert_int_equal(try_it(t, "x@b", "2001:db8:1::1", 1), 0);
    authn_throttle_free(&t);
}

static void a_full_table_of_waiting_entries_refuses_newcomers(void **state)
{
    struct authn_throttle *t = authn_throttle_new();
    char text[48];

    (void)state;
    for (int i = 0; i < AUTHN_THROTTLE_MAX; i++) {
        (void)snprintf(text, sizeof text, "10.%d.%d.1", i / 250, i % 250);
        for (int k = 0; k < AUTHN_THROTTLE_ADDRESS_FREE; k++) {
            char account[48];

            (void)snprintf(account, sizeof account, "a%d-%d@b", i, k / 4);
            assert_int_equal(try_it(t, account, text, 1), 0);
        }
    }
    assert_int_equal(try_it(t, "new@b", "192.0.2.1", 1), AUTHN_THROTTLE_LAST_MS);
    assert_int_equal(try_it(t, "new@b", "192.0.2.1", 1 + AUTHN_THROTTLE_FIRST_MS), 0);
    authn_throttle_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_wait_doubles_after_the_free_attempts_and_has_an_end),
        cmocka_unit_test(a_success_clears_the_account_only),
        cmocka_unit_test(many_tabs_may_log_in_at_once),
        cmocka_unit_test(many_guesses_at_once_are_bounded_and_paid_for),
        cmocka_unit_test(one_address_cannot_try_many_accounts),
        cmocka_unit_test(a_full_table_of_waiting_entries_refuses_newcomers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
