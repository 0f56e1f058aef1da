#include "test/support/pki.h"

#include <stdio.h>
#include <string.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/mem.h"

static char *bio_take(BIO *bio)
{
    char *text = NULL;
    long n = BIO_get_mem_data(bio, &text);
    char *copy = mem_alloc((size_t)n + 1);

    memcpy(copy, text, (size_t)n);
    copy[n] = '\0';
    BIO_free(bio);
    return copy;
}

static EVP_PKEY *make_key(enum pki_kind kind)
{
    switch (kind) {
    case PKI_P256:
        return EVP_EC_gen("P-256");
    case PKI_P384:
        return EVP_EC_gen("P-384");
    case PKI_RSA2048:
        return EVP_RSA_gen(2048);
    case PKI_ED25519:
        return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    }
    return NULL;
}

static void add_name(X509 *cert, const char *name)
{
    char text[300];
    X509_EXTENSION *san = NULL;

    (void)snprintf(text, sizeof(text), "DNS:%s", name);
    san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, text);
    CHECK(san != NULL && X509_add_ext(cert, san, -1) == 1);
    X509_EXTENSION_free(san);
}

static void set_life(X509 *cert)
{
    CHECK(X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(cert), 90L * 86400) != NULL);
}

static void set_subject(X509 *cert, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(cert);

    CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                     -1, 0) == 1);
    CHECK(X509_set_issuer_name(cert, subject) == 1);
    add_name(cert, name);
}

/* 90 days, signed by itself. */
static X509 *make_cert(enum pki_kind kind, const char *name, EVP_PKEY *key)
{
    X509 *cert = X509_new();

    CHECK(key != NULL && cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(cert), 7) == 1);
    set_life(cert);
    set_subject(cert, name);
    CHECK(X509_set_pubkey(cert, key) == 1);
    CHECK(X509_sign(cert, key, kind == PKI_ED25519 ? NULL : EVP_sha256()) > 0);
    return cert;
}

struct pki_pair pki_pair_new(enum pki_kind kind, const char *name)
{
    struct pki_pair pair = { .cert = NULL };
    EVP_PKEY *key = make_key(kind);
    X509 *cert = make_cert(kind, name, key);
    BIO *cert_bio = BIO_new(BIO_s_mem());
    BIO *key_bio = BIO_new(BIO_s_mem());

    CHECK(cert_bio != NULL && key_bio != NULL);
    CHECK(PEM_write_bio_X509(cert_bio, cert) == 1);
    CHECK(PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    pair.cert = bio_take(cert_bio);
    pair.key = bio_take(key_bio);
    X509_free(cert);
    EVP_PKEY_free(key);
    return pair;
}

void pki_pair_deinit(struct pki_pair *pair)
{
    mem_free(&pair->cert);
    mem_free(&pair->key);
}

char *pki_sealed_key(const char *key_pem, const char *passphrase)
{
    BIO *in = BIO_new_mem_buf(key_pem, -1);
    BIO *out = BIO_new(BIO_s_mem());
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);

    CHECK(key != NULL && out != NULL);
    CHECK(PEM_write_bio_PKCS8PrivateKey(out, key, EVP_aes_256_cbc(), passphrase,
                                        (int)strlen(passphrase), NULL, NULL) == 1);
    EVP_PKEY_free(key);
    BIO_free(in);
    return bio_take(out);
}
