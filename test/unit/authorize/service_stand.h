/* service_stand: the check service between a proxy's stream and a databroker that can misbehave, and what
 * its tests ask of it. Included once a program. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.pb-c.h"
#include "user.pb-c.h"

#include "authorize/replica.h"
#include "authorize/service.h"
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

static inline struct config *config_of(const char *staleness, const char *app_policy)
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

static inline void on_ready(void *arg, bool ready)
{
    struct stand *s = arg;

    __atomic_store_n(&s->ready, ready ? 1 : 0, __ATOMIC_RELEASE);
}

static inline void wait_ready(struct stand *s, int wanted)
{
    int64_t until = clock_mono_ms() + WAIT_MS;

    while (__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE) != wanted && clock_mono_ms() < until) {
        (void)usleep(5000);
    }
    assert_int_equal(__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE), wanted);
}

static inline struct stand *stand_new(const char *staleness, bool with_broker)
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

static inline void stand_free(struct stand *s)
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

static inline uint64_t put_session(struct stand *s, const char *id, const char *user,
                                   int64_t life_s)
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

static inline uint64_t put_user(struct stand *s, const char *id, const char *email)
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

static inline uint64_t put_groups(struct stand *s, const char *user, const char *group, size_t n)
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

static inline uint64_t route_id(const struct stand *s, const char *id)
{
    for (size_t i = 0; i < s->config->n_routes; i++) {
        if (sv_eq(s->config->routes[i].id_text, sv_from(id))) {
            return s->config->routes[i].id;
        }
    }
    return 4711;
}

static inline ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){ .len = strlen(text), .data = base_unconst(text) };
}

static inline void send_check(struct stand *s, const struct ask *ask)
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

static inline bool has(const struct got *got, enum policy_reason reason)
{
    return (got->reasons & POLICY_REASON_BIT(reason)) != 0;
}

static inline void take_block(const Postern__IdentityBlock *block, struct got *got)
{
    got->headers = block->n_headers;
    for (size_t i = 0; i < block->n_headers; i++) {
        if (strcmp(block->headers[i]->name, ASSERTION_HEADER) == 0) {
            assert_true(block->headers[i]->value.len < sizeof(got->assertion));
            memcpy(got->assertion, block->headers[i]->value.data, block->headers[i]->value.len);
        }
    }
}

static inline void take_reply(const Postern__Reply *reply, struct got *got)
{
    got->decision = reply->decision;
    got->block = reply->block;
    got->status = reply->status;
    for (size_t i = 0; i < reply->n_reasons; i++) {
        got->reasons |= POLICY_REASON_BIT(reply->reasons[i]);
    }
}

/* Reads until the reply to the last check, past whatever else is told. */
static inline struct got receive(struct stand *s)
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

static inline struct got check(struct stand *s, const char *route, const char *session,
                               uint64_t version)
{
    struct ask ask = { .route = route, .session = session, .version = version };

    send_check(s, &ask);
    return receive(s);
}

/* True: Changed for that session, or for everything where session is NULL, came in time. */
static inline bool changed_comes(struct stand *s, const char *session)
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

/* All of them twice: over gRPC core, and by the socket beside it. */
static inline int run_both(const struct CMUnitTest *tests, size_t n)
{
    int failed = 0;

    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(listen_at, sizeof(listen_at), "unix:%s/a.sock", folder);
    (void)snprintf(broker_at, sizeof(broker_at), "unix:%s/b.sock", folder);
    (void)snprintf(ask_at, sizeof(ask_at), "%s", listen_at);
    failed = _cmocka_run_group_tests("gRPC core", tests, n, NULL, NULL);
    (void)snprintf(ask_at, sizeof(ask_at), "%s.direct", listen_at);
    failed += _cmocka_run_group_tests("direct", tests, n, NULL, NULL);
    (void)rmdir(folder);
    return failed;
}
