/* Sealed things open only where they were meant to; one changed bit anywhere is refused. */
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/crypto/handle.h"
#include "common/crypto/keys.h"
#include "common/crypto/link.h"
#include "common/crypto/seal.h"
#include "common/crypto/service_jwt.h"
#include "common/crypto/token.h"
#include "test/support/cmocka.h"

static struct keys *keys_of(const char *first, const char *second)
{
    struct secret *s[2] = { secret_new(sv_of(first, 32)), NULL };
    const struct secret *view[2] = { s[0], NULL };
    struct keys *keys = NULL;
    size_t n = 1;

    if (second != NULL) {
        s[1] = secret_new(sv_of(second, 32));
        view[1] = s[1];
        n = 2;
    }
    assert_int_equal(keys_new(view, n, &keys), ERR_OK);
    secret_free(&s[0]);
    secret_free(&s[1]);
    return keys;
}

static const char old_secret[] = "0123456789abcdef0123456789abcdef";
static const char new_secret[] = "fedcba9876543210fedcba9876543210";

static void keys_refuse_wrong_sizes(void **state)
{
    struct secret *s = secret_new(SV("short"));
    const struct secret *view[1] = { s };
    struct keys *keys = NULL;

    (void)state;
    assert_int_equal(keys_new(view, 1, &keys), ERR_INVALID);
    assert_int_equal(keys_new(view, 0, &keys), ERR_INVALID);
    assert_null(keys);
    secret_free(&s);
}

static void keys_differ_by_purpose_and_secret(void **state)
{
    struct keys *a = keys_of(old_secret, NULL);
    struct keys *b = keys_of(new_secret, NULL);
    unsigned char k[3][32];

    (void)state;
    keys_derive(a, 0, KEYS_HANDLE, k[0], 32);
    keys_derive(a, 0, KEYS_LINK, k[1], 32);
    keys_derive(b, 0, KEYS_HANDLE, k[2], 32);
    assert_memory_not_equal(k[0], k[1], 32);
    assert_memory_not_equal(k[0], k[2], 32);
    keys_derive(a, 0, KEYS_HANDLE, k[1], 32);
    assert_memory_equal(k[0], k[1], 32);
    keys_free(&a);
    keys_free(&b);
}

static void ec_key_is_stable_and_signs(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    EVP_PKEY *one = keys_ec_p256(keys, 0, KEYS_ASSERTION);
    EVP_PKEY *two = keys_ec_p256(keys, 0, KEYS_ASSERTION);
    EVP_PKEY *other = keys_ec_p256(keys, 0, KEYS_INTERNAL_CA);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char sig[128];
    size_t n = sizeof(sig);

    (void)state;
    assert_int_equal(EVP_PKEY_eq(one, two), 1);
    assert_int_not_equal(EVP_PKEY_eq(one, other), 1);
    assert_int_equal(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, one), 1);
    assert_int_equal(EVP_DigestSign(md, sig, &n, (const unsigned char *)"x", 1), 1);
    EVP_MD_CTX_reset(md);
    assert_int_equal(EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, two), 1);
    assert_int_equal(EVP_DigestVerify(md, sig, n, (const unsigned char *)"x", 1), 1);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(one);
    EVP_PKEY_free(two);
    EVP_PKEY_free(other);
    keys_free(&keys);
}

static enum err open_copy(struct sealer *s, struct sv text, struct sv aad)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };

    buf_init(&out, SEAL_MAX);
    return seal_open(s, text, aad, &out);
}

static void seal_refuses_every_changed_character(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    struct sealer *s = sealer_new(keys, KEYS_LOGIN_STATE);
    struct sealer *other = sealer_new(keys, KEYS_LOGIN_CODE);
    CLEANUP(buf_deinit) struct buf text = { 0 };
    size_t i = 0;

    (void)state;
    buf_init(&text, 4096);
    assert_int_equal(seal_make(s, SV("the return address"), SV("aad"), &text), ERR_OK);
    assert_int_equal(open_copy(s, buf_sv(&text), SV("aad")), ERR_OK);
    assert_int_equal(open_copy(s, buf_sv(&text), SV("aae")), ERR_CRYPTO);
    assert_int_equal(open_copy(other, buf_sv(&text), SV("aad")), ERR_CRYPTO);
    for (i = 0; i < text.n; i++) {
        char before = text.p[i];

        text.p[i] = before == 'A' ? 'B' : 'A';
        assert_int_equal(open_copy(s, buf_sv(&text), SV("aad")), ERR_CRYPTO);
        text.p[i] = before;
        assert_int_equal(open_copy(s, sv_head(buf_sv(&text), i), SV("aad")), ERR_CRYPTO);
    }
    sealer_free(&s);
    sealer_free(&other);
    keys_free(&keys);
}

static void handle_is_bound_to_its_host_and_survives_rotation(void **state)
{
    struct keys *before = keys_of(old_secret, NULL);
    struct keys *during = keys_of(new_secret, old_secret);
    struct keys *after = keys_of(new_secret, NULL);
    struct sealer *s[3] = { sealer_new(before, KEYS_HANDLE), sealer_new(during, KEYS_HANDLE),
                            sealer_new(after, KEYS_HANDLE) };
    struct handle h = { .session = "8d9f4a3e-0000-4000-8000-0123456789ab",
                        .idp_id = "local",
                        .record_version = 0x1122334455667788ULL,
                        .issued_at_s = 1790000000 };
    struct handle got = { 0 };
    CLEANUP(buf_deinit) struct buf text = { 0 };
    size_t i = 0;

    (void)state;
    buf_init(&text, HANDLE_TEXT_MAX);
    assert_int_equal(handle_make(s[0], &h, SV("app.example"), &text), ERR_OK);
    assert_true(text.n < 160); /* the whole cookie stays below 300 bytes */
    assert_int_equal(handle_open(s[1], buf_sv(&text), SV("app.example"), &got), ERR_OK);
    assert_string_equal(got.session, h.session);
    assert_string_equal(got.idp_id, "local");
    assert_true(got.record_version == h.record_version && got.issued_at_s == h.issued_at_s);
    assert_int_equal(handle_open(s[0], buf_sv(&text), SV("evil.example"), &got), ERR_CRYPTO);
    assert_int_equal(handle_open(s[2], buf_sv(&text), SV("app.example"), &got), ERR_CRYPTO);
    for (i = 0; i < 3; i++) {
        sealer_free(&s[i]);
    }
    keys_free(&before);
    keys_free(&during);
    keys_free(&after);
}

/* The role is part of what is signed, and chooses the key. */
static void a_token_of_one_kind_is_none_of_another(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    CLEANUP(buf_deinit) struct buf text = { 0 };
    CLEANUP(buf_deinit) struct buf forged = { 0 };
    struct token made;
    struct token t = { .role = TOKEN_ROLE_NONE };
    unsigned char wire[TOKEN_TEXT_MAX];
    size_t n = 0;

    (void)state;
    buf_init(&text, TOKEN_TEXT_MAX);
    buf_init(&forged, TOKEN_TEXT_MAX);
    assert_int_equal(token_make(keys, TOKEN_ROLE_SERVICE_ACCOUNT, 60, &made, &text), ERR_OK);
    assert_int_equal(token_verify(keys, buf_sv(&text), &t), ERR_OK);
    assert_int_equal(t.role, TOKEN_ROLE_SERVICE_ACCOUNT);
    assert_string_equal(t.id, made.id);
    assert_int_equal(t.expires_at_s, made.expires_at_s);
    assert_int_equal(b64_decode(sv_from_at(buf_sv(&text), 8), wire, sizeof(wire), &n), ERR_OK);
    for (unsigned role = 0; role < 256; role++) {
        buf_reset(&forged);
        wire[2] = (unsigned char)role;
        buf_add_str(&forged, "postern_");
        b64_url_add(&forged, sv_of(wire, n));
        assert_int_equal(token_verify(keys, buf_sv(&forged), &t),
                         role == TOKEN_ROLE_SERVICE_ACCOUNT ? ERR_OK : ERR_CRYPTO);
    }
    keys_free(&keys);
}

static void token_expires_and_knows_its_role(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    struct keys *foreign = keys_of(new_secret, NULL);
    struct token t = { .role = TOKEN_ROLE_NONE };
    CLEANUP(buf_deinit) struct buf text = { 0 };

    (void)state;
    buf_init(&text, TOKEN_TEXT_MAX);
    assert_int_equal(token_make(keys, TOKEN_ROLE_NONE, 60, NULL, &text), ERR_INVALID);
    assert_int_equal(token_make(keys, TOKEN_ROLE_SESSION_ADMIN, 60, NULL, &text), ERR_OK);
    assert_int_equal(token_verify(keys, buf_sv(&text), &t), ERR_OK);
    assert_int_equal(t.role, TOKEN_ROLE_SESSION_ADMIN);
    assert_int_equal(token_verify(foreign, buf_sv(&text), &t), ERR_CRYPTO);
    clock_test_shift(125 * INT64_C(1000));
    assert_int_equal(token_verify(keys, buf_sv(&text), &t), ERR_EXPIRED);
    clock_test_shift(-125 * INT64_C(1000));
    text.p[20] = text.p[20] == 'A' ? 'B' : 'A';
    assert_int_equal(token_verify(keys, buf_sv(&text), &t), ERR_CRYPTO);
    keys_free(&keys);
    keys_free(&foreign);
}

/* A JWS of text, which is header and claims, under the secret that makes tokens. */
static void jwt_of(const struct keys *keys, const char *header, const char *claims, struct buf *out)
{
    unsigned char mac[KEYS_MAC_BYTES];

    buf_reset(out);
    b64_url_add(out, sv_from(header));
    buf_add_str(out, ".");
    b64_url_add(out, sv_from(claims));
    keys_root_mac(keys, 0, buf_sv(out), mac);
    buf_add_str(out, ".");
    b64_url_add(out, sv_of(mac, sizeof(mac)));
    assert_int_equal(out->err, ERR_OK);
}

static void pomeriums_jwt_holds_while_one_of_the_secrets_does(void **state)
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    struct keys *before = keys_of(old_secret, NULL);
    struct keys *during = keys_of(new_secret, old_secret);
    struct keys *after = keys_of(new_secret, NULL);
    char claims[64];
    CLEANUP(buf_deinit) struct buf text = { 0 };

    (void)state;
    buf_init(&text, 2048);
    (void)snprintf(claims, sizeof(claims), "{\"exp\":%lld}", (long long)clock_wall_s() + 3600);
    jwt_of(before, header, claims, &text);
    assert_int_equal(service_jwt_verify(before, buf_sv(&text)), ERR_OK);
    assert_int_equal(service_jwt_verify(during, buf_sv(&text)), ERR_OK);
    assert_int_equal(service_jwt_verify(after, buf_sv(&text)), ERR_CRYPTO);
    clock_test_shift(-100 * INT64_C(1000));
    assert_int_equal(service_jwt_verify(before, buf_sv(&text)), ERR_LIMIT);
    clock_test_shift((100 + 3600 + 100) * INT64_C(1000));
    assert_int_equal(service_jwt_verify(before, buf_sv(&text)), ERR_EXPIRED);
    clock_test_shift(-(3600 + 100) * INT64_C(1000));
    for (size_t i = 0; i < text.n; i++) { /* each letter of it counts */
        text.p[i] ^= 1;
        assert_int_equal(service_jwt_verify(before, buf_sv(&text)), ERR_CRYPTO);
        text.p[i] ^= 1;
    }
    keys_free(&before);
    keys_free(&during);
    keys_free(&after);
}

static void pomeriums_jwt_says_nothing_but_its_end(void **state)
{
    static const char *const headers[] = {
        "{\"alg\":\"none\"}",
        "{\"alg\":\"HS512\"}",
        "{\"alg\":\"RS256\",\"typ\":\"JWT\"}",
        "{\"alg\":\"HS256\",\"kid\":\"1\"}",
        "{\"alg\":\"HS256\",\"typ\":1}",
        "{\"typ\":\"JWT\"}",
        "[]",
        "",
    };
    static const char *const claims[] = {
        "{}", "{\"exp\":\"1\"}", "{\"exp\":1.5}", "{\"exp\":1,\"sub\":\"a\"}", "{\"nbf\":1}", "1",
        "",   "{\"exp\":null}",
    };
    struct keys *keys = keys_of(old_secret, NULL);
    char good[64];
    char huge[1024];
    CLEANUP(buf_deinit) struct buf text = { 0 };

    (void)state;
    buf_init(&text, 4096);
    (void)snprintf(good, sizeof(good), "{\"exp\":%lld}", (long long)clock_wall_s() + 60);
    jwt_of(keys, "{\"alg\":\"HS256\"}", good, &text);
    assert_int_equal(service_jwt_verify(keys, buf_sv(&text)), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        jwt_of(keys, headers[i], good, &text);
        assert_int_equal(service_jwt_verify(keys, buf_sv(&text)), ERR_INVALID);
    }
    for (size_t i = 0; i < ARRAY_LEN(claims); i++) {
        jwt_of(keys, "{\"alg\":\"HS256\"}", claims[i], &text);
        assert_int_equal(service_jwt_verify(keys, buf_sv(&text)), ERR_INVALID);
    }
    (void)snprintf(huge, sizeof(huge), "%s%900s", good, "");
    jwt_of(keys, "{\"alg\":\"HS256\"}", huge, &text);
    assert_int_equal(service_jwt_verify(keys, buf_sv(&text)), ERR_CRYPTO); /* not even looked at */
    keys_free(&keys);
}

/* Ids are one byte, so one rotation in 256 meets this: nobody may be logged out by it. */
static void secrets_that_share_an_id_both_open(void **state)
{
    char twin[33] = "00000000000000000000000000000000";
    struct keys *before = keys_of(old_secret, NULL);
    struct keys *both = NULL;
    struct sealer *sealer = sealer_new(before, KEYS_HANDLE);
    struct token token;
    struct buf sealed;
    struct buf text;
    struct buf plain;
    unsigned i = 0;

    (void)state;
    for (i = 0; both == NULL; i++) {
        assert_in_range(i, 0, 100000);
        (void)snprintf(twin, sizeof(twin), "%032u", i);
        both = keys_of(twin, old_secret);
        if (keys_id(both, 0) != keys_id(both, 1)) {
            keys_free(&both);
        }
    }
    buf_init(&sealed, 1024);
    buf_init(&text, 1024);
    buf_init(&plain, 1024);
    assert_int_equal(seal_make(sealer, SV("handle"), SV("host"), &sealed), ERR_OK);
    assert_int_equal(token_make(before, TOKEN_ROLE_READER, 60, NULL, &text), ERR_OK);
    sealer_free(&sealer);
    sealer = sealer_new(both, KEYS_HANDLE);
    assert_int_equal(seal_open(sealer, buf_sv(&sealed), SV("host"), &plain), ERR_OK);
    assert_true(sv_eq(buf_sv(&plain), SV("handle")));
    assert_int_equal(token_verify(both, buf_sv(&text), &token), ERR_OK);
    assert_int_equal(seal_open(sealer, buf_sv(&sealed), SV("other"), &plain), ERR_CRYPTO);
    assert_int_equal(plain.n, 6);
    sealer_free(&sealer);
    buf_deinit(&sealed);
    buf_deinit(&text);
    buf_deinit(&plain);
    keys_free(&before);
    keys_free(&both);
}

static void link_covers_the_whole_url(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    CLEANUP(buf_deinit) struct buf url = { 0 };
    size_t i = 0;

    (void)state;
    buf_init(&url, LINK_MAX);
    buf_add_str(&url, "https://login.example/.pomerium/sign_in?pomerium_redirect_uri=x");
    assert_int_equal(link_sign(keys, &url), ERR_OK);
    assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_OK);
    for (i = 0; i < url.n; i++) {
        char before = url.p[i];

        url.p[i] = before == '0' ? '1' : '0';
        assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_CRYPTO);
        url.p[i] = before;
    }
    buf_add_str(&url, "&pomerium_redirect_uri=y");
    assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_CRYPTO);
    keys_free(&keys);
}

/* '&' may stand in a path: what ends a parameter is the nearest of both. */
static void link_of_a_url_without_query_is_taken(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    CLEANUP(buf_deinit) struct buf url = { 0 };

    (void)state;
    buf_init(&url, LINK_MAX);
    buf_add_str(&url, "https://app.example/a&b");
    assert_int_equal(link_sign(keys, &url), ERR_OK);
    assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_OK);
    keys_free(&keys);
}

static void link_ends_after_five_minutes(void **state)
{
    struct keys *keys = keys_of(old_secret, NULL);
    CLEANUP(buf_deinit) struct buf url = { 0 };

    (void)state;
    buf_init(&url, LINK_MAX);
    buf_add_str(&url, "https://login.example/.pomerium/sign_out");
    assert_int_equal(link_sign(keys, &url), ERR_OK);
    clock_test_shift(361 * INT64_C(1000));
    assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_EXPIRED);
    clock_test_shift(-(361 + 65) * INT64_C(1000));
    assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_EXPIRED);
    clock_test_shift(65 * INT64_C(1000));
    assert_int_equal(link_verify(keys, buf_sv(&url)), ERR_OK);
    keys_free(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_refuse_wrong_sizes),
        cmocka_unit_test(keys_differ_by_purpose_and_secret),
        cmocka_unit_test(ec_key_is_stable_and_signs),
        cmocka_unit_test(seal_refuses_every_changed_character),
        cmocka_unit_test(handle_is_bound_to_its_host_and_survives_rotation),
        cmocka_unit_test(a_token_of_one_kind_is_none_of_another),
        cmocka_unit_test(token_expires_and_knows_its_role),
        cmocka_unit_test(pomeriums_jwt_holds_while_one_of_the_secrets_does),
        cmocka_unit_test(pomeriums_jwt_says_nothing_but_its_end),
        cmocka_unit_test(secrets_that_share_an_id_both_open),
        cmocka_unit_test(link_covers_the_whole_url),
        cmocka_unit_test(link_of_a_url_without_query_is_taken),
        cmocka_unit_test(link_ends_after_five_minutes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
