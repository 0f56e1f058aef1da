/* An assertion opens with the published keys, for its audience, in its time, and not otherwise. */
#include "common/crypto/assertion.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

static const char first_secret[] = "0123456789abcdef0123456789abcdef";
static const char other_secret[] = "fedcba9876543210fedcba9876543210";

static struct assertion_keys *keys_from(const char *making, const char *kept)
{
    struct secret *s[2] = { secret_new(sv_of(making, 32)), NULL };
    const struct secret *view[2] = { s[0], NULL };
    struct keys *shared = NULL;
    struct assertion_keys *keys = NULL;

    if (kept != NULL) {
        s[1] = secret_new(sv_of(kept, 32));
        view[1] = s[1];
    }
    assert_int_equal(keys_new(view, kept != NULL ? 2 : 1, &shared), ERR_OK);
    assert_int_equal(assertion_keys_of_shared(shared, &keys), ERR_OK);
    keys_free(&shared);
    secret_free(&s[0]);
    secret_free(&s[1]);
    return keys;
}

static json_t *claims_for(const char *aud, int64_t iat, int64_t exp)
{
    return json_pack("{s:s,s:s,s:I,s:I,s:s}", "iss", aud, "aud", aud, "iat", (json_int_t)iat, "exp",
                     (json_int_t)exp, "sub", "local/ann");
}

static char *token_for(const struct assertion_keys *keys, const char *aud, int64_t iat, int64_t exp)
{
    json_t *claims = claims_for(aud, iat, exp);
    struct buf out;

    buf_init(&out, ASSERTION_TOKEN_MAX);
    assert_int_equal(assertion_sign(keys, claims, &out), ERR_OK);
    json_decref(claims);
    return buf_take(&out);
}

static enum err verified(const struct assertion_keys *keys, const char *token, const char *aud)
{
    json_t *claims = NULL;
    enum err err = assertion_verify(keys, sv_from(token), sv_from(aud), &claims);

    assert_int_equal(claims != NULL, err == ERR_OK);
    if (claims != NULL) {
        assert_string_equal(json_string_value(json_object_get(claims, "sub")), "local/ann");
    }
    json_decref(claims);
    return err;
}

static void an_assertion_is_good_for_its_audience_and_time(void **state)
{
    struct assertion_keys *keys = keys_from(first_secret, NULL);
    int64_t now = clock_wall_s();
    char *token = token_for(keys, "app.localhost", now, now + 300);
    char *old = token_for(keys, "app.localhost", now - 700, now - 400);
    char *early = token_for(keys, "app.localhost", now + 400, now + 700);

    (void)state;
    assert_int_equal(verified(keys, token, "app.localhost"), ERR_OK);
    assert_int_equal(verified(keys, token, "other.localhost"), ERR_DENIED);
    assert_int_equal(verified(keys, old, "app.localhost"), ERR_EXPIRED);
    assert_int_equal(verified(keys, early, "app.localhost"), ERR_EXPIRED);
    mem_free(&token);
    mem_free(&old);
    mem_free(&early);
    assertion_keys_free(&keys);
}

static void every_changed_character_is_refused(void **state)
{
    struct assertion_keys *keys = keys_from(first_secret, NULL);
    int64_t now = clock_wall_s();
    char *token = token_for(keys, "app.localhost", now, now + 300);
    size_t n = strlen(token);

    (void)state;
    for (size_t i = 0; i < n; i += 3) {
        char was = token[i];

        token[i] = was == 'A' ? 'B' : 'A';
        assert_int_not_equal(verified(keys, token, "app.localhost"), ERR_OK);
        token[i] = was;
    }
    token[n - 1] = '\0';
    assert_int_not_equal(verified(keys, token, "app.localhost"), ERR_OK);
    mem_free(&token);
    assertion_keys_free(&keys);
}

static char *forged(const char *header, const char *rest)
{
    struct buf out;

    buf_init(&out, ASSERTION_TOKEN_MAX);
    b64_url_add(&out, sv_from(header));
    buf_add_str(&out, rest);
    return buf_take(&out);
}

static void the_token_chooses_neither_algorithm_nor_key(void **state)
{
    struct assertion_keys *keys = keys_from(first_secret, NULL);
    int64_t now = clock_wall_s();
    char *token = token_for(keys, "app.localhost", now, now + 300);
    const char *rest = strchr(token, '.');
    const char *headers[] = {
        "{\"alg\":\"none\",\"typ\":\"JWT\"}",
        "{\"alg\":\"ES256\",\"typ\":\"JWT\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"%s\"}",
        "{\"alg\":\"none\",\"typ\":\"JWT\",\"kid\":\"%s\"}",
        "{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"00\"}",
        "[]",
        "{",
        "",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        struct buf header;
        struct sv head = sv_from(headers[i]);
        size_t at = sv_search(head, SV("%s"));

        buf_init(&header, 1024);
        buf_add_sv(&header, at == SIZE_MAX ? head : sv_head(head, at));
        if (at != SIZE_MAX) {
            buf_add_str(&header, assertion_kid(keys));
            buf_add_sv(&header, sv_from_at(head, at + 2));
        }
        char *bad = forged(buf_cstr(&header), rest);
        assert_int_not_equal(verified(keys, bad, "app.localhost"), ERR_OK);
        mem_free(&bad);
        buf_deinit(&header);
    }
    mem_free(&token);
    assertion_keys_free(&keys);
}

static void rotation_keeps_the_old_key_valid(void **state)
{
    struct assertion_keys *old = keys_from(first_secret, NULL);
    struct assertion_keys *both = keys_from(other_secret, first_secret);
    struct assertion_keys *new = keys_from(other_secret, NULL);
    int64_t now = clock_wall_s();
    char *token = token_for(old, "app.localhost", now, now + 300);

    (void)state;
    assert_int_equal(verified(both, token, "app.localhost"), ERR_OK);
    assert_int_equal(verified(new, token, "app.localhost"), ERR_CRYPTO);
    assert_string_equal(assertion_kid(both), assertion_kid(new));
    assert_string_not_equal(assertion_kid(both), assertion_kid(old));
    mem_free(&token);
    assertion_keys_free(&old);
    assertion_keys_free(&both);
    assertion_keys_free(&new);
}

static void the_published_keys_hold_nothing_private(void **state)
{
    struct assertion_keys *keys = keys_from(other_secret, first_secret);
    struct sv text = assertion_jwks(keys);
    json_t *jwks = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    json_t *list = json_object_get(jwks, "keys");

    (void)state;
    assert_int_equal(json_array_size(list), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *key = json_array_get(list, i);

        assert_null(json_object_get(key, "d"));
        assert_string_equal(json_string_value(json_object_get(key, "kty")), "EC");
        assert_string_equal(json_string_value(json_object_get(key, "alg")), "ES256");
        assert_string_equal(json_string_value(json_object_get(key, "use")), "sig");
        assert_int_equal(json_string_length(json_object_get(key, "kid")), 64);
    }
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "kid")),
                        assertion_kid(keys));
    json_decref(jwks);
    assertion_keys_free(&keys);
}

static char *pem_of(EVP_PKEY *pkey)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *p = NULL;

    assert_int_equal(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    long n = BIO_get_mem_data(bio, &p);
    char *text = mem_svdup(sv_of(p, (size_t)n));
    BIO_free(bio);
    EVP_PKEY_free(pkey);
    return text;
}

static void pem_keys_sign_by_their_kind(void **state)
{
    char *rsa = pem_of(EVP_RSA_gen(2048));
    char *ec = pem_of(EVP_EC_gen("P-256"));
    char *p384 = pem_of(EVP_EC_gen("P-384"));
    struct buf both;
    struct assertion_keys *keys = NULL;
    struct diag d = { .text = "" };
    int64_t now = clock_wall_s();

    (void)state;
    buf_init(&both, 65536);
    buf_add_str(&both, rsa);
    buf_add_str(&both, ec);
    assert_int_equal(assertion_keys_of_pem(buf_sv(&both), &keys, &d), ERR_OK);
    char *token = token_for(keys, "app.localhost", now, now + 300);
    assert_int_equal(verified(keys, token, "app.localhost"), ERR_OK);
    assertion_keys_free(&keys);
    assert_int_equal(assertion_keys_of_pem(sv_from(ec), &keys, &d), ERR_OK);
    assert_int_equal(verified(keys, token, "app.localhost"), ERR_CRYPTO);
    assertion_keys_free(&keys);
    assert_int_equal(assertion_keys_of_pem(sv_from(p384), &keys, &d), ERR_INVALID);
    assert_string_not_equal(d.text, "");
    assert_int_equal(assertion_keys_of_pem(SV("nothing"), &keys, NULL), ERR_INVALID);
    assert_int_equal(assertion_keys_of_pem(SV(""), &keys, NULL), ERR_INVALID);
    assert_null(keys);
    mem_free(&token);
    mem_free(&rsa);
    mem_free(&ec);
    mem_free(&p384);
    buf_deinit(&both);
}

static void claims_must_be_an_object_and_bounded(void **state)
{
    struct assertion_keys *keys = keys_from(first_secret, NULL);
    json_t *list = json_array();
    json_t *big = claims_for("app.localhost", 1, 2);
    char *text = mem_alloc(ASSERTION_TOKEN_MAX);
    struct buf out;

    (void)state;
    memset(text, 'x', ASSERTION_TOKEN_MAX - 1);
    text[ASSERTION_TOKEN_MAX - 1] = '\0';
    json_object_set_new(big, "long", json_string(text));
    buf_init(&out, 65536);
    assert_int_equal(assertion_sign(keys, list, &out), ERR_INVALID);
    assert_int_equal(assertion_sign(keys, big, &out), ERR_LIMIT);
    assert_int_equal(out.n, 0);
    buf_deinit(&out);
    mem_free(&text);
    json_decref(list);
    json_decref(big);
    assertion_keys_free(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_assertion_is_good_for_its_audience_and_time),
        cmocka_unit_test(every_changed_character_is_refused),
        cmocka_unit_test(the_token_chooses_neither_algorithm_nor_key),
        cmocka_unit_test(rotation_keeps_the_old_key_valid),
        cmocka_unit_test(the_published_keys_hold_nothing_private),
        cmocka_unit_test(pem_keys_sign_by_their_kind),
        cmocka_unit_test(claims_must_be_an_object_and_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
