#include "common/crypto/keys.h"

#include <stdio.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>

#include "common/mem.h"

struct keys {
    size_t n;
    struct secret *root[KEYS_SLOTS_MAX];
    uint8_t id[KEYS_SLOTS_MAX];
};

enum { LABEL_MAX = 64, EC_SEED = 48, EC_POINT_MAX = 80 };

static const char *purpose_label(enum keys_purpose purpose)
{
    switch (purpose) {
    case KEYS_HANDLE:
        return "postern session handle 1";
    case KEYS_LOGIN_STATE:
        return "postern login state 1";
    case KEYS_LOGIN_CODE:
        return "postern login code 1";
    case KEYS_LINK:
        return "postern signed link 1";
    case KEYS_TOKEN:
        return "postern client token 1";
    case KEYS_TOKEN_AT_REST:
        return "postern provider token at rest 1";
    case KEYS_ASSERTION:
        return "postern assertion key 1";
    case KEYS_INTERNAL_CA:
        return "postern internal ca 1";
    case KEYS_FORM:
        return "postern form 1";
    case KEYS_TICKET:
        return "postern session ticket 1";
    case KEYS_SERVICE_ACCOUNT:
        return "postern service account 1";
    case KEYS_PROOF:
        return "postern unix proof 1";
    case KEYS_AUDIT:
        return "postern audit chain 1";
    case KEYS_DATA_KEY:
        return "postern store data key 1";
    }
    CHECK(!"a purpose without a label");
    return NULL;
}

static void expand(struct sv root, const char *label, void *out, size_t n)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    char digest[] = "SHA256";
    char info[LABEL_MAX];
    /* OpenSSL's parameters are not const, but it only reads them. */
    OSSL_PARAM params[4];
    char key[KEYS_SECRET_BYTES];

    CHECK(ctx != NULL && root.n == sizeof(key));
    (void)snprintf(info, sizeof(info), "%s", label);
    memcpy(key, root.p, sizeof(key));
    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, sizeof(key));
    params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, strlen(info));
    params[3] = OSSL_PARAM_construct_end();
    CHECK(EVP_KDF_derive(ctx, out, n, params) == 1);
    secret_wipe(key, sizeof(key));
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
}

enum err keys_new(const struct secret *const *secrets, size_t n, struct keys **keys_out)
{
    struct keys *keys = NULL;
    size_t i = 0;

    if (n < 1 || n > KEYS_SLOTS_MAX) {
        return ERR_INVALID;
    }
    for (i = 0; i < n; i++) {
        if (secret_bytes(secrets[i]).n != KEYS_SECRET_BYTES) {
            return ERR_INVALID;
        }
    }
    keys = MEM_NEW(struct keys);
    keys->n = n;
    for (i = 0; i < n; i++) {
        keys->root[i] = secret_new(secret_bytes(secrets[i]));
        expand(secret_bytes(secrets[i]), "postern key id 1", &keys->id[i], 1);
    }
    *keys_out = keys;
    return ERR_OK;
}

void keys_free(struct keys **keys)
{
    struct keys *k = TAKE(*keys);
    size_t i = 0;

    if (k == NULL) {
        return;
    }
    for (i = 0; i < k->n; i++) {
        secret_free(&k->root[i]);
    }
    mem_free(&k);
}

size_t keys_slots(const struct keys *keys)
{
    return keys->n;
}

uint8_t keys_id(const struct keys *keys, size_t slot)
{
    CHECK(slot < keys->n);
    return keys->id[slot];
}

size_t keys_slot_of(const struct keys *keys, uint8_t id, size_t from)
{
    size_t i = 0;

    for (i = from; i < keys->n; i++) {
        if (keys->id[i] == id) {
            return i;
        }
    }
    return SIZE_MAX;
}

void keys_derive(const struct keys *keys, size_t slot, enum keys_purpose purpose, void *out,
                 size_t n)
{
    CHECK(slot < keys->n && n <= KEYS_MATERIAL_MAX);
    expand(secret_bytes(keys->root[slot]), purpose_label(purpose), out, n);
}

void keys_root_mac(const struct keys *keys, size_t slot, struct sv text,
                   unsigned char mac_out[KEYS_MAC_BYTES])
{
    struct sv root = { 0 };
    unsigned n = 0;

    CHECK(slot < keys->n);
    root = secret_bytes(keys->root[slot]);
    CHECK(HMAC(EVP_sha256(), root.p, (int)root.n, (const unsigned char *)text.p, text.n, mac_out,
               &n) != NULL &&
          n == KEYS_MAC_BYTES);
}

/* The scalar is seed mod (order - 1) + 1: never 0, bias below 2^-128 from 48 bytes. */
static BIGNUM *scalar_of(const unsigned char seed[EC_SEED], const EC_GROUP *group, BN_CTX *bn)
{
    BIGNUM *d = BN_bin2bn(seed, EC_SEED, NULL);
    BIGNUM *top = BN_dup(EC_GROUP_get0_order(group));

    CHECK(d != NULL && top != NULL);
    CHECK(BN_sub_word(top, 1) == 1 && BN_mod(d, d, top, bn) == 1 && BN_add_word(d, 1) == 1);
    BN_free(top);
    return d;
}

static EVP_PKEY *key_of(const BIGNUM *d, const unsigned char *point, size_t point_n)
{
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;

    CHECK(bld != NULL && ctx != NULL);
    CHECK(OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1);
    CHECK(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_PRIV_KEY, d) == 1);
    CHECK(OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, point_n) == 1);
    params = OSSL_PARAM_BLD_to_param(bld);
    CHECK(params != NULL && EVP_PKEY_fromdata_init(ctx) == 1);
    CHECK(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) == 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

EVP_PKEY *keys_ec_p256(const struct keys *keys, size_t slot, enum keys_purpose purpose)
{
    unsigned char seed[EC_SEED];
    unsigned char point[EC_POINT_MAX];
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BN_CTX *bn = BN_CTX_new();
    EC_POINT *q = NULL;
    BIGNUM *d = NULL;
    EVP_PKEY *key = NULL;
    size_t n = 0;

    CHECK(group != NULL && bn != NULL);
    keys_derive(keys, slot, purpose, seed, sizeof(seed));
    d = scalar_of(seed, group, bn);
    q = EC_POINT_new(group);
    CHECK(q != NULL && EC_POINT_mul(group, q, d, NULL, NULL, bn) == 1);
    n = EC_POINT_point2oct(group, q, POINT_CONVERSION_UNCOMPRESSED, point, sizeof(point), bn);
    CHECK(n != 0);
    key = key_of(d, point, n);
    secret_wipe(seed, sizeof(seed));
    BN_clear_free(d);
    EC_POINT_free(q);
    BN_CTX_free(bn);
    EC_GROUP_free(group);
    return key;
}
