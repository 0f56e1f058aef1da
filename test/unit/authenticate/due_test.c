/* Which session is to be refreshed next, and when. */
#include "authenticate/due.h"

#include <stdio.h>

#include "common/rand.h"
#include "test/support/cmocka.h"

static void set(struct authn_due *due, const char *id, uint64_t version, int64_t at_ms)
{
    assert_int_equal(authn_due_set(due, sv_from(id), version, at_ms), ERR_OK);
}

static void sessions_come_up_in_the_order_of_their_times(void **state)
{
    enum { COUNT = 1000 };
    struct authn_due *due = authn_due_new();
    int64_t last_ms = 0;
    struct sv id = SV("");

    (void)state;
    assert_int_equal(authn_due_next_ms(due), INT64_MAX);
    for (int i = 0; i < COUNT; i++) {
        char name[16];

        (void)snprintf(name, sizeof name, "s%d", i);
        set(due, name, 1, (int64_t)rand_below(1000));
        if (i % 3 == 0) { /* moved, to and fro */
            set(due, name, 2, (int64_t)rand_below(1000));
        }
        if (i % 5 == 0) {
            authn_due_drop(due, sv_from(name));
        }
    }
    assert_int_equal(authn_due_count(due), COUNT - COUNT / 5);
    for (int i = 0; i < COUNT - COUNT / 5; i++) {
        int64_t at_ms = authn_due_next_ms(due);

        assert_true(at_ms >= last_ms && at_ms < 1000);
        assert_false(authn_due_take(due, at_ms - 1, &id));
        assert_true(authn_due_take(due, at_ms, &id));
        last_ms = at_ms;
    }
    assert_false(authn_due_take(due, INT64_MAX, &id));
    authn_due_free(&due);
    assert_null(due);
}

static void what_is_taken_comes_up_again_only_when_it_is_put_back(void **state)
{
    struct authn_due *due = authn_due_new();
    struct sv id = SV("");

    (void)state;
    set(due, "a", 5, 100);
    assert_true(authn_due_take(due, 100, &id));
    assert_true(sv_eq(id, SV("a")));
    set(due, "a", 6, 50);
    assert_false(authn_due_take(due, 1000, &id));
    authn_due_put_back(due, SV("a"), 70);
    assert_int_equal(authn_due_next_ms(due), 70);
    authn_due_put_back(due, SV("a"), 90); /* it is there already */
    assert_int_equal(authn_due_next_ms(due), 70);
    assert_true(authn_due_take(due, 70, &id));
    set(due, "a", 7, 500);
    authn_due_put_back(due, SV("a"), 80); /* its new time is later */
    assert_int_equal(authn_due_next_ms(due), 500);
    assert_true(authn_due_take(due, 500, &id));
    authn_due_drop(due, SV("a"));
    authn_due_put_back(due, SV("a"), 80);
    assert_int_equal(authn_due_count(due), 0);
    assert_int_equal(authn_due_next_ms(due), INT64_MAX);
    authn_due_free(&due);
}

static void an_older_version_changes_nothing(void **state)
{
    struct authn_due *due = authn_due_new();

    (void)state;
    set(due, "a", 5, 100);
    set(due, "a", 4, 10);
    assert_int_equal(authn_due_next_ms(due), 100);
    set(due, "a", 5, 20); /* told again */
    assert_int_equal(authn_due_next_ms(due), 20);
    authn_due_free(&due);
}

static void failures_are_counted_until_it_works(void **state)
{
    struct authn_due *due = authn_due_new();

    (void)state;
    set(due, "a", 1, 1);
    assert_int_equal(authn_due_failed(due, SV("a")), 1);
    assert_int_equal(authn_due_failed(due, SV("a")), 2);
    authn_due_worked(due, SV("a"));
    assert_int_equal(authn_due_failed(due, SV("a")), 1);
    assert_int_equal(authn_due_failed(due, SV("b")), 0);
    authn_due_worked(due, SV("b"));
    authn_due_free(&due);
}

static void a_session_is_due_before_the_earlier_end_of_its_tokens(void **state)
{
    enum { NONE = -1 };

    static const struct {
        int64_t access_end_s; /* 0: not told */
        int64_t id_end_s;
        const char *refresh_token;
        int64_t from_s; /* written at 1000 */
        int64_t span_s;
    } rows[] = {
        { 4600, 0, "r", 4000, 300 },
        { 0, 4600, "r", 4000, 300 },
        { 4600, 2000, "r", 1600, 200 },
        { 2000, 4600, "r", 1600, 200 },
        { 1100, 0, "r", 1060, 20 },
        { 1005, 0, "r", 1005, 1 },
        { 1001, 0, "r", 1005, 0 }, /* not in a circle, however short they live */
        { 900, 0, "r", 1005, 0 },  /* long over: the provider was away */
        { 4600, 0, "", NONE, 0 },
        { 0, 0, "r", NONE, 0 },
        { INT64_MAX, 0, "r", INT64_MAX / 4000 - 600, 300 },
        { -5, 4600, "r", 4000, 300 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Google__Protobuf__Timestamp access_end = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Google__Protobuf__Timestamp id_end = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Session__OAuthToken oauth = SESSION__OAUTH_TOKEN__INIT;
        Session__IDToken id = SESSION__IDTOKEN__INIT;
        Session__Session session = SESSION__SESSION__INIT;
        char token[8];
        int64_t from_ms = 0;
        int64_t span_ms = 0;
        bool due = false;

        (void)snprintf(token, sizeof token, "%s", rows[i].refresh_token);
        access_end.seconds = rows[i].access_end_s;
        id_end.seconds = rows[i].id_end_s;
        oauth.refresh_token = token;
        oauth.expires_at = &access_end;
        id.expires_at = &id_end;
        session.oauth_token = &oauth;
        session.id_token = &id;
        due = authn_due_window(&session, 1000000, &from_ms, &span_ms);
        if (due != (rows[i].from_s != NONE) ||
            (due && (from_ms / 1000 != rows[i].from_s || span_ms / 1000 != rows[i].span_s))) {
            fail_msg("row %zu: %d from %lld for %lld", i, due, (long long)from_ms,
                     (long long)span_ms);
        }
        session.refresh_disabled = true;
        assert_false(authn_due_window(&session, 1000000, &from_ms, &span_ms));
    }
}

static void a_session_without_tokens_is_never_due(void **state)
{
    Session__Session session = SESSION__SESSION__INIT;
    int64_t from_ms = 0;
    int64_t span_ms = 0;

    (void)state;
    assert_false(authn_due_window(&session, 1000000, &from_ms, &span_ms));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_come_up_in_the_order_of_their_times),
        cmocka_unit_test(what_is_taken_comes_up_again_only_when_it_is_put_back),
        cmocka_unit_test(an_older_version_changes_nothing),
        cmocka_unit_test(failures_are_counted_until_it_works),
        cmocka_unit_test(a_session_is_due_before_the_earlier_end_of_its_tokens),
        cmocka_unit_test(a_session_without_tokens_is_never_due),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
