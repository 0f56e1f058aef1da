/* The check service as the databroker comes, goes and misbehaves: no state of the store, however unlucky, gives
 * an ALLOW that the records do not. */
#include "test/unit/authorize/service_stand.h"

static void a_session_ahead_of_the_stream_is_fetched(void **state)
{
    struct stand *s = stand_new("30s", true);

    (void)state;
    fake_broker_hold(s->broker, true);
    (void)put_groups(s, "ann", "admins", 1);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    assert_int_equal(check(s, "admin", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    assert_true(fake_broker_gets(s->broker) >= 1);
    /* What the stream brings later about the same records changes nothing. */
    fake_broker_hold(s->broker, false);
    assert_int_equal(check(s, "admin", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    stand_free(s);
}

static void a_session_deleted_ahead_of_the_stream_is_none(void **state)
{
    struct stand *s = stand_new("30s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);

    (void)state;
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    fake_broker_hold(s->broker, true);
    uint64_t later = put_session(s, "s-new", "ann", 600);
    (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, "s-new", NULL);
    assert_int_equal(check(s, "app", "s-new", later).decision, POSTERN__DECISION__LOGIN);
    stand_free(s);
}

/* Decisions of checks 1 and 2 in whatever order they come: on a slow machine the one that waits may be
 * answered before the other was even read. */
static void changes_that_come_together_are_all_taken_in(void **state)
{
    enum { SESSIONS = 20 };
    struct stand *s = stand_new("30s", true);
    uint64_t versions[SESSIONS];
    char id[16];

    (void)state;
    for (size_t i = 0; i < SESSIONS; i++) {
        (void)snprintf(id, sizeof(id), "s-%zu", i);
        versions[i] = put_session(s, id, "ann", 600);
        assert_int_equal(check(s, "app", id, versions[i]).decision, POSTERN__DECISION__ALLOW);
    }
    fake_broker_hold(s->broker, true);
    for (size_t i = 0; i < SESSIONS; i++) {
        (void)snprintf(id, sizeof(id), "s-%zu", i);
        (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, id, NULL);
        versions[i] = i % 3 == 0 ? put_session(s, id, "ann", 600) : versions[i];
    }
    fake_broker_hold(s->broker, false);
    assert_true(changed_comes(s, "s-19"));
    for (size_t i = 0; i < SESSIONS; i++) {
        (void)snprintf(id, sizeof(id), "s-%zu", i);
        assert_int_equal(check(s, "app", id, versions[i]).decision,
                         i % 3 == 0 ? POSTERN__DECISION__ALLOW : POSTERN__DECISION__LOGIN);
    }
    stand_free(s);
}

static void receive_two(struct stand *s, int decisions[3])
{
    int n = 0;

    while (n < 2) {
        Postern__ReplyBatch *batch = check_client_receive(s->proxy, WAIT_MS);

        assert_non_null(batch);
        for (size_t i = 0; i < batch->n_items; i++) {
            const Postern__ReplyItem *item = batch->items[i];

            if (item->item_case == POSTERN__REPLY_ITEM__ITEM_REPLY) {
                assert_in_range(item->reply->id, 1, 2);
                decisions[item->reply->id] = (int)item->reply->decision;
                n++;
            }
        }
        postern__reply_batch__free_unpacked(batch, NULL);
    }
}

static void a_waiting_check_holds_nobody_up(void **state)
{
    struct stand *s = stand_new("30s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    struct ask early = { .route = "app", .session = "s-never", .version = 1000000 };
    struct ask known = { .route = "app", .session = "s-ann", .version = ann };
    int decisions[3] = { -1, -1, -1 };

    (void)state;
    fake_broker_hold(s->broker, true);
    send_check(s,
               &early); /* waits for the stream, then asks: the databroker knows no such session */
    send_check(s, &known);
    receive_two(s, decisions);
    assert_int_equal(decisions[1], POSTERN__DECISION__LOGIN);
    assert_int_equal(decisions[2], POSTERN__DECISION__ALLOW);
    stand_free(s);
}

/* Asks again for as long as the answer is passing: a machine that stands still for longer than the bound makes any
 * replica stale, and what is stale may come to know. */
static struct got check_past(struct stand *s, Postern__Decision passing, uint64_t version)
{
    int64_t until = clock_mono_ms() + WAIT_MS;
    struct got got = check(s, "app", "s-ann", version);

    while (got.decision == passing && clock_mono_ms() < until) {
        (void)usleep(5000);
        got = check(s, "app", "s-ann", version);
    }
    return got;
}

static void without_a_store_only_public_routes_answer(void **state)
{
    struct stand *s = stand_new("30s", false);
    struct got got = check(s, "app", "s-ann", 5);

    (void)state;
    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_STORE_BEHIND)); /* it never knew it */
    assert_int_equal(check(s, "public", NULL, 0).decision, POSTERN__DECISION__ALLOW);
    assert_int_equal(check(s, "public", "s-ann", 5).decision, POSTERN__DECISION__ALLOW);
    assert_int_equal(check(s, "app", NULL, 0).decision, POSTERN__DECISION__LOGIN);
    stand_free(s);
}

static void a_stale_replica_stops_answering_and_recovers(void **state)
{
    struct stand *s = stand_new("1s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);

    (void)state;
    assert_int_equal(check_past(s, POSTERN__DECISION__UNAVAILABLE, ann).decision,
                     POSTERN__DECISION__ALLOW);
    fake_broker_refuse(s->broker, true);
    assert_true(changed_comes(s, NULL)); /* what is open is looked at again */
    struct got got = check_past(s, POSTERN__DECISION__ALLOW, ann);

    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_STORE_UNAVAILABLE));
    wait_ready(s, 0);
    assert_int_equal(check(s, "public", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, "s-ann", NULL);
    fake_broker_refuse(s->broker, false);
    assert_int_equal(check_past(s, POSTERN__DECISION__UNAVAILABLE, ann).decision,
                     POSTERN__DECISION__LOGIN);
    wait_ready(s, 1);
    assert_int_equal(fake_broker_snapshots(s->broker), 1); /* it went on where it was */
    stand_free(s);
}

static void a_silent_stream_is_not_taken_for_a_quiet_store(void **state)
{
    struct stand *s = stand_new("1s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);

    (void)state;
    assert_int_equal(check_past(s, POSTERN__DECISION__UNAVAILABLE, ann).decision,
                     POSTERN__DECISION__ALLOW);
    fake_broker_hold(s->broker, true); /* the stream stays open and says nothing any more */
    (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, "s-ann", NULL);
    assert_int_equal(check_past(s, POSTERN__DECISION__ALLOW, ann).decision,
                     POSTERN__DECISION__UNAVAILABLE);
    wait_ready(s, 0);
    stand_free(s);
}

static void an_aborted_stream_begins_anew(void **state)
{
    struct stand *s = stand_new("30s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);

    (void)state;
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    fake_broker_abort_streams(s->broker);
    assert_true(changed_comes(s, NULL));
    assert_int_equal(fake_broker_snapshots(s->broker), 2);
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    uint64_t bob = put_session(s, "s-bob", "bob", 600);
    assert_int_equal(check(s, "app", "s-bob", bob).decision, POSTERN__DECISION__ALLOW);
    stand_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_ahead_of_the_stream_is_fetched),
        cmocka_unit_test(a_session_deleted_ahead_of_the_stream_is_none),
        cmocka_unit_test(changes_that_come_together_are_all_taken_in),
        cmocka_unit_test(a_waiting_check_holds_nobody_up),
        cmocka_unit_test(without_a_store_only_public_routes_answer),
        cmocka_unit_test(a_stale_replica_stops_answering_and_recovers),
        cmocka_unit_test(a_silent_stream_is_not_taken_for_a_quiet_store),
        cmocka_unit_test(an_aborted_stream_begins_anew),
    };

    return run_both(tests, ARRAY_LEN(tests));
}
