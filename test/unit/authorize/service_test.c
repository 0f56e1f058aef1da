/* The check service as a whole: each visitor gets what policies and records say, and an error is no ALLOW. */
#include "test/unit/authorize/service_stand.h"

/* --- the ladder --------------------------------------------------------------------------------- */

static void each_visitor_gets_their_answer(void **state)
{
    struct stand *s = stand_new("30s", true);
    struct got got;

    (void)state;
    (void)put_user(s, "ann", "ann@example.com");
    (void)put_groups(s, "ann", "admins", 1);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    uint64_t bob = put_session(s, "s-bob", "bob", 600);

    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    assert_int_equal(check(s, "admin", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    got = check(s, "admin", "s-bob", bob);
    assert_int_equal(got.decision, POSTERN__DECISION__DENY);
    assert_int_equal(got.status, 403);
    assert_true(has(&got, POLICY_REASON_GROUPS_UNAUTHORIZED));
    got = check(s, "app", NULL, 0);
    assert_int_equal(got.decision, POSTERN__DECISION__LOGIN);
    assert_true(has(&got, POLICY_REASON_USER_UNAUTHENTICATED));
    assert_int_equal(check(s, "public", NULL, 0).decision, POSTERN__DECISION__ALLOW);
    got = check(s, "broken", "s-ann", ann);
    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_POLICY_INVALID));
    got = check(s, "no-such-route", "s-ann", ann);
    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_ROUTE_UNKNOWN));
    stand_free(s);
}

static void own_paths_want_a_live_session(void **state)
{
    struct stand *s = stand_new("30s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    struct ask ask = { .route = "none", .session = "s-ann", .version = ann, .internal = true };

    (void)state;
    send_check(s, &ask);
    struct got got = receive(s);
    assert_int_equal(got.decision, POSTERN__DECISION__ALLOW);
    assert_string_not_equal(got.assertion, ""); /* authenticate reads it */
    ask.session = NULL;
    send_check(s, &ask);
    assert_int_equal(receive(s).decision, POSTERN__DECISION__LOGIN);
    stand_free(s);
}

static void an_ended_session_is_none(void **state)
{
    struct stand *s = stand_new("30s", true);
    uint64_t old = put_session(s, "s-old", "ann", -1);
    uint64_t gone = put_session(s, "s-gone", "ann", 600);
    struct got got;

    (void)state;
    got = check(s, "app", "s-old", old);
    assert_int_equal(got.decision, POSTERN__DECISION__LOGIN);
    assert_true(has(&got, POLICY_REASON_SESSION_EXPIRED));
    assert_int_equal(check(s, "app", "s-gone", gone).decision, POSTERN__DECISION__ALLOW);
    (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, "s-gone", NULL);
    assert_true(changed_comes(s, "s-gone"));
    got = check(s, "app", "s-gone", gone);
    assert_int_equal(got.decision, POSTERN__DECISION__LOGIN);
    assert_true(has(&got, POLICY_REASON_SESSION_REVOKED));
    stand_free(s);
}

static void a_change_of_groups_bites_at_once(void **state)
{
    struct stand *s = stand_new("30s", true);

    (void)state;
    (void)put_groups(s, "ann", "admins", 1);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    assert_int_equal(check(s, "admin", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    (void)put_groups(s, "ann", "staff", 1);
    assert_true(changed_comes(s, "s-ann"));
    assert_int_equal(check(s, "admin", "s-ann", ann).decision, POSTERN__DECISION__DENY);
    stand_free(s);
}

/* --- identity ----------------------------------------------------------------------------------- */

static void an_identity_is_sent_once_and_named_after(void **state)
{
    struct stand *s = stand_new("30s", true);
    struct assertion_keys *keys = NULL;
    json_t *claims = NULL;

    (void)state;
    (void)put_user(s, "ann", "ann@example.com");
    (void)put_groups(s, "ann", "admins", 1);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    struct got first = check(s, "app", "s-ann", ann);
    struct got second = check(s, "app", "s-ann", ann);

    assert_int_equal(first.block, 1);
    assert_int_equal(first.headers, 4); /* the assertion, email, groups, team */
    assert_int_equal(second.block, 1);
    assert_int_equal(second.headers, 0);
    assert_int_equal(assertion_keys_of_shared(s->config->keys, &keys), ERR_OK);
    assert_int_equal(assertion_verify(keys, sv_from(first.assertion), SV("app.localhost"), &claims),
                     ERR_OK);
    assert_string_equal(json_string_value(json_object_get(claims, "email")), "ann@example.com");
    assert_string_equal(json_string_value(json_object_get(claims, "sid")), "s-ann");
    assert_int_equal(json_array_size(json_object_get(claims, "groups")), 1);
    json_decref(claims);
    assertion_keys_free(&keys);

    (void)put_user(s, "ann", "anna@example.com");
    assert_true(changed_comes(s, "s-ann"));
    assert_int_equal(check(s, "app", "s-ann", ann).block, 2);
    assert_int_equal(check(s, "admin", "s-ann", ann).block, 0); /* passes no identity */
    clock_test_shift(61000);
    assert_int_equal(check(s, "app", "s-ann", ann).block, 3); /* the next slice of time */
    clock_test_shift(-61000);
    stand_free(s);
}

static void an_identity_that_does_not_fit_is_an_error(void **state)
{
    struct stand *s = stand_new("30s", true);

    (void)state;
    (void)put_groups(s, "ann", "a-rather-long-name-of-a-group-in-a-big-company", 2000);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    struct got got = check(s, "app", "s-ann", ann);

    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_IDENTITY_TOO_LARGE));
    assert_int_equal(got.block, 0);
    stand_free(s);
}

static void a_header_is_never_broken_by_a_claim(void **state)
{
    struct stand *s = stand_new("30s", true);

    (void)state;
    (void)put_user(s, "ann", "ann@example.com\r\nX-Admin: yes");
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    struct got got = check(s, "app", "s-ann", ann);

    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_IDENTITY_INVALID));
    stand_free(s);
}

/* --- rules and streams -------------------------------------------------------------------------- */

static void new_rules_decide_at_once(void **state)
{
    struct stand *s = stand_new("30s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);
    struct authz_rules *rules = NULL;
    struct config *config =
        config_of("30s", "    policy: [{allow: {and: [{email: {is: bob@example.com}}]}}]\n");

    struct diag d = { .line = 0 };

    (void)state;
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    assert_int_equal(authz_rules_new(config, NULL, &rules, NULL), ERR_OK);
    assert_int_equal(authz_service_set_rules(s->service, rules, &d), ERR_OK);
    assert_true(changed_comes(s, NULL));
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__DENY);
    config_unref(&config);
    stand_free(s);
}

static void a_message_that_is_no_batch_ends_its_stream_only(void **state)
{
    struct stand *s = stand_new("30s", true);
    struct check_client *other = check_client_new(ask_at, s->proxy_identity);

    (void)state;
    check_client_send_bytes(other, SV("\x0a\xff\xff\xff\xff\x0f"));
    assert_null(check_client_receive(other, WAIT_MS));
    assert_true(check_client_ended(other));
    assert_int_equal(check(s, "public", NULL, 0).decision, POSTERN__DECISION__ALLOW);
    check_client_free(&other);
    stand_free(s);
}

static void an_unsound_check_is_not_evaluated(void **state)
{
    struct stand *s = stand_new("30s", true);
    Postern__CheckRequest req = POSTERN__CHECK_REQUEST__INIT;
    Postern__CheckRequest *reqs[1] = { &req };
    Postern__CheckBatch batch = POSTERN__CHECK_BATCH__INIT;

    (void)state;
    req.id = ++s->next_id;
    req.route = route_id(s, "public");
    req.method = bytes_of("GET");
    req.host = bytes_of("public.localhost");
    req.path = bytes_of("/");
    req.client_ip = bytes_of("12345");
    batch.n_checks = 1;
    batch.checks = reqs;
    check_client_send(s->proxy, &batch);
    struct got got = receive(s);
    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_REQUEST_INVALID));
    stand_free(s);
}

static const uint8_t sum[32] = { 1, 2, 3 };

/* Facts as a proxy sends them. */
static Postern__ClientCertificate shown(bool trusted)
{
    Postern__ClientCertificate c = POSTERN__CLIENT_CERTIFICATE__INIT;

    c.trusted = trusted;
    c.fingerprint = (ProtobufCBinaryData){ .len = sizeof(sum), .data = base_unconst(sum) };
    c.spki = c.fingerprint;
    return c;
}

static struct got check_with(struct stand *s, const char *route, Postern__ClientCertificate *c)
{
    struct ask ask = { .route = route, .certificate = c };

    send_check(s, &ask);
    return receive(s);
}

static void a_client_certificate_counts_where_a_ca_applies(void **state)
{
    struct stand *s = stand_new("30s", true);
    Postern__ClientCertificate good = shown(true);
    Postern__ClientCertificate bad = shown(false);
    Postern__ClientCertificate unread = shown(true);
    struct got got = check_with(s, "mtls", NULL);

    (void)state;
    assert_int_equal(got.decision, POSTERN__DECISION__DENY);
    assert_int_equal(got.status, 495);
    assert_true(has(&got, POLICY_REASON_CLIENT_CERTIFICATE_REQUIRED));
    assert_int_equal(check_with(s, "mtls", &good).decision, POSTERN__DECISION__ALLOW);
    got = check_with(s, "mtls", &bad);
    assert_int_equal(got.status, 495);
    assert_true(has(&got, POLICY_REASON_INVALID_CLIENT_CERTIFICATE));
    unread.fingerprint.len = 0; /* whatever it says of trust */
    assert_int_equal(check_with(s, "mtls", &unread).status, 495);
    assert_int_equal(check_with(s, "public", NULL).decision, POSTERN__DECISION__ALLOW);
    assert_int_equal(check_with(s, "public", &bad).decision, POSTERN__DECISION__ALLOW);
    stand_free(s);
}

static void facts_of_the_wrong_shape_are_no_facts(void **state)
{
    struct stand *s = stand_new("30s", true);
    ProtobufCBinaryData names[AUTHZ_CERT_NAMES_MAX + 1];
    Postern__ClientCertificate c = shown(true);

    (void)state;
    c.spki.len = 31;
    assert_true(has((struct got[]){ check_with(s, "mtls", &c) }, POLICY_REASON_REQUEST_INVALID));
    c = shown(true);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        names[i] = bytes_of("name.example.com");
    }
    c.san_dns = names;
    c.n_san_dns = AUTHZ_CERT_NAMES_MAX;
    assert_int_equal(check_with(s, "mtls", &c).decision, POSTERN__DECISION__ALLOW);
    c.san_uri = names;
    c.n_san_uri = 1;
    assert_true(has((struct got[]){ check_with(s, "mtls", &c) }, POLICY_REASON_REQUEST_INVALID));
    c.n_san_uri = 0;
    c.n_san_email = AUTHZ_CERT_NAMES_MAX + 1;
    c.san_email = names;
    assert_true(has((struct got[]){ check_with(s, "mtls", &c) }, POLICY_REASON_REQUEST_INVALID));
    stand_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_visitor_gets_their_answer),
        cmocka_unit_test(own_paths_want_a_live_session),
        cmocka_unit_test(an_ended_session_is_none),
        cmocka_unit_test(a_change_of_groups_bites_at_once),
        cmocka_unit_test(an_identity_is_sent_once_and_named_after),
        cmocka_unit_test(an_identity_that_does_not_fit_is_an_error),
        cmocka_unit_test(a_header_is_never_broken_by_a_claim),
        cmocka_unit_test(new_rules_decide_at_once),
        cmocka_unit_test(a_message_that_is_no_batch_ends_its_stream_only),
        cmocka_unit_test(an_unsound_check_is_not_evaluated),
        cmocka_unit_test(a_client_certificate_counts_where_a_ca_applies),
        cmocka_unit_test(facts_of_the_wrong_shape_are_no_facts),
    };

    return run_both(tests, ARRAY_LEN(tests));
}
