#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/b64.h"
#include "common/config/reader.h"
#include "common/mem.h"

static bool is_pem(struct sv text)
{
    return sv_search(text, SV("-----BEGIN ")) != SIZE_MAX;
}

/* base64 as files and `base64` write it: with line breaks. */
static struct sv without_blanks(struct config_reader *r, struct sv text)
{
    char *out = arena_alloc(&r->box->arena, text.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '\n' && text.p[i] != '\r' && text.p[i] != ' ' && text.p[i] != '\t') {
            out[n++] = text.p[i];
        }
    }
    return sv_of(out, n);
}

struct sv config_pem_text(struct config_reader *r, struct sv text)
{
    struct sv plain = { 0 };
    char *bytes = NULL;
    size_t n = 0;
    size_t room = 0;

    if (is_pem(text)) {
        return config_keep(r, text);
    }
    plain = without_blanks(r, text);
    room = b64_decoded_max(plain.n);
    bytes = arena_alloc(&r->box->arena, room + 1);
    if (plain.n == 0 || b64_decode(plain, bytes, room, &n) != ERR_OK || !is_pem(sv_of(bytes, n))) {
        return (struct sv){ 0 };
    }
    return config_keep(r, sv_of(bytes, n));
}

static X509 *read_leaf(BIO *bio)
{
    return PEM_read_bio_X509(bio, NULL, NULL, NULL);
}

bool config_pem_certs(struct config_reader *r, const struct config_value *v, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = NULL;
    size_t n = 0;
    bool ends_well = false;

    CHECK(bio != NULL);
    for (cert = read_leaf(bio); cert != NULL; cert = read_leaf(bio)) {
        X509_free(cert);
        n++;
    }
    ends_well = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (n == 0 || !ends_well) {
        config_error(r, v->place, "%s: %s", v->key,
                     n == 0 ? "there is no certificate in it" : "a certificate in it is damaged");
        return false;
    }
    return true;
}

/* A key with a passphrase is an error, never a question on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's */
static int no_passphrase(char *out, int room, int writing, void *arg)
{
    (void)out;
    (void)room;
    (void)writing;
    (void)arg;
    return -1;
}

bool config_pem_pair(struct config_reader *r, const struct config_value *v, struct sv cert,
                     struct sv key)
{
    BIO *cert_bio = BIO_new_mem_buf(cert.p, (int)cert.n);
    BIO *key_bio = BIO_new_mem_buf(key.p, (int)key.n);
    X509 *leaf = read_leaf(cert_bio);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(key_bio, NULL, no_passphrase, NULL);
    const char *why = NULL;

    if (leaf == NULL) {
        why = "there is no certificate in it";
    } else if (pkey == NULL) {
        why = "the key cannot be read; a key with a passphrase cannot be used";
    } else if (X509_check_private_key(leaf, pkey) != 1) {
        why = "certificate and key do not belong together";
    }
    if (why != NULL) {
        config_error(r, v->place, "%s: %s", v->key, why);
    }
    ERR_clear_error();
    X509_free(leaf);
    EVP_PKEY_free(pkey);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    return why == NULL;
}
