/* identity: what authorize tells about a visitor, and only where a route asks for it. */
#include "authorize/identity.h"

#include <stdio.h>
#include <string.h>

#include "databroker.pb-c.h"
#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/clock.h"
#include "common/crypto/seal.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

#define HEAD                                                        \
    "insecure_server: true\n"                                       \
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" \
    "authenticate_service_url: https://login.localhost\n"           \
    "idp_provider: local\n"                                         \
    "routes:\n"                                                     \
    "  - {from: https://a.b, to: http://c, allow_any_authenticated_user: true, "

struct stage {
    struct config *config;
    struct authz_rules *rules;
    struct authz_replica *replica;
    struct authz_identities *ids;
};

static struct stage stage_new(const char *route, bool keep_tokens)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct config_errors *errors = NULL;
    struct stage s = { 0 };
    struct diag d = { 0 };
    char text[2048];

    (void)snprintf(text, sizeof(text), HEAD "%s}\n", route);
    if (config_parse(sv_from(text), &opts, &s.config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    assert_int_equal(authz_rules_new(s.config, NULL, &s.rules, &d), ERR_OK);
    s.replica = authz_replica_new();
    authz_replica_keep_tokens(s.replica, keep_tokens);
    s.ids = authz_identities_new();
    return s;
}

static void stage_free(struct stage *s)
{
    authz_identities_free(&s->ids);
    authz_replica_free(&s->replica);
    authz_rules_free(&s->rules);
    config_unref(&s->config);
}

static char *sealed(const struct stage *s, const char *token, const char *session)
{
    struct sealer *sealer = sealer_new(s->config->keys, KEYS_TOKEN_AT_REST);
    char *text = NULL;
    struct buf out;

    buf_init(&out, (size_t)SEAL_MAX * 2);
    assert_int_equal(seal_make(sealer, sv_from(token), sv_from(session), &out), ERR_OK);
    text = buf_take(&out);
    buf_deinit(&out);
    sealer_free(&sealer);
    return text;
}

/* A session whose tokens were sealed for the session named bound. */
static void put_session(struct stage *s, const char *id, const char *bound, const char *acts_as,
                        uint64_t version)
{
    Session__Session m = SESSION__SESSION__INIT;
    Session__OAuthToken oauth = SESSION__OAUTH_TOKEN__INIT;
    Session__IDToken id_token = SESSION__IDTOKEN__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    uint8_t bytes[4096];
    char type[] = AUTHZ_TYPE_SESSION;
    char user[] = "ann";

    m.id = base_unconst(id);
    m.user_id = user;
    oauth.access_token = sealed(s, "the-access-token", bound);
    id_token.raw = sealed(s, "the-id-token", bound);
    m.oauth_token = &oauth;
    m.id_token = &id_token;
    if (acts_as != NULL) {
        m.has_impersonate_session_id_case =
            SESSION__SESSION__HAS_IMPERSONATE_SESSION_ID_IMPERSONATE_SESSION_ID;
        m.impersonate_session_id = base_unconst(acts_as);
    }
    assert_true(protobuf_c_message_get_packed_size(&m.base) <= sizeof(bytes));
    any.value.data = bytes;
    any.value.len = protobuf_c_message_pack(&m.base, bytes);
    any.type_url = type;
    record.type = type;
    record.id = base_unconst(id);
    record.version = version;
    record.data = &any;
    authz_replica_apply(s->replica, &record);
    mem_free(&oauth.access_token);
    mem_free(&id_token.raw);
}

static void put_user(struct stage *s, const char *email, uint64_t version)
{
    User__User m = USER__USER__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    char type[] = AUTHZ_TYPE_USER;
    char id[] = "ann";

    m.id = id;
    m.email = base_unconst(email);
    any.value.data = mem_alloc(protobuf_c_message_get_packed_size(&m.base));
    any.value.len = protobuf_c_message_pack(&m.base, any.value.data);
    record.type = type;
    record.id = id;
    record.version = version;
    record.data = &any;
    authz_replica_apply(s->replica, &record);
    mem_free(&any.value.data);
}

static const struct authz_identity *identity(const struct stage *s, const char *id)
{
    const struct authz_session *session = authz_replica_session(s->replica, sv_from(id));
    const struct authz_identity_ask ask = {
        .rules = s->rules,
        .session = session,
        .replica = s->replica,
        .effective = authz_replica_effective(s->replica, session, clock_wall_s()),
        .host = SV("a.b"),
        .profile = authz_rules_profile(s->rules, &s->config->routes[0]),
        .now_s = clock_wall_s(),
    };

    assert_non_null(session);
    return authz_identity_get(s->ids, &ask);
}

/* The value of a fact; "" where there is none. */
static struct sv fact(const struct authz_identity *identity, const char *name)
{
    for (size_t i = 0; i < identity->n_facts; i++) {
        if (sv_eq(identity->facts[i].name, sv_from(name))) {
            return identity->facts[i].value;
        }
    }
    return SV("");
}

static void a_route_is_told_what_it_asks_for_and_no_more(void **state)
{
    static const struct {
        const char *route;
        bool headers;
        const char *facts[5]; /* jwt, access_token, id_token, user: whether there */
    } rows[] = {
        { "pass_identity_headers: true", true, { "", "", "", "" } },
        { "set_request_headers: {X-A: '${pomerium.access_token}'}", false, { "", "y", "", "" } },
        { "set_request_headers: {X-A: '${pomerium.id_token}'}", false, { "", "", "y", "" } },
        { "set_request_headers: {X-A: '${pomerium.jwt}'}", false, { "y", "", "", "" } },
        { "kubernetes_service_account_token: x", false, { "", "", "", "y" } },
        { "pass_identity_headers: true, set_request_headers: {X-A: '${pomerium.jwt}'}",
          true,
          { "y", "", "", "" } },
    };

    static const char *const names[] = { "jwt", "access_token", "id_token", "user" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stage s = stage_new(rows[i].route, true);
        const struct authz_identity *id = NULL;

        put_session(&s, "s1", "s1", NULL, 1);
        id = identity(&s, "s1");
        assert_int_equal(id->reason, POLICY_REASON_NONE);
        assert_int_equal(id->n_headers != 0, rows[i].headers);
        for (size_t k = 0; k < ARRAY_LEN(names); k++) {
            assert_int_equal(fact(id, names[k]).n != 0, rows[i].facts[k][0] != '\0');
        }
        stage_free(&s);
    }
}

static void it_says_whose_it_is_now(void **state)
{
    static char long_email[AUTHZ_BLOCK_MAX];
    struct stage s = stage_new("set_request_headers: {X-A: '${pomerium.access_token}'}", true);
    uint64_t serial = 0;

    (void)state;
    memset(long_email, 'a', sizeof(long_email) - 1);
    put_session(&s, "s1", "s1", NULL, 1);
    put_user(&s, "ann@a.b", 2);
    assert_true(sv_eq(identity(&s, "s1")->user, SV("ann")));
    assert_true(sv_eq(identity(&s, "s1")->email, SV("ann@a.b")));
    serial = identity(&s, "s1")->serial;
    put_user(&s, "anna@a.b", 3);
    assert_true(sv_eq(identity(&s, "s1")->email, SV("anna@a.b")));
    assert_true(identity(&s, "s1")->serial != serial);
    put_user(&s, long_email, 4);
    assert_int_equal(identity(&s, "s1")->reason, POLICY_REASON_IDENTITY_TOO_LARGE);
    assert_int_equal(identity(&s, "s1")->user.n, 0);
    stage_free(&s);
}

#define BOTH "set_request_headers: {X-A: '${pomerium.access_token}', X-B: '${pomerium.id_token}'}"

static void tokens_are_those_of_this_session(void **state)
{
    struct stage s = stage_new(BOTH, true);

    (void)state;
    put_session(&s, "s1", "s1", NULL, 1);
    put_session(&s, "stolen", "s1", NULL, 2);
    put_session(&s, "acting", "acting", "s1", 3);
    assert_true(sv_eq(fact(identity(&s, "s1"), "access_token"), SV("the-access-token")));
    assert_true(sv_eq(fact(identity(&s, "s1"), "id_token"), SV("the-id-token")));
    /* Sealed for another session, or somebody who acts for the session's owner: nothing. */
    assert_int_equal(identity(&s, "stolen")->n_facts, 0);
    assert_int_equal(identity(&s, "acting")->n_facts, 0);
    stage_free(&s);
}

static struct sv access_token(const struct stage *s)
{
    return authz_session_access_token(authz_replica_session(s->replica, SV("s1")));
}

static void tokens_are_not_kept_where_nobody_asks(void **state)
{
    struct stage s = stage_new(BOTH, false);

    (void)state;
    assert_true(authz_rules_want_tokens(s.rules));
    put_session(&s, "s1", "s1", NULL, 1);
    assert_int_equal(access_token(&s).n, 0);
    assert_int_equal(identity(&s, "s1")->n_facts, 0);
    stage_free(&s);
    s = stage_new("pass_identity_headers: true", false);
    assert_false(authz_rules_want_tokens(s.rules));
    stage_free(&s);
}

static void new_tokens_of_a_session_replace_the_old_ones(void **state)
{
    struct stage s = stage_new(BOTH, true);
    char *before = NULL;

    (void)state;
    put_session(&s, "s1", "s1", NULL, 1);
    before = mem_svdup(access_token(&s));
    put_session(&s, "s1", "s1", NULL, 2); /* nothing changes but the seal */
    assert_false(sv_eq(sv_from(before), access_token(&s)));
    mem_free(&before);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_route_is_told_what_it_asks_for_and_no_more),
        cmocka_unit_test(it_says_whose_it_is_now),
        cmocka_unit_test(tokens_are_those_of_this_session),
        cmocka_unit_test(tokens_are_not_kept_where_nobody_asks),
        cmocka_unit_test(new_tokens_of_a_session_replace_the_old_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
