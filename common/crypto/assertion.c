#include "common/crypto/assertion.h"

#include <string.h>

#include <jose/b64.h>
#include <jose/jwk.h>
#include <jose/jws.h>
#include <jose/openssl.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/secret.h"

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, THUMBPRINT_BYTES = 32, JWKS_MAX = 32 * 1024 };

struct assertion_key {
    json_t *jwk; /* private, with alg and kid */
    char kid[ASSERTION_KID_SIZE];
    const char *alg; /* "ES256" or "RS256" */
};

struct assertion_keys {
    struct assertion_key key[ASSERTION_KEYS_MAX];
    size_t count;
    char *jwks;
};

/* --- loading ---------------------------------------------------------------------------------- */

static struct assertion_keys *keys_empty(void)
{
    return MEM_NEW(struct assertion_keys);
}

void assertion_keys_free(struct assertion_keys **keys)
{
    if (*keys == NULL) {
        return;
    }
    for (size_t i = 0; i < (*keys)->count; i++) {
        json_decref((*keys)->key[i].jwk);
    }
    mem_free(&(*keys)->jwks);
    mem_free(keys);
}

/* The signature algorithm for a key; NULL for kinds and sizes we refuse. */
static const char *alg_of(const EVP_PKEY *pkey)
{
    char group[32] = "";

    if (EVP_PKEY_is_a(pkey, "RSA")) {
        int bits = EVP_PKEY_get_bits(pkey);
        return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX ? "RS256" : NULL;
    }
    if (EVP_PKEY_is_a(pkey, "EC") &&
        EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) == 1 &&
        strcmp(group, "prime256v1") == 0) {
        return "ES256";
    }
    return NULL;
}

static enum err key_init(struct assertion_key *key, EVP_PKEY *pkey)
{
    uint8_t thumbprint[THUMBPRINT_BYTES];
    struct buf kid;

    key->alg = alg_of(pkey);
    if (key->alg == NULL) {
        return ERR_INVALID;
    }
    key->jwk = jose_openssl_jwk_from_EVP_PKEY(NULL, pkey);
    if (key->jwk == NULL || json_object_get(key->jwk, "d") == NULL ||
        jose_jwk_thp_buf(NULL, key->jwk, "S256", thumbprint, sizeof(thumbprint)) !=
            sizeof(thumbprint)) {
        json_decref(key->jwk);
        key->jwk = NULL;
        return ERR_INVALID;
    }
    buf_init(&kid, ASSERTION_KID_SIZE);
    hex_add(&kid, sv_of(thumbprint, sizeof(thumbprint)));
    CHECK(kid.n == ASSERTION_KID_SIZE - 1);
    memcpy(key->kid, kid.p, kid.n);
    buf_deinit(&kid);
    CHECK(json_object_set_new(key->jwk, "alg", json_string(key->alg)) == 0);
    CHECK(json_object_set_new(key->jwk, "kid", json_string(key->kid)) == 0);
    return ERR_OK;
}

static enum err keys_add(struct assertion_keys *keys, EVP_PKEY *pkey)
{
    if (keys->count == ASSERTION_KEYS_MAX) {
        return ERR_LIMIT;
    }
    enum err err = key_init(&keys->key[keys->count], pkey);
    if (err == ERR_OK) {
        keys->count++;
    }
    return err;
}

static int add_text(const char *text, size_t n, void *arg)
{
    struct buf *out = arg;

    buf_add(out, text, n);
    return 0;
}

/* The public half of a key; NULL: it has none. */
static json_t *key_public(const struct assertion_key *key)
{
    json_t *pub = json_deep_copy(key->jwk);

    if (pub == NULL || !jose_jwk_pub(NULL, pub) || json_object_get(pub, "d") != NULL ||
        json_object_set_new(pub, "use", json_string("sig")) != 0) {
        json_decref(pub);
        return NULL;
    }
    (void)json_object_del(pub, "key_ops");
    return pub;
}

/* The public text, once all keys are in. */
static enum err keys_publish(struct assertion_keys *keys)
{
    json_t *list = json_array();
    json_t *jwks = json_pack("{s:o}", "keys", list);
    enum err err = ERR_OK;
    struct buf text;

    for (size_t i = 0; i < keys->count && err == ERR_OK; i++) {
        /* Appending NULL fails. */
        err = json_array_append_new(list, key_public(&keys->key[i])) == 0 ? ERR_OK : ERR_CRYPTO;
    }
    buf_init(&text, JWKS_MAX);
    if (err == ERR_OK) {
        err = json_dump_callback(jwks, add_text, &text, JSON_COMPACT) == 0 ? text.err : ERR_CRYPTO;
        keys->jwks = buf_take(&text);
    }
    buf_deinit(&text);
    json_decref(jwks);
    return err;
}

/* Never ask a terminal for a passphrase: a daemon has none. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

enum err assertion_keys_of_pem(struct sv pem, struct assertion_keys **keys_out, struct diag *d)
{
    CLEANUP(assertion_keys_free) struct assertion_keys *keys = keys_empty();

    if (pem.n == 0 || pem.n > ASSERTION_PEM_MAX) {
        diag_set(d, "the signing key is empty or longer than %d bytes", ASSERTION_PEM_MAX);
        return ERR_INVALID;
    }
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    enum err err = ERR_OK;

    CHECK(bio != NULL);
    while (err == ERR_OK) {
        EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

        if (pkey == NULL) {
            break;
        }
        err = keys_add(keys, pkey);
        EVP_PKEY_free(pkey);
    }
    BIO_free(bio);
    if (err == ERR_LIMIT) {
        diag_set(d, "more than %d signing keys", ASSERTION_KEYS_MAX);
        return ERR_INVALID;
    }
    if (err != ERR_OK) {
        diag_set(d, "a signing key must be EC P-256 or RSA of %d to %d bits", RSA_BITS_MIN,
                 RSA_BITS_MAX);
        return ERR_INVALID;
    }
    if (keys->count == 0) {
        diag_set(d, "the signing key holds no PEM private key without passphrase");
        return ERR_INVALID;
    }
    err = keys_publish(keys);
    if (err != ERR_OK) {
        diag_set(d, "the signing key has no public form");
        return ERR_INVALID;
    }
    *keys_out = TAKE(keys);
    return ERR_OK;
}

enum err assertion_keys_of_shared(const struct keys *shared, struct assertion_keys **keys_out)
{
    CLEANUP(assertion_keys_free) struct assertion_keys *keys = keys_empty();

    for (size_t slot = 0; slot < keys_slots(shared); slot++) {
        EVP_PKEY *pkey = keys_ec_p256(shared, slot, KEYS_ASSERTION);
        enum err err = keys_add(keys, pkey);

        EVP_PKEY_free(pkey);
        if (err != ERR_OK) {
            return err;
        }
    }
    enum err err = keys_publish(keys);
    if (err != ERR_OK) {
        return err;
    }
    *keys_out = TAKE(keys);
    return ERR_OK;
}

struct sv assertion_jwks(const struct assertion_keys *keys)
{
    return sv_from(keys->jwks);
}

const char *assertion_kid(const struct assertion_keys *keys)
{
    return keys->key[0].kid;
}

/* --- signing ---------------------------------------------------------------------------------- */

static void add_token(struct buf *out, const json_t *jws)
{
    buf_add_str(out, json_string_value(json_object_get(jws, "protected")));
    buf_add_char(out, '.');
    buf_add_str(out, json_string_value(json_object_get(jws, "payload")));
    buf_add_char(out, '.');
    buf_add_str(out, json_string_value(json_object_get(jws, "signature")));
}

enum err assertion_sign(const struct assertion_keys *keys, const json_t *claims, struct buf *out)
{
    const struct assertion_key *key = &keys->key[0];
    enum err err = ERR_CRYPTO;

    if (!json_is_object(claims)) {
        return ERR_INVALID;
    }
    json_t *payload = jose_b64_enc_dump(claims);
    json_t *jws = json_pack("{s:o}", "payload", payload);
    json_t *sig =
        json_pack("{s:{s:s,s:s,s:s}}", "protected", "alg", key->alg, "typ", "JWT", "kid", key->kid);

    if (jws != NULL && json_string_length(payload) > ASSERTION_TOKEN_MAX - 1024) {
        err = ERR_LIMIT;
    } else if (jws != NULL && sig != NULL && jose_jws_sig(NULL, jws, sig, key->jwk)) {
        add_token(out, jws);
        err = out->err;
    }
    json_decref(sig);
    json_decref(jws);
    return err;
}

/* --- verifying -------------------------------------------------------------------------------- */

static const struct assertion_key *key_named(const struct assertion_keys *keys, const char *kid)
{
    for (size_t i = 0; kid != NULL && i < keys->count; i++) {
        if (strcmp(keys->key[i].kid, kid) == 0) {
            return &keys->key[i];
        }
    }
    return NULL;
}

/* A base64url part of the token as a JSON object; NULL if it is none. */
static json_t *part_load(struct sv part)
{
    uint8_t plain[ASSERTION_TOKEN_MAX];
    size_t n = 0;
    json_t *tree = NULL;

    if (b64_decode(part, plain, sizeof(plain), &n) == ERR_OK) {
        tree = json_loadb((const char *)plain, n, JSON_REJECT_DUPLICATES, NULL);
    }
    if (!json_is_object(tree)) {
        json_decref(tree);
        return NULL;
    }
    return tree;
}

static bool audience_fits(const json_t *aud, struct sv audience)
{
    if (json_is_string(aud)) {
        return sv_eq(sv_of(json_string_value(aud), json_string_length(aud)), audience);
    }
    for (size_t i = 0; i < json_array_size(aud); i++) {
        const json_t *one = json_array_get(aud, i);

        if (json_is_string(one) &&
            sv_eq(sv_of(json_string_value(one), json_string_length(one)), audience)) {
            return true;
        }
    }
    return false;
}

static enum err claims_fit(const json_t *claims, struct sv audience)
{
    const json_t *exp = json_object_get(claims, "exp");
    const json_t *nbf = json_object_get(claims, "nbf");
    const json_t *iat = json_object_get(claims, "iat");
    json_int_t now = clock_wall_s();

    if (!json_is_integer(exp) || !json_is_integer(iat) || (nbf != NULL && !json_is_integer(nbf))) {
        return ERR_INVALID;
    }
    if (json_integer_value(exp) <= now - ASSERTION_LEEWAY_S ||
        json_integer_value(iat) > now + ASSERTION_LEEWAY_S ||
        (nbf != NULL && json_integer_value(nbf) > now + ASSERTION_LEEWAY_S)) {
        return ERR_EXPIRED;
    }
    return audience_fits(json_object_get(claims, "aud"), audience) ? ERR_OK : ERR_DENIED;
}

/* The token's own words about algorithm and type count only as far as they equal the key's. */
static const struct assertion_key *key_for(const struct assertion_keys *keys, const json_t *header)
{
    const struct assertion_key *key =
        key_named(keys, json_string_value(json_object_get(header, "kid")));
    const char *alg = json_string_value(json_object_get(header, "alg"));
    const char *typ = json_string_value(json_object_get(header, "typ"));

    if (key == NULL || alg == NULL || strcmp(alg, key->alg) != 0 || typ == NULL ||
        strcmp(typ, "JWT") != 0 || json_object_get(header, "crit") != NULL) {
        return NULL;
    }
    return key;
}

static enum err signature_fits(const struct assertion_key *key, const struct sv part[3])
{
    enum err err = ERR_CRYPTO;
    json_t *jws = json_pack("{s:s%,s:s%,s:s%}", "protected", part[0].p, part[0].n, "payload",
                            part[1].p, part[1].n, "signature", part[2].p, part[2].n);

    if (jws != NULL && jose_jws_ver(NULL, jws, NULL, key->jwk, true)) {
        err = ERR_OK;
    }
    json_decref(jws);
    return err;
}

static enum err token_split(struct sv token, struct sv part[3])
{
    for (size_t i = 0; i < 3; i++) {
        part[i] = sv_cut(&token, '.');
        if (part[i].n == 0) {
            return ERR_INVALID;
        }
    }
    return token.p == NULL ? ERR_OK : ERR_INVALID;
}

enum err assertion_verify(const struct assertion_keys *keys, struct sv token, struct sv audience,
                          json_t **claims_out)
{
    struct sv part[3];

    if (token.n > ASSERTION_TOKEN_MAX) {
        return ERR_LIMIT;
    }
    if (token_split(token, part) != ERR_OK) {
        return ERR_INVALID;
    }
    json_t *header = part_load(part[0]);
    const struct assertion_key *key = header != NULL ? key_for(keys, header) : NULL;
    enum err err = key != NULL ? signature_fits(key, part) : ERR_CRYPTO;

    if (header == NULL) {
        err = ERR_INVALID;
    }
    json_decref(header);
    if (err != ERR_OK) {
        return err;
    }
    json_t *claims = part_load(part[1]);
    err = claims != NULL ? claims_fit(claims, audience) : ERR_INVALID;
    if (err != ERR_OK) {
        json_decref(claims);
        return err;
    }
    *claims_out = claims;
    return ERR_OK;
}
