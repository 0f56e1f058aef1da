/* What authorize remembers of its decisions: little, for as long as there is room. */
#include "authorize/recent.h"

#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "common/rpc/scan.h"
#include "test/support/cmocka.h"

static const char config_text[] =
    "address: 127.0.0.1:8443\n"
    "shared_secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"
    "authenticate_service_url: https://authenticate.localhost:8443\n"
    "idp_provider: local\nidp_local_users_file: /dev/null\nroutes: []\n";

struct stand {
    struct authz_rules *rules;
    struct authz_recent *recent;
    struct authz_facts facts;
};

static struct stand stand_new(void)
{
    const struct config_opts opts = { .file = "/config.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct stand s = { .recent = authz_recent_new() };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct diag d = { .line = 0 };

    assert_int_equal(config_parse(sv_from(config_text), &opts, &config, &errors), ERR_OK);
    assert_int_equal(authz_rules_new(config, NULL, &s.rules, &d), ERR_OK);
    config_unref(&config);
    s.facts = (struct authz_facts){ .rules = s.rules, .wall_ms = 1000 };
    return s;
}

static void stand_free(struct stand *s)
{
    authz_recent_free(&s->recent);
    authz_rules_free(&s->rules);
}

static ProtobufCBinaryData bytes(const char *text)
{
    return (ProtobufCBinaryData){ .len = strlen(text), .data = base_unconst(text) };
}

static void add(struct stand *s, const char *id, enum authz_decision decision, const char *path)
{
    const struct authz_outcome outcome = { .decision = decision,
                                           .reasons = POLICY_REASON_BIT(POLICY_REASON_ACCEPT) };
    Postern__CheckRequest req = POSTERN__CHECK_REQUEST__INIT;

    req.request_id = bytes(id);
    req.method = bytes("GET");
    req.host = bytes("app.example.com");
    req.path = bytes(path);
    req.query = bytes("token=secret");
    s->facts.wall_ms++;
    authz_recent_add(s->recent, &s->facts, &req, &outcome);
}

static const struct authz_past *find(const struct stand *s, const char *id)
{
    return authz_recent_find(s->recent, sv_from(id));
}

static void a_decision_is_found_by_its_id(void **state)
{
    struct stand s = stand_new();
    const struct authz_past *past = NULL;

    (void)state;
    assert_null(find(&s, "one"));
    assert_null(find(&s, ""));
    add(&s, "one", AUTHZ_DENY, "/a");
    add(&s, "", AUTHZ_DENY, "/b");
    add(&s, "two", AUTHZ_ALLOW, "/c");
    past = find(&s, "one");
    assert_non_null(past);
    assert_int_equal(past->decision, AUTHZ_DENY);
    assert_true(sv_eq(sv_of(past->path, past->n_path), SV("/a")));
    assert_true(past->reasons == POLICY_REASON_BIT(POLICY_REASON_ACCEPT));
    assert_int_equal(find(&s, "two")->decision, AUTHZ_ALLOW);
    assert_null(find(&s, "tw"));
    assert_null(find(&s, ""));
    add(&s, "one", AUTHZ_ALLOW, "/again"); /* looked at again: the newest counts */
    assert_int_equal(find(&s, "one")->decision, AUTHZ_ALLOW);
    add(&s, "one", AUTHZ_UNAVAILABLE, "/again");
    assert_int_equal(find(&s, "one")->decision, AUTHZ_UNAVAILABLE);
    stand_free(&s);
}

static void no_crowd_of_others_washes_a_denial_away(void **state)
{
    struct stand s = stand_new();
    char id[32];

    (void)state;
    add(&s, "denied", AUTHZ_DENY, "/");
    add(&s, "allowed", AUTHZ_ALLOW, "/");
    for (int i = 0; i < AUTHZ_RECENT_MAX; i++) {
        (void)snprintf(id, sizeof(id), "id-%d", i);
        add(&s, id, i % 2 == 0 ? AUTHZ_ALLOW : AUTHZ_LOGIN, "/");
    }
    assert_non_null(find(&s, "denied"));
    assert_non_null(find(&s, "id-0"));
    assert_null(find(&s, "allowed"));
    for (int i = 0; i < AUTHZ_RECENT_MAX; i++) {
        add(&s, "other", AUTHZ_DENY, "/");
    }
    assert_null(find(&s, "denied"));
    stand_free(&s);
}

static void what_has_no_room_is_cut_and_says_so(void **state)
{
    struct stand s = stand_new();
    char path[AUTHZ_RECENT_PATH_MAX + 2];
    char id[AUTHZ_ID_MAX + 1];
    const struct authz_past *past = NULL;

    (void)state;
    memset(path, 'p', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    memset(id, 'i', sizeof(id));
    id[sizeof(id) - 1] = '\0';
    add(&s, id, AUTHZ_DENY, path);
    past = find(&s, id);
    assert_non_null(past);
    assert_int_equal(past->n_path, AUTHZ_RECENT_PATH_MAX);
    assert_true((past->flags & AUTHZ_PAST_CUT) != 0);
    add(&s, "short", AUTHZ_DENY, "/");
    assert_false((find(&s, "short")->flags & AUTHZ_PAST_CUT) != 0);
    stand_free(&s);
}

static bool holds(const void *p, size_t n, const char *text)
{
    return memmem(p, n, text, strlen(text)) != NULL;
}

static void no_query_is_kept(void **state)
{
    struct stand s = stand_new();

    (void)state;
    add(&s, "one", AUTHZ_DENY, "/a");
    assert_false(holds(find(&s, "one"), sizeof(struct authz_past), "secret"));
    assert_true(holds(find(&s, "one"), sizeof(struct authz_past), "app.example.com"));
    stand_free(&s);
}

static const Postern__CheckRequest *asked(const struct stand *s, const char *id,
                                          ProtobufCMessage **m_out)
{
    struct sv kept = authz_recent_asked(s->recent, find(s, id));

    assert_int_equal(rpc_unpack(&postern__check_request__descriptor, kept, NULL, m_out), ERR_OK);
    return (const Postern__CheckRequest *)(const void *)*m_out;
}

static void add_asked(struct stand *s, const char *id, Postern__RequestHeader **headers, size_t n,
                      Postern__ClientCertificate *cert)
{
    const struct authz_outcome outcome = { .decision = AUTHZ_DENY };
    Postern__CheckRequest req = POSTERN__CHECK_REQUEST__INIT;

    req.request_id = bytes(id);
    req.headers = headers;
    req.n_headers = n;
    req.client_certificate = cert;
    authz_recent_add(s->recent, &s->facts, &req, &outcome);
}

static void what_policies_asked_is_kept_but_for_what_may_let_somebody_in(void **state)
{
    static const char *const names[] = { "x-team", "authorization", "cookie", "x-api-key",
                                         "x-long" };
    char value[AUTHZ_RECENT_VALUE_MAX + 2];
    struct stand s = stand_new();
    Postern__RequestHeader headers[ARRAY_LEN(names)];
    Postern__RequestHeader *list[ARRAY_LEN(names)];
    Postern__ClientCertificate cert = POSTERN__CLIENT_CERTIFICATE__INIT;
    ProtobufCMessage *m = NULL;

    (void)state;
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        headers[i] = (Postern__RequestHeader)POSTERN__REQUEST_HEADER__INIT;
        headers[i].name = bytes(names[i]);
        headers[i].state = POSTERN__REQUEST_HEADER__STATE__TOLD;
        headers[i].value = bytes(i == 4 ? value : "s3cret");
        list[i] = &headers[i];
    }
    cert.trusted = true;
    cert.subject = bytes("CN=bot");
    add_asked(&s, "one", list, ARRAY_LEN(list), &cert);
    const Postern__CheckRequest *kept = asked(&s, "one", &m);

    assert_int_equal(kept->n_headers, ARRAY_LEN(names));
    assert_int_equal(kept->headers[0]->state, POSTERN__REQUEST_HEADER__STATE__TOLD);
    assert_int_equal(kept->headers[0]->value.len, 6);
    for (size_t i = 1; i < ARRAY_LEN(names); i++) {
        assert_int_equal(kept->headers[i]->state, POSTERN__REQUEST_HEADER__STATE__WITHHELD);
        assert_int_equal(kept->headers[i]->value.len, 0);
    }
    assert_true(kept->client_certificate->trusted);
    assert_int_equal(kept->client_certificate->subject.len, 6);
    protobuf_c_message_free_unpacked(m, NULL);
    add(&s, "two", AUTHZ_DENY, "/");
    assert_int_equal(authz_recent_asked(s.recent, find(&s, "two")).n, 0);
    stand_free(&s);
}

static void its_room_is_bounded_and_the_oldest_goes_first(void **state)
{
    static const size_t n = 6000; /* of a kilobyte: more than there is room for */
    char id[16];
    uint8_t name[1000];
    struct stand s = stand_new();
    Postern__ClientCertificate cert = POSTERN__CLIENT_CERTIFICATE__INIT;
    size_t known = 0;

    (void)state;
    memset(name, 'n', sizeof(name));
    cert.subject = (ProtobufCBinaryData){ .len = sizeof(name), .data = name };
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(id, sizeof(id), "r%zu", i);
        add_asked(&s, id, NULL, 0, &cert);
    }
    for (size_t i = 0; i < n; i++) {
        ProtobufCMessage *m = NULL;

        (void)snprintf(id, sizeof(id), "r%zu", i);
        if (authz_recent_asked(s.recent, find(&s, id)).n == 0) {
            assert_int_equal(known, 0); /* none after a newer one that is known */
            continue;
        }
        known++;
        assert_int_equal(asked(&s, id, &m)->client_certificate->subject.len, sizeof(name));
        protobuf_c_message_free_unpacked(m, NULL);
    }
    assert_true(known > AUTHZ_RECENT_BYTES / 1100 && known <= AUTHZ_RECENT_BYTES / sizeof(name));
    stand_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decision_is_found_by_its_id),
        cmocka_unit_test(no_crowd_of_others_washes_a_denial_away),
        cmocka_unit_test(what_has_no_room_is_cut_and_says_so),
        cmocka_unit_test(no_query_is_kept),
        cmocka_unit_test(what_policies_asked_is_kept_but_for_what_may_let_somebody_in),
        cmocka_unit_test(its_room_is_bounded_and_the_oldest_goes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
