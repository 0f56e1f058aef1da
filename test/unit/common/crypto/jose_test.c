/* jose against the vectors of Wycheproof and RFC 7520. */
#include "common/crypto/jose.h"

#include <string.h>

#include "common/mem.h"
#include "test/support/cmocka.h"

#define CORPUS "../shared/corpora/jose/"

static struct jose_keys *keys_of(const json_t *jwk)
{
    struct jose_keys *keys = NULL;
    json_t *set = json_pack("{s:[O]}", "keys", jwk);
    char *text = json_dumps(set, JSON_COMPACT);

    if (jose_keys_parse(sv_from(text), &keys, NULL) != ERR_OK) {
        keys = NULL;
    }
    mem_release(text);
    json_decref(set);
    return keys;
}

static enum err verify_text(const struct jose_keys *keys, const char *token, struct buf *payload)
{
    buf_reset(payload);
    return jose_verify(keys, sv_from(token), payload, NULL, NULL);
}

/* RSA keys are fit for one algorithm and of 2048 bits at least: some vectors break that on purpose. */
static bool is_ours(const json_t *group)
{
    const json_t *key = json_object_get(group, "public");
    const char *kty = json_string_value(json_object_get(key, "kty"));

    return kty != NULL &&
           (strcmp(kty, "RSA") == 0 || strcmp(kty, "EC") == 0 || strcmp(kty, "OKP") == 0);
}

static void wycheproof_signatures_are_judged_as_listed(void **state)
{
    json_t *doc = json_load_file(CORPUS "wycheproof_json_web_signature_test.json", 0, NULL);
    const json_t *groups = json_object_get(doc, "testGroups");
    size_t accepted = 0;
    size_t refused = 0;
    CLEANUP(buf_deinit) struct buf payload;

    (void)state;
    buf_init(&payload, 65536);
    assert_non_null(doc);
    for (size_t g = 0; g < json_array_size(groups); g++) {
        const json_t *group = json_array_get(groups, g);
        const json_t *tests = json_object_get(group, "tests");
        CLEANUP(jose_keys_free)
        struct jose_keys *keys = keys_of(
            json_object_get(group, json_object_get(group, "public") ? "public" : "private"));

        if (!is_ours(group)) {
            assert_null(keys); /* symmetric and foreign keys are no keys here */
        }
        for (size_t t = 0; keys != NULL && t < json_array_size(tests); t++) {
            const json_t *test = json_array_get(tests, t);
            const char *jws = json_string_value(json_object_get(test, "jws"));
            bool valid = strcmp(json_string_value(json_object_get(test, "result")), "valid") == 0;
            bool ok = jws != NULL && verify_text(keys, jws, &payload) == ERR_OK;

            if (ok != valid) {
                print_message("tcId %lld %s: ok %d, listed %d\n",
                              json_integer_value(json_object_get(test, "tcId")),
                              json_string_value(json_object_get(test, "comment")), ok, valid);
            }
            assert_true(!ok || valid); /* nothing invalid passes */
            accepted += ok ? 1U : 0U;
            refused += ok ? 0U : 1U;
        }
    }
    assert_true(accepted > 20);
    assert_true(refused > 100);
    json_decref(doc);
}

static void rfc7520_examples_verify(void **state)
{
    static const char *const files[] = { "jws_4_1.rsa_v15_signature.json",
                                         "jws_4_2.rsa-pss_signature.json",
                                         "jws_4_3.ecdsa_signature.json" };
    CLEANUP(buf_deinit) struct buf payload;

    (void)state;
    buf_init(&payload, 65536);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[256];
        json_t *doc = NULL;
        json_t *jwk = NULL;
        CLEANUP(jose_keys_free) struct jose_keys *keys = NULL;
        char *token = NULL;

        (void)snprintf(path, sizeof path, CORPUS "rfc7520/%s", files[i]);
        doc = json_load_file(path, 0, NULL);
        assert_non_null(doc);
        jwk = json_deep_copy(json_object_get(json_object_get(doc, "input"), "key"));
        assert_null(keys_of(jwk)); /* a private key has no place in a key set */
        for (const char *const *m = (const char *const[]){ "d", "p", "q", "dp", "dq", "qi", NULL };
             *m != NULL; m++) {
            (void)json_object_del(jwk, *m);
        }
        keys = keys_of(jwk);
        assert_non_null(keys);
        token = mem_strdup(
            json_string_value(json_object_get(json_object_get(doc, "output"), "compact")));
        assert_int_equal(verify_text(keys, token, &payload), ERR_OK);
        assert_true(sv_eq(buf_sv(&payload), sv_from(json_string_value(json_object_get(
                                                json_object_get(doc, "input"), "payload")))));
        for (size_t at = 0; at < strlen(token); at += 7) { /* any change is seen */
            char was = token[at];

            token[at] = was == 'A' ? 'B' : 'A';
            assert_int_not_equal(verify_text(keys, token, &payload), ERR_OK);
            token[at] = was;
        }
        mem_free(&token);
        json_decref(jwk);
        json_decref(doc);
    }
}

#define ED_X       "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define ED_HEADER  "eyJhbGciOiJFZERTQSJ9" /* {"alg":"EdDSA"} */
#define ED_PAYLOAD "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
#define ED_SIGNATURE \
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
#define ED_TOKEN ED_HEADER "." ED_PAYLOAD "." ED_SIGNATURE

static struct jose_keys *keys_of_text(const char *jwk)
{
    json_t *json = json_loads(jwk, 0, NULL);
    struct jose_keys *keys = NULL;

    assert_non_null(json);
    keys = keys_of(json);
    json_decref(json);
    return keys;
}

/* RFC 8037 A.4, and what is next to it. */
static void ed25519_signatures_verify_under_their_key_alone(void **state)
{
    static const char *const others[] = {
        ED_HEADER
        "." ED_PAYLOAD
        ".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6KLa6_pyZkOh9Vg8wkiO1VhVsPt9g7sVvpAr_MuM0KEg", /* S + L */
        ED_HEADER "." ED_PAYLOAD "." ED_SIGNATURE "AA",
        ED_HEADER "." ED_PAYLOAD ".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR4",
        ED_HEADER "." ED_PAYLOAD ".",
        ED_HEADER ".." ED_SIGNATURE,
        "eyJhbGciOiJFUzI1NiJ9." ED_PAYLOAD "." ED_SIGNATURE, /* ES256 */
        "eyJhbGciOiJFZDQ0OCJ9." ED_PAYLOAD "." ED_SIGNATURE, /* Ed448 */
        "eyJhbGciOiJIUzI1NiJ9." ED_PAYLOAD "." ED_SIGNATURE, /* HS256 */
    };
    char token[] = ED_TOKEN;
    CLEANUP(jose_keys_free)
    struct jose_keys *keys =
        keys_of_text("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\"}");
    CLEANUP(buf_deinit) struct buf payload;

    (void)state;
    buf_init(&payload, 1000);
    assert_non_null(keys);
    assert_int_equal(verify_text(keys, token, &payload), ERR_OK);
    assert_true(sv_eq(buf_sv(&payload), SV("Example of Ed25519 signing")));
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (verify_text(keys, others[i], &payload) == ERR_OK) {
            fail_msg("%s", others[i]);
        }
    }
    for (size_t at = 0; at < strlen(token); at++) { /* any change is seen */
        char was = token[at];

        token[at] = was == 'A' ? 'B' : 'A';
        assert_int_not_equal(verify_text(keys, token, &payload), ERR_OK);
        token[at] = was;
    }
}

static void a_key_of_another_kind_verifies_no_eddsa(void **state)
{
    static const char *const no_keys[] = {
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\",\"d\":\"" ED_X "\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\",\"use\":\"enc\"}",
        "{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" ED_X "\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed448\",\"x\":\"" ED_X "\"}",
        "{\"kty\":\"OKP\",\"x\":\"" ED_X "\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "AA\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUQ\"}",
        "{\"kty\":\"EC\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\"}",
    };
    /* Under each of these a signature of zeros fits everything, or nearly. */
    static const char *const small_order[] = {
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
        "7P_______________________________________38",
        "7f_______________________________________38",
        "7v_______________________________________38",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA",
        "7P________________________________________8",
    };
    CLEANUP(jose_keys_free)
    struct jose_keys *es =
        keys_of_text("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\",\"alg\":\"ES256\"}");
    CLEANUP(jose_keys_free)
    struct jose_keys *ec = keys_of_text(
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
        "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}");
    CLEANUP(buf_deinit) struct buf payload;

    (void)state;
    buf_init(&payload, 1000);
    for (size_t i = 0; i < ARRAY_LEN(no_keys); i++) {
        if (keys_of_text(no_keys[i]) != NULL) {
            fail_msg("%s", no_keys[i]);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(small_order); i++) {
        char jwk[200];

        (void)snprintf(jwk, sizeof jwk, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"%s\"}",
                       small_order[i]);
        assert_null(keys_of_text(jwk));
    }
    assert_non_null(es);
    assert_int_equal(verify_text(es, ED_TOKEN, &payload), ERR_NOT_FOUND);
    assert_non_null(ec);
    assert_int_equal(verify_text(ec, ED_TOKEN, &payload), ERR_NOT_FOUND);
}

static void nested_and_duplicate_json_is_refused(void **state)
{
    char deep[64];
    json_t *object = NULL;

    (void)state;
    memset(deep, '[', sizeof deep);
    assert_int_equal(jose_object_parse(sv_of(deep, sizeof deep), 1000, &object), ERR_LIMIT);
    assert_int_equal(jose_object_parse(SV("{\"a\":1,\"a\":2}"), 1000, &object), ERR_INVALID);
    assert_int_equal(jose_object_parse(SV("[]"), 1000, &object), ERR_INVALID);
    assert_int_equal(
        jose_object_parse(SV("{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}"), 1000, &object), ERR_OK);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wycheproof_signatures_are_judged_as_listed),
        cmocka_unit_test(rfc7520_examples_verify),
        cmocka_unit_test(ed25519_signatures_verify_under_their_key_alone),
        cmocka_unit_test(a_key_of_another_kind_verifies_no_eddsa),
        cmocka_unit_test(nested_and_duplicate_json_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
