#include "common/crypto/keypair.h"

#include <string.h>
#include <time.h>

#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/mem.h"

struct keypair {
    int refs; /* atomic */
    uint8_t id[KEYPAIR_ID_SIZE];
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    int64_t ends_s;
};

/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's */
static int no_passphrase(char *out, int room, int writing, void *arg)
{
    (void)out;
    (void)room;
    (void)writing;
    (void)arg;
    return -1;
}

int64_t keypair_time_s(const ASN1_TIME *time)
{
    struct tm tm = { 0 };

    return time != NULL && ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

void keypair_id_of(struct sv cert_pem, struct sv key_pem, uint8_t id_out[KEYPAIR_ID_SIZE])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint64_t n = cert_pem.n; /* in front: no two pairs of texts join to the same bytes */

    CHECK(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
          EVP_DigestUpdate(md, &n, sizeof(n)) == 1 &&
          EVP_DigestUpdate(md, cert_pem.p, cert_pem.n) == 1 &&
          EVP_DigestUpdate(md, key_pem.p, key_pem.n) == 1 &&
          EVP_DigestFinal_ex(md, id_out, NULL) == 1);
    EVP_MD_CTX_free(md);
}

static enum err read_certificates(struct keypair *k, BIO *bio, struct diag *d)
{
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);

    k->leaf = cert;
    k->chain = sk_X509_new_null();
    CHECK(k->chain != NULL);
    while (cert != NULL && sk_X509_num(k->chain) <= KEYPAIR_CHAIN_MAX) {
        cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
        CHECK(cert == NULL || sk_X509_push(k->chain, cert) > 0);
    }
    if (k->leaf == NULL) {
        diag_set(d, "there is no certificate in it");
        return ERR_INVALID;
    }
    if (cert != NULL) {
        diag_set(d, "its chain has more than %d certificates", KEYPAIR_CHAIN_MAX);
        return ERR_LIMIT;
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
        diag_set(d, "a certificate in it is damaged");
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* Finding the decoders is nine tenths of what reading a key costs (310 us against 35), so each
 * thread finds them once; PEM_read_bio_PrivateKey would look for them each time. */
static EVP_PKEY *decode_key(BIO *bio)
{
    static _Thread_local OSSL_DECODER_CTX *decoder;
    static _Thread_local EVP_PKEY *key;

    if (decoder == NULL) {
        decoder =
            OSSL_DECODER_CTX_new_for_pkey(&key, "PEM", NULL, NULL, EVP_PKEY_KEYPAIR, NULL, NULL);
        CHECK(decoder != NULL &&
              OSSL_DECODER_CTX_set_pem_password_cb(decoder, no_passphrase, NULL) == 1);
    }
    if (OSSL_DECODER_from_bio(decoder, bio) != 1) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return TAKE(key);
}

static enum err read_key(struct keypair *k, BIO *bio, struct diag *d)
{
    k->key = decode_key(bio);
    if (k->key == NULL) {
        diag_set(d, "the key cannot be read; a key with a passphrase cannot be used");
        return ERR_INVALID;
    }
    if (X509_check_private_key(k->leaf, k->key) != 1) {
        diag_set(d, "certificate and key do not belong together");
        return ERR_INVALID;
    }
    return ERR_OK;
}

enum err keypair_of_pem(struct sv cert_pem, struct sv key_pem, struct keypair **keypair_out,
                        struct diag *d)
{
    CLEANUP(keypair_unref) struct keypair *k = NULL;
    BIO *certs = NULL;
    BIO *key = NULL;
    enum err err = ERR_OK;

    if (cert_pem.n > KEYPAIR_TEXT_MAX || key_pem.n > KEYPAIR_TEXT_MAX) {
        diag_set(d, "it is too long");
        return ERR_LIMIT;
    }
    k = MEM_NEW(struct keypair);
    k->refs = 1;
    certs = BIO_new_mem_buf(cert_pem.n == 0 ? "" : cert_pem.p, (int)cert_pem.n);
    key = BIO_new_mem_buf(key_pem.n == 0 ? "" : key_pem.p, (int)key_pem.n);
    CHECK(certs != NULL && key != NULL);
    ERR_clear_error();
    err = read_certificates(k, certs, d);
    err = err != ERR_OK ? err : read_key(k, key, d);
    ERR_clear_error();
    BIO_free(certs);
    BIO_free(key);
    if (err != ERR_OK) {
        return err;
    }
    keypair_id_of(cert_pem, key_pem, k->id);
    k->ends_s = keypair_time_s(X509_get0_notAfter(k->leaf));
    *keypair_out = TAKE(k);
    return ERR_OK;
}

struct keypair *keypair_ref(struct keypair *keypair)
{
    (void)__atomic_add_fetch(&keypair->refs, 1, __ATOMIC_RELAXED);
    return keypair;
}

void keypair_unref(struct keypair **keypair)
{
    struct keypair *k = TAKE(*keypair);

    if (k == NULL || __atomic_sub_fetch(&k->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    X509_free(k->leaf);
    sk_X509_pop_free(k->chain, X509_free);
    EVP_PKEY_free(k->key);
    mem_free(&k);
}

struct sv keypair_id(const struct keypair *keypair)
{
    return sv_of(keypair->id, sizeof(keypair->id));
}

X509 *keypair_leaf(const struct keypair *keypair)
{
    return keypair->leaf;
}

STACK_OF(X509) * keypair_chain(const struct keypair *keypair)
{
    return keypair->chain;
}

EVP_PKEY *keypair_key(const struct keypair *keypair)
{
    return keypair->key;
}

int64_t keypair_ends_s(const struct keypair *keypair)
{
    return keypair->ends_s;
}
