/* What a provider says is judged claim by claim. */
#include "authenticate/provider.h"

#include <stdio.h>
#include <string.h>

#include "authenticate/claims.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

enum { NOW = 1700000000 };

static enum err check(const char *changes, struct diag *d)
{
    json_t *claims = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i}", "iss", "https://idp", "sub", "u", "aud",
                               "me", "nonce", "n", "exp", NOW + 300, "iat", NOW);
    json_t *more = json_loads(changes, 0, NULL);
    struct authn_id_expected expected = {
        .issuer = SV("https://idp"), .client_id = SV("me"), .nonce = SV("n"), .now_s = NOW
    };
    const char *key = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;

    assert_non_null(more);
    json_object_foreach(more, key, value)
    {
        if (json_is_null(value)) {
            (void)json_object_del(claims, key);
        } else {
            (void)json_object_set(claims, key, value);
        }
    }
    err = authn_id_check(claims, &expected, d);
    json_decref(claims);
    json_decref(more);
    return err;
}

static enum err bearer(const char *json, bool id_token)
{
    static struct sv audiences[] = { { "api", 3 }, { "", 0 }, { "two", 3 } };
    json_t *claims = json_loads(json, 0, NULL);
    const struct authn_bearer_expected expected = {
        .issuer = SV("https://ci"),
        .client_id = id_token ? SV("me") : SV(""),
        .audiences = { audiences, ARRAY_LEN(audiences) },
        .now_s = NOW,
    };
    struct diag d = { .line = 0 };
    enum err err = ERR_OK;

    assert_non_null(claims);
    err = authn_bearer_check(claims, &expected, &d);
    assert_true(err == ERR_OK || d.text[0] != '\0');
    json_decref(claims);
    return err;
}

#define CLAIMS(rest) "{\"iss\":\"https://ci\",\"sub\":\"s\",\"iat\":1700000000," rest "}"

static void a_program_s_token_is_for_us_and_for_now(void **state)
{
    static const struct {
        const char *claims;
        bool id_token;
        enum err err;
    } rows[] = {
        { CLAIMS("\"aud\":\"api\",\"exp\":1700000300"), false, ERR_OK },
        { CLAIMS("\"aud\":[\"x\",\"two\"],\"exp\":1700000300"), false, ERR_OK },
        { CLAIMS("\"aud\":\"api\",\"azp\":\"x\",\"exp\":1700000300"), false, ERR_OK },
        { CLAIMS("\"aud\":\"\",\"exp\":1700000300"), false, ERR_DENIED },
        { CLAIMS("\"aud\":\"me\",\"exp\":1700000300"), false, ERR_DENIED },
        { CLAIMS("\"aud\":{\"api\":1},\"exp\":1700000300"), false, ERR_DENIED },
        { CLAIMS("\"exp\":1700000300"), false, ERR_DENIED },
        { CLAIMS("\"aud\":\"api\""), false, ERR_INVALID },
        { CLAIMS("\"aud\":\"api\",\"exp\":1699999940"), false, ERR_EXPIRED },
        { CLAIMS("\"aud\":\"api\",\"exp\":1702592001"), false, ERR_INVALID },
        { CLAIMS("\"aud\":\"api\",\"exp\":1702592000"), false, ERR_OK },
        { CLAIMS("\"aud\":\"api\",\"exp\":1700000300,\"nbf\":1700000061"), false, ERR_EXPIRED },
        { CLAIMS("\"aud\":\"me\",\"exp\":1700000300"), true, ERR_OK },
        { CLAIMS("\"aud\":\"api\",\"exp\":1700000300"), true, ERR_DENIED },
        { CLAIMS("\"aud\":[\"me\",\"api\"],\"exp\":1700000300"), true, ERR_DENIED },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum err err = bearer(rows[i].claims, rows[i].id_token);

        if (err != rows[i].err) {
            fail_msg("%s: %d", rows[i].claims, err);
        }
    }
}

/* As flat text: what authn_bearer_check would see; "" where it sees nothing. */
static void introspected(const char *json, enum err expected, const char *name, const char *value)
{
    struct diag d = { .line = 0 };
    json_t *claims = NULL;
    enum err err = authn_introspection_read(sv_from(json), SV("https://idp"), &claims, &d);

    if (err != expected) {
        fail_msg("%s: %d", json, err);
    }
    assert_true((err == ERR_OK) == (claims != NULL) && (err == ERR_OK || d.text[0] != '\0'));
    if (claims != NULL) {
        const char *text = json_string_value(json_object_get(claims, name));

        assert_string_equal(text == NULL ? "" : text, value);
        assert_null(json_object_get(claims, "active"));
    }
    json_decref(claims);
}

static void introspection_becomes_the_claims_of_an_access_token(void **state)
{
    (void)state;
    introspected("{\"active\":true,\"sub\":\"s\"}", ERR_OK, "iss", "https://idp");
    introspected("{\"active\":true,\"iss\":\"x\"}", ERR_OK, "iss", "x");
    introspected("{\"active\":true,\"aud\":\"a\",\"client_id\":\"c\",\"token_type\":\"bearer\"}",
                 ERR_OK, "aud", "a");
    introspected("{\"active\":true,\"client_id\":\"c\",\"token_type\":\"bearer\"}", ERR_OK, "aud",
                 "c");
    introspected("{\"active\":true,\"client_id\":\"c\"}", ERR_OK, "aud", ""); /* a refresh token? */
    introspected("{\"active\":true,\"client_id\":[\"c\"],\"token_type\":\"Bearer\"}", ERR_OK, "aud",
                 "");
    introspected("{\"active\":true,\"token_type\":\"DPoP\"}", ERR_DENIED, "", "");
    introspected("{\"active\":true,\"token_type\":null}", ERR_DENIED, "", "");
    introspected("{\"active\":false}", ERR_DENIED, "", "");
    introspected("{\"active\":1}", ERR_DENIED, "", "");
    introspected("{\"active\":\"true\"}", ERR_DENIED, "", "");
    introspected("{}", ERR_DENIED, "", "");
    introspected("{\"active\":false,\"active\":true}", ERR_INVALID, "", "");
    introspected("[]", ERR_INVALID, "", "");
    introspected("", ERR_INVALID, "", "");
}

static void userinfo_tells_nothing_of_the_token(void **state)
{
    static const char *const of_tokens[] = { "aud", "client_id", "exp", "iat", "auth_time" };
    json_t *claims = NULL;
    struct diag d = { .line = 0 };

    (void)state;
    assert_int_equal(
        authn_userinfo_read(SV("{\"sub\":\"s\",\"iss\":\"x\",\"aud\":\"a\",\"client_id\":\"c\","
                               "\"exp\":1,\"iat\":1,\"auth_time\":1}"),
                            SV("https://idp"), &claims, &d),
        ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(of_tokens); i++) {
        assert_null(json_object_get(claims, of_tokens[i]));
    }
    assert_string_equal(json_string_value(json_object_get(claims, "iss")), "https://idp");
    json_decref(claims);
    assert_int_equal(authn_userinfo_read(SV("eyJ"), SV("https://idp"), &claims, &d), ERR_INVALID);
}

static void an_opaque_token_may_lack_times_but_not_say_them_badly(void **state)
{
    static const struct {
        const char *claims;
        enum err err;
    } rows[] = {
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"aud\":\"x\"}", ERR_OK }, /* any audience */
        { "{\"iss\":\"https://ci\",\"sub\":\"s\"}", ERR_OK },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"exp\":1700000001}", ERR_OK },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"exp\":1699999000}", ERR_EXPIRED },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"exp\":0}", ERR_EXPIRED },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"exp\":\"1700000001\"}", ERR_INVALID },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"iat\":null}", ERR_INVALID },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"nbf\":1700009999}", ERR_EXPIRED },
        { "{\"iss\":\"https://ci\",\"sub\":\"s\",\"cnf\":{}}", ERR_DENIED },
        { "{\"iss\":\"https://ci\"}", ERR_INVALID },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct authn_bearer_expected expected = {
            .issuer = SV("https://ci"), .any_audience = true, .opaque = true, .now_s = NOW
        };
        json_t *claims = json_loads(rows[i].claims, 0, NULL);
        struct diag d = { .line = 0 };
        enum err err = authn_bearer_check(claims, &expected, &d);

        json_decref(claims);
        if (err != rows[i].err) {
            fail_msg("%s: %d", rows[i].claims, err);
        }
    }
}

static void id_tokens_are_for_this_client_login_and_time(void **state)
{
    static const struct {
        const char *changes;
        enum err err;
    } rows[] = {
        { "{}", ERR_OK },
        { "{\"aud\":[\"me\"]}", ERR_OK },
        { "{\"aud\":[\"me\",\"you\"],\"azp\":\"me\"}", ERR_OK },
        { "{\"exp\":1699999941}", ERR_OK }, /* 59 s ago: within the leeway */
        { "{\"iat\":1700000060}", ERR_OK },
        { "{\"nbf\":1700000060}", ERR_OK },
        { "{\"exp\":1700000300.5}", ERR_OK },
        { "{\"aud\":[\"me\",\"you\"]}", ERR_DENIED },
        { "{\"aud\":[\"me\",\"you\"],\"azp\":\"you\"}", ERR_DENIED },
        { "{\"azp\":\"you\"}", ERR_DENIED },
        { "{\"azp\":1}", ERR_DENIED },
        { "{\"aud\":\"you\"}", ERR_DENIED },
        { "{\"aud\":[]}", ERR_DENIED },
        { "{\"aud\":{\"me\":1}}", ERR_DENIED },
        { "{\"aud\":null}", ERR_DENIED },
        { "{\"iss\":\"https://idp/\"}", ERR_DENIED },
        { "{\"iss\":null}", ERR_DENIED },
        { "{\"nonce\":\"m\"}", ERR_DENIED },
        { "{\"nonce\":null}", ERR_DENIED },
        { "{\"sub\":\"\"}", ERR_INVALID },
        { "{\"sub\":5}", ERR_INVALID },
        { "{\"sub\":\"a\\nb\"}", ERR_INVALID },
        { "{\"exp\":null}", ERR_INVALID },
        { "{\"exp\":\"1800000000\"}", ERR_INVALID },
        { "{\"exp\":1e300}", ERR_INVALID },
        { "{\"exp\":-1}", ERR_INVALID },
        { "{\"iat\":null}", ERR_INVALID },
        { "{\"nbf\":\"x\"}", ERR_INVALID },
        { "{\"exp\":1699999940}", ERR_EXPIRED },
        { "{\"iat\":1700000061}", ERR_EXPIRED },
        { "{\"nbf\":1700000090}", ERR_EXPIRED },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (check(rows[i].changes, NULL) != rows[i].err) {
            fail_msg("%s: not %s", rows[i].changes, err_name(rows[i].err));
        }
    }
}

static void a_refreshed_id_token_needs_no_nonce_but_the_same_subject(void **state)
{
    static const struct {
        const char *sub;
        const char *aud;
        enum err err;
    } rows[] = {
        { "u", "me", ERR_OK },
        { "v", "me", ERR_ABORTED },
        { "", "me", ERR_ABORTED },
        { "u", "you", ERR_DENIED },
    };
    struct authn_id_expected expected = {
        .issuer = SV("https://idp"), .client_id = SV("me"), .subject = SV("u"), .now_s = NOW
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *claims = json_pack("{s:s,s:s,s:s,s:i,s:i}", "iss", "https://idp", "sub",
                                   rows[i].sub, "aud", rows[i].aud, "exp", NOW + 300, "iat", NOW);

        assert_int_equal(authn_id_check(claims, &expected, NULL), rows[i].err);
        json_decref(claims);
    }
    /* Nothing is expected of it: it is nobody's. */
    expected.subject = SV("");
    json_t *claims = json_pack("{s:s,s:s,s:s,s:i,s:i}", "iss", "https://idp", "sub", "", "aud",
                               "me", "exp", NOW + 300, "iat", NOW);
    assert_int_equal(authn_id_check(claims, &expected, NULL), ERR_DENIED);
    json_decref(claims);
}

static void only_invalid_grant_means_that_a_token_is_over(void **state)
{
    static const struct {
        long status;
        const char *body;
        enum authn_grant_fault fault;
    } rows[] = {
        { 400, "{\"error\":\"invalid_grant\"}", AUTHN_GRANT_OVER },
        { 401, "{\"error\":\"invalid_grant\"}", AUTHN_GRANT_OVER },
        { 500, "{\"error\":\"invalid_grant\"}", AUTHN_GRANT_LATER },
        { 429, "{\"error\":\"invalid_grant\"}", AUTHN_GRANT_LATER },
        { 302, "{\"error\":\"invalid_grant\"}", AUTHN_GRANT_LATER },
        { 400, "{\"error\":\"invalid_client\"}", AUTHN_GRANT_CLIENT },
        { 400, "{\"error\":\"x\",\"error_description\":\"invalid_grant\"}", AUTHN_GRANT_CLIENT },
        { 400, "invalid_grant", AUTHN_GRANT_CLIENT },
        { 400, "", AUTHN_GRANT_CLIENT },
        { 503, "", AUTHN_GRANT_LATER },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(authn_grant_fault(rows[i].status, sv_from(rows[i].body)), rows[i].fault);
    }
}

static void a_refresh_may_bring_no_id_token_but_an_access_token(void **state)
{
    struct authn_tokens t;
    struct arena arena;

    (void)state;
    arena_init(&arena);
    assert_int_equal(authn_tokens_parse_refreshed(SV("{\"access_token\":\"a\",\"expires_in\":60}"),
                                                  &arena, &t, NULL),
                     ERR_OK);
    assert_true(sv_eq(t.access_token, SV("a")) && t.refresh_token.n == 0 && t.id_token.n == 0);
    assert_int_equal(t.expires_in_s, 60);
    assert_int_equal(authn_tokens_parse_refreshed(SV("{\"id_token\":\"i\"}"), &arena, &t, NULL),
                     ERR_INVALID);
    assert_int_equal(authn_tokens_parse(SV("{\"access_token\":\"a\"}"), &arena, &t, NULL),
                     ERR_INVALID);
    arena_deinit(&arena);
}

static void the_skew_is_named_in_seconds(void **state)
{
    struct diag d = { .line = 0 };
    struct diag e = { .line = 0 };

    (void)state;
    assert_int_equal(check("{\"iat\":1700000090}", &d), ERR_EXPIRED);
    assert_non_null(strstr(d.text, "90 s"));
    assert_int_equal(check("{\"exp\":1699999900}", &e), ERR_EXPIRED);
    assert_non_null(strstr(e.text, "100 s"));
}

static enum err discover(const char *issuer, const char *token_endpoint, const char *rest)
{
    char text[1024];
    struct authn_provider p;
    struct arena arena;
    enum err err = ERR_OK;

    (void)snprintf(text, sizeof text,
                   "{\"issuer\":\"%s\",\"authorization_endpoint\":\"https://idp/auth\","
                   "\"token_endpoint\":\"%s\",\"jwks_uri\":\"https://idp/jwks\"%s}",
                   issuer, token_endpoint, rest);
    arena_init(&arena);
    err = authn_provider_parse(sv_from(text), SV("https://idp"), &arena, &p, NULL);
    arena_deinit(&arena);
    return err;
}

static void discovery_must_be_of_the_issuer_and_over_https(void **state)
{
    (void)state;
    assert_int_equal(discover("https://idp", "https://idp/token", ""), ERR_OK);
    assert_int_equal(discover("https://idp/", "https://idp/token", ""), ERR_OK);
    assert_int_equal(discover("https://idp", "http://127.0.0.1:5/token", ""), ERR_OK);
    assert_int_equal(discover("https://evil", "https://idp/token", ""), ERR_INVALID);
    assert_int_equal(discover("", "https://idp/token", ""), ERR_INVALID);
    assert_int_equal(discover("https://idp", "http://idp/token", ""), ERR_INVALID);
    assert_int_equal(discover("https://idp", "file:///etc/passwd", ""), ERR_INVALID);
    assert_int_equal(discover("https://idp", "https://a@idp/token", ""), ERR_INVALID);
    assert_int_equal(discover("https://idp", "", ""), ERR_INVALID);
    assert_int_equal(discover("https://idp", "https://idp/token", ",\"issuer\":\"https://idp\""),
                     ERR_INVALID);
    assert_int_equal(discover("https://idp", "https://idp/token",
                              ",\"end_session_endpoint\":\"javascript:alert(1)\""),
                     ERR_INVALID);
}

static void userinfo_adds_but_never_replaces(void **state)
{
    json_t *claims = json_pack("{s:s,s:s}", "sub", "u", "email", "a@b");

    (void)state;
    assert_int_equal(
        authn_userinfo_merge(claims, SV("{\"sub\":\"u\",\"email\":\"x@y\",\"name\":\"N\"}"), NULL),
        ERR_OK);
    assert_string_equal(json_string_value(json_object_get(claims, "email")), "a@b");
    assert_string_equal(json_string_value(json_object_get(claims, "name")), "N");
    assert_int_equal(authn_userinfo_merge(claims, SV("{\"sub\":\"v\"}"), NULL), ERR_DENIED);
    assert_int_equal(authn_userinfo_merge(claims, SV("{\"name\":\"N\"}"), NULL), ERR_DENIED);
    assert_int_equal(authn_userinfo_merge(claims, SV("[]"), NULL), ERR_INVALID);
    json_decref(claims);
}

static void claims_become_flat_lists(void **state)
{
    json_t *claims = json_loads("{\"a\":{\"b\":1,\"c\":{\"d\":[\"x\",true,{}]}},\"groups\":[\"g\","
                                "\"h\"],\"nonce\":\"n\",\"at_hash\":\"h\",\"z\":null}",
                                0, NULL);
    bool cut = false;
    json_t *flat = authn_claims_flatten(claims, &cut);
    char *text = json_dumps(flat, JSON_COMPACT | JSON_SORT_KEYS);

    (void)state;
    assert_string_equal(text, "{\"a.b\":[1],\"a.c.d\":[\"x\",true],\"groups\":[\"g\",\"h\"]}");
    assert_true(cut); /* the object in a list */
    mem_release(text);
    json_decref(flat);
    json_decref(claims);
}

static void claims_stand_in_for_those_of_a_session_that_they_name_all_of(void **state)
{
    static const struct {
        const char *before;
        const char *now;
        bool cover;
    } rows[] = {
        { "{\"sub\":\"u\",\"groups\":[\"a\"]}", "{\"sub\":\"u\",\"groups\":[\"b\"],\"x\":1}",
          true },
        { "{\"sub\":\"u\",\"groups\":[\"a\"]}", "{\"sub\":\"u\"}", false },
        { "{\"sub\":\"u\",\"a\":{\"b\":1}}", "{\"sub\":\"u\",\"a\":{\"c\":1}}", false },
        { "{\"sub\":\"u\",\"auth_time\":1,\"sid\":\"s\"}", "{\"sub\":\"u\"}", true },
        { "{}", "{}", true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *before = json_loads(rows[i].before, 0, NULL);
        json_t *now = json_loads(rows[i].now, 0, NULL);
        bool cut = false;
        json_t *flat = authn_claims_flatten(before, &cut);
        Session__Session session = SESSION__SESSION__INIT;
        struct arena arena;

        arena_init(&arena);
        authn_claims_to_session(flat, &arena, &session);
        assert_int_equal(authn_claims_cover(now, &session), rows[i].cover);
        arena_deinit(&arena);
        json_decref(flat);
        json_decref(before);
        json_decref(now);
    }
}

static void claims_have_a_bound(void **state)
{
    json_t *claims = json_object();
    json_t *list = json_array();
    bool cut = false;
    json_t *flat = NULL;

    (void)state;
    for (int i = 0; i < AUTHN_CLAIM_VALUES_MAX + 10; i++) {
        (void)json_array_append_new(list, json_integer(i));
    }
    (void)json_object_set_new(claims, "l", list);
    flat = authn_claims_flatten(claims, &cut);
    assert_int_equal(json_array_size(json_object_get(flat, "l")), AUTHN_CLAIM_VALUES_MAX);
    assert_true(cut);
    json_decref(flat);
    json_decref(claims);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(id_tokens_are_for_this_client_login_and_time),
        cmocka_unit_test(a_program_s_token_is_for_us_and_for_now),
        cmocka_unit_test(introspection_becomes_the_claims_of_an_access_token),
        cmocka_unit_test(userinfo_tells_nothing_of_the_token),
        cmocka_unit_test(an_opaque_token_may_lack_times_but_not_say_them_badly),
        cmocka_unit_test(a_refreshed_id_token_needs_no_nonce_but_the_same_subject),
        cmocka_unit_test(only_invalid_grant_means_that_a_token_is_over),
        cmocka_unit_test(a_refresh_may_bring_no_id_token_but_an_access_token),
        cmocka_unit_test(the_skew_is_named_in_seconds),
        cmocka_unit_test(discovery_must_be_of_the_issuer_and_over_https),
        cmocka_unit_test(userinfo_adds_but_never_replaces),
        cmocka_unit_test(claims_become_flat_lists),
        cmocka_unit_test(claims_stand_in_for_those_of_a_session_that_they_name_all_of),
        cmocka_unit_test(claims_have_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
