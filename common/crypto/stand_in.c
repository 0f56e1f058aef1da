#include "common/crypto/stand_in.h"

#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/rand.h"

enum { LIFE_S = 365 * 86400 };

static X509 *certificate_of(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *name = NULL;

    CHECK(cert != NULL);
    name = X509_get_subject_name(cert);
    CHECK(X509_set_version(cert, X509_VERSION_3) == 1 &&
          ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), rand_u64() >> 1) == 1 &&
          X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != NULL &&
          X509_gmtime_adj(X509_getm_notAfter(cert), LIFE_S) != NULL &&
          X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                     (const unsigned char *)"no certificate yet", -1, -1, 0) == 1 &&
          X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
          X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

static struct sv text_in(BIO *bio)
{
    char *text = NULL;
    long n = BIO_get_mem_data(bio, &text);

    return sv_of(text, (size_t)n);
}

struct keypair *stand_in_new(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = NULL;
    BIO *cert_pem = BIO_new(BIO_s_secmem());
    BIO *key_pem = BIO_new(BIO_s_secmem());
    struct keypair *pair = NULL;

    CHECK(key != NULL && cert_pem != NULL && key_pem != NULL);
    cert = certificate_of(key);
    CHECK(PEM_write_bio_X509(cert_pem, cert) == 1 &&
          PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) == 1 &&
          keypair_of_pem(text_in(cert_pem), text_in(key_pem), &pair, NULL) == ERR_OK);
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(cert_pem);
    BIO_free(key_pem);
    return pair;
}
