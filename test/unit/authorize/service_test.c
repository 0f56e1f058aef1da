/* The check service as a whole, between a proxy's stream and a databroker that can misbehave: no
 * state of the store, however unlucky, gives an ALLOW that the records do not. */
#include "authorize/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.pb-c.h"
#include "user.pb-c.h"

#include "authorize/replica.h"
#include "common/authz_block.h"
#include "common/clock.h"
#include "common/crypto/assertion.h"
#include "common/mem.h"
#include "common/policy/reason.h"
#include "test/support/check_client.h"
#include "test/support/cmocka.h"
#include "test/support/fake_broker.h"

enum { WAIT_MS = 10000 };

static const char secret_text[] = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
static char folder[] = "/tmp/postern-authorize-XXXXXX";
static char listen_at[128];
static char ask_at[128]; /* the gRPC socket; in the second run the one beside it */
static char broker_at[128];

struct stand {
    struct config *config;
    struct rpc_identity *broker_identity;
    struct rpc_identity *proxy_identity;
    struct fake_broker *broker;
    struct authz_service *service;
    struct check_client *proxy;
    uint64_t next_id;
    int ready; /* atomic */
};

static struct config *config_of(const char *staleness, const char *app_policy)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct config_opts opts = { .file = "/config.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct buf text;

    buf_init(&text, 65536);
    buf_printf(&text,
               "address: 127.0.0.1:8443\nshared_secret: %s\n"
               "authenticate_service_url: https://authenticate.localhost:8443\n"
               "idp_provider: local\nidp_local_users_file: /dev/null\n"
               "grpc_address: unix:%s/a.sock\ndatabroker_service_url: unix:%s/b.sock\n"
               "databroker_max_staleness: %s\njwt_claims_headers: [email, groups, team]\nroutes:\n"
               "  - from: https://app.localhost\n    to: http://127.0.0.1:1\n    id: app\n"
               "    pass_identity_headers: true\n%s"
               "  - from: https://admin.localhost\n    to: http://127.0.0.1:1\n    id: admin\n"
               "    policy: [{allow: {and: [{groups: {has: admins}}]}}]\n"
               "  - from: https://public.localhost\n    to: http://127.0.0.1:1\n    id: public\n"
               "    allow_public_unauthenticated_access: true\n"
               "  - from: https://mtls.localhost\n    to: http://127.0.0.1:1\n    id: mtls\n"
               "    allow_public_unauthenticated_access: true\n"
               "    tls_downstream_client_ca_file: /only/the/proxy/opens/it.pem\n"
               "  - from: https://broken.localhost\n    to: http://127.0.0.1:1\n    id: broken\n"
               "    policy: [{allow: {and: [{no_such_thing: true}]}}]\n",
               secret_text, folder, folder, staleness, app_policy);
    enum err err = config_parse(buf_sv(&text), &opts, &config, &errors);

    for (size_t i = 0; err != ERR_OK && i < config_errors_count(errors); i++) {
        print_error("%s\n", config_errors_text(errors, i));
    }
    config_errors_free(&errors);
    buf_deinit(&text);
    assert_int_equal(err, ERR_OK);
    return config;
}

static const char any_user[] = "    allow_any_authenticated_user: true\n";

static void on_ready(void *arg, bool ready)
{
    struct stand *s = arg;

    __atomic_store_n(&s->ready, ready ? 1 : 0, __ATOMIC_RELEASE);
}

static void wait_ready(struct stand *s, int wanted)
{
    int64_t until = clock_mono_ms() + WAIT_MS;

    while (__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE) != wanted && clock_mono_ms() < until) {
        (void)usleep(5000);
    }
    assert_int_equal(__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE), wanted);
}

static struct stand *stand_new(const char *staleness, bool with_broker)
{
    struct stand *s = MEM_NEW(struct stand);
    struct authz_rules *rules = NULL;
    struct diag d = { .line = 0 };

    s->config = config_of(staleness, any_user);
    s->broker_identity = rpc_identity_new(s->config->keys, RPC_DATABROKER);
    s->proxy_identity = rpc_identity_new(s->config->keys, RPC_PROXY);
    if (with_broker) {
        s->broker = fake_broker_new(broker_at, s->broker_identity);
    }
    assert_int_equal(authz_rules_new(s->config, NULL, &rules, &d), ERR_OK);
    const struct authz_service_opts opts = {
        .rules = rules, .listen = listen_at, .databroker = broker_at, .on_ready = on_ready, .arg = s
    };
    assert_int_equal(authz_service_new(&opts, &s->service, &d), ERR_OK);
    s->proxy = check_client_new(ask_at, s->proxy_identity);
    if (with_broker) {
        wait_ready(s, 1);
    }
    return s;
}

static void stand_free(struct stand *s)
{
    check_client_free(&s->proxy);
    authz_service_free(&s->service);
    fake_broker_free(&s->broker);
    rpc_identity_free(&s->broker_identity);
    rpc_identity_free(&s->proxy_identity);
    config_unref(&s->config);
    mem_free(&s);
}

/* --- records ------------------------------------------------------------------------------------ */

static uint64_t put_session(struct stand *s, const char *id, const char *user, int64_t life_s)
{
    Session__Session m = SESSION__SESSION__INIT;
    Google__Protobuf__Timestamp end = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    char *id_text = mem_strdup(id);
    char *user_text = mem_strdup(user);

    m.id = id_text;
    m.user_id = user_text;
    end.seconds = clock_wall_s() + life_s;
    m.expires_at = &end;
    uint64_t version = fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, id, &m.base);
    mem_free(&id_text);
    mem_free(&user_text);
    return version;
}

static uint64_t put_user(struct stand *s, const char *id, const char *email)
{
    User__User m = USER__USER__INIT;
    char *id_text = mem_strdup(id);
    char *email_text = mem_strdup(email);

    m.id = id_text;
    m.email = email_text;
    uint64_t version = fake_broker_put(s->broker, AUTHZ_TYPE_USER, id, &m.base);
    mem_free(&id_text);
    mem_free(&email_text);
    return version;
}

static uint64_t put_groups(struct stand *s, const char *user, const char *group, size_t n)
{
    Google__Protobuf__Struct m = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entry = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    Google__Protobuf__Struct__FieldsEntry *entries[1] = { &entry };
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__ListValue list = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    Google__Protobuf__Value *items = mem_array(n + 1, sizeof(*items));
    Google__Protobuf__Value **views = mem_array(n + 1, sizeof(Google__Protobuf__Value *));
    char(*names)[64] = mem_array(n + 1, 64);
    char key[] = "group_ids";

    for (size_t i = 0; i < n; i++) {
        (void)snprintf(names[i], 64, n > 1 ? "%s-%zu" : "%s", group, i);
        items[i] = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
        items[i].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        items[i].string_value = names[i];
        views[i] = &items[i];
    }
    list.n_values = n;
    list.values = views;
    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    value.list_value = &list;
    entry.key = key;
    entry.value = &value;
    m.n_fields = 1;
    m.fields = entries;
    uint64_t version = fake_broker_put(s->broker, AUTHZ_TYPE_DIRECTORY, user, &m.base);
    mem_free(&items);
    mem_free(&views);
    mem_free(&names);
    return version;
}

/* --- checks ------------------------------------------------------------------------------------- */

struct ask {
    const char *route; /* explicit id, also the host's first label */
    const char *session;
    Postern__ClientCertificate *certificate; /* NULL: none was shown */
    uint64_t version;
    bool internal;
    bool recheck;
};

static uint64_t route_id(const struct stand *s, const char *id)
{
    for (size_t i = 0; i < s->config->n_routes; i++) {
        if (sv_eq(s->config->routes[i].id_text, sv_from(id))) {
            return s->config->routes[i].id;
        }
    }
    return 4711;
}

static ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){ .len = strlen(text), .data = base_unconst(text) };
}

static void send_check(struct stand *s, const struct ask *ask)
{
    Postern__CheckRequest req = POSTERN__CHECK_REQUEST__INIT;
    Postern__CheckRequest *reqs[1] = { &req };
    Postern__CheckBatch batch = POSTERN__CHECK_BATCH__INIT;
    char host[128];

    (void)snprintf(host, sizeof(host), "%s.localhost", ask->route);
    req.id = ++s->next_id;
    req.route = route_id(s, ask->route);
    req.request_id = bytes_of("test");
    req.session = base_unconst(ask->session != NULL ? ask->session : "");
    req.record_version = ask->version;
    req.method = bytes_of("GET");
    req.host = bytes_of(host);
    req.path = bytes_of("/");
    req.internal = ask->internal;
    req.recheck = ask->recheck;
    req.client_certificate = ask->certificate;
    batch.n_checks = 1;
    batch.checks = reqs;
    check_client_send(s->proxy, &batch);
}

struct got {
    Postern__Decision decision;
    policy_reason_set reasons;
    uint64_t block;
    uint32_t status;
    char assertion[8192];
    size_t headers;
};

static bool has(const struct got *got, enum policy_reason reason)
{
    return (got->reasons & POLICY_REASON_BIT(reason)) != 0;
}

static void take_block(const Postern__IdentityBlock *block, struct got *got)
{
    got->headers = block->n_headers;
    for (size_t i = 0; i < block->n_headers; i++) {
        if (strcmp(block->headers[i]->name, ASSERTION_HEADER) == 0) {
            assert_true(block->headers[i]->value.len < sizeof(got->assertion));
            memcpy(got->assertion, block->headers[i]->value.data, block->headers[i]->value.len);
        }
    }
}

static void take_reply(const Postern__Reply *reply, struct got *got)
{
    got->decision = reply->decision;
    got->block = reply->block;
    got->status = reply->status;
    for (size_t i = 0; i < reply->n_reasons; i++) {
        got->reasons |= POLICY_REASON_BIT(reply->reasons[i]);
    }
}

/* Reads until the reply to the last check, past whatever else is told. */
static struct got receive(struct stand *s)
{
    struct got got = { .decision = POSTERN__DECISION__DENY };
    bool found = false;

    while (!found) {
        Postern__ReplyBatch *batch = check_client_receive(s->proxy, WAIT_MS);

        assert_non_null(batch);
        for (size_t i = 0; i < batch->n_items; i++) {
            const Postern__ReplyItem *item = batch->items[i];

            if (item->item_case == POSTERN__REPLY_ITEM__ITEM_BLOCK) {
                take_block(item->block, &got);
            } else if (item->item_case == POSTERN__REPLY_ITEM__ITEM_REPLY) {
                assert_int_equal(item->reply->id, s->next_id);
                take_reply(item->reply, &got);
                found = true;
            }
        }
        postern__reply_batch__free_unpacked(batch, NULL);
    }
    return got;
}

static struct got check(struct stand *s, const char *route, const char *session, uint64_t version)
{
    struct ask ask = { .route = route, .session = session, .version = version };

    send_check(s, &ask);
    return receive(s);
}

/* True: Changed for that session, or for everything where session is NULL, came in time. */
static bool changed_comes(struct stand *s, const char *session)
{
    bool found = false;

    for (int i = 0; i < 8 && !found; i++) {
        Postern__ReplyBatch *batch = check_client_receive(s->proxy, WAIT_MS);

        assert_non_null(batch);
        for (size_t k = 0; k < batch->n_items; k++) {
            const Postern__ReplyItem *item = batch->items[k];

            if (item->item_case != POSTERN__REPLY_ITEM__ITEM_CHANGED) {
                continue;
            }
            found = found || (session == NULL && item->changed->all) ||
                    (session != NULL && item->changed->n_sessions == 1 &&
                     strcmp(item->changed->sessions[0], session) == 0);
        }
        postern__reply_batch__free_unpacked(batch, NULL);
    }
    return found;
}

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

/* --- the store ---------------------------------------------------------------------------------- */

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
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    fake_broker_refuse(s->broker, true);
    wait_ready(s, 0);
    assert_true(changed_comes(s, NULL)); /* what is open is looked at again */
    struct got got = check(s, "app", "s-ann", ann);
    assert_int_equal(got.decision, POSTERN__DECISION__UNAVAILABLE);
    assert_true(has(&got, POLICY_REASON_STORE_UNAVAILABLE));
    assert_int_equal(check(s, "public", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, "s-ann", NULL);
    fake_broker_refuse(s->broker, false);
    wait_ready(s, 1);
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__LOGIN);
    assert_int_equal(fake_broker_snapshots(s->broker), 1); /* it went on where it was */
    stand_free(s);
}

static void a_silent_stream_is_not_taken_for_a_quiet_store(void **state)
{
    struct stand *s = stand_new("1s", true);
    uint64_t ann = put_session(s, "s-ann", "ann", 600);

    (void)state;
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__ALLOW);
    fake_broker_hold(s->broker, true); /* the stream stays open and says nothing any more */
    (void)fake_broker_put(s->broker, AUTHZ_TYPE_SESSION, "s-ann", NULL);
    wait_ready(s, 0);
    assert_int_equal(check(s, "app", "s-ann", ann).decision, POSTERN__DECISION__UNAVAILABLE);
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
        cmocka_unit_test(a_session_ahead_of_the_stream_is_fetched),
        cmocka_unit_test(a_session_deleted_ahead_of_the_stream_is_none),
        cmocka_unit_test(a_waiting_check_holds_nobody_up),
        cmocka_unit_test(without_a_store_only_public_routes_answer),
        cmocka_unit_test(a_stale_replica_stops_answering_and_recovers),
        cmocka_unit_test(a_silent_stream_is_not_taken_for_a_quiet_store),
        cmocka_unit_test(an_aborted_stream_begins_anew),
        cmocka_unit_test(an_identity_is_sent_once_and_named_after),
        cmocka_unit_test(an_identity_that_does_not_fit_is_an_error),
        cmocka_unit_test(a_header_is_never_broken_by_a_claim),
        cmocka_unit_test(new_rules_decide_at_once),
        cmocka_unit_test(a_message_that_is_no_batch_ends_its_stream_only),
        cmocka_unit_test(an_unsound_check_is_not_evaluated),
        cmocka_unit_test(a_client_certificate_counts_where_a_ca_applies),
        cmocka_unit_test(facts_of_the_wrong_shape_are_no_facts),
    };

    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(listen_at, sizeof(listen_at), "unix:%s/a.sock", folder);
    (void)snprintf(broker_at, sizeof(broker_at), "unix:%s/b.sock", folder);
    (void)snprintf(ask_at, sizeof(ask_at), "%s", listen_at);
    int failed = cmocka_run_group_tests_name("gRPC core", tests, NULL, NULL);

    (void)snprintf(ask_at, sizeof(ask_at), "%s.direct", listen_at);
    failed += cmocka_run_group_tests_name("direct", tests, NULL, NULL);
    (void)rmdir(folder);
    return failed;
}
