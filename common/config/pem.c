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
    char *out = arena_alloc(r->arena, text.n + 1);
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
    bytes = arena_alloc(r->arena, room + 1);
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

bool config_pem_crls(struct config_reader *r, const struct config_value *v, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509_CRL *crl = NULL;
    size_t n = 0;
    bool ends_well = false;

    CHECK(bio != NULL);
    for (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL); crl != NULL;
         crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) {
        X509_CRL_free(crl);
        n++;
    }
    ends_well = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (n == 0 || !ends_well) {
        config_error(r, v->place, "%s: %s", v->key,
                     n == 0 ? "there is no list of revoked certificates (X509 CRL) in it"
                            : "a list in it is damaged");
        return false;
    }
    return true;
}

/* --- pairs --------------------------------------------------------------------------------------- */

static void add_pair(struct config_reader *r, struct keypair *pair)
{
    if (pair != NULL) {
        (void)map_set(r->pairs, keypair_id(pair), pair);
    }
}

/* Reading a certificate and its key takes half a millisecond; 10,000 that did not change need not
 * be read again because one did. */
static struct keypair *known_pair(struct config_reader *r, struct sv cert, struct sv key)
{
    const struct config *before = r->opts->previous;
    uint8_t id[KEYPAIR_ID_SIZE];

    if (before == NULL) {
        return NULL;
    }
    if (r->pairs == NULL) {
        r->pairs = map_new();
        for (size_t i = 0; i < before->n_certificates; i++) {
            add_pair(r, before->certificates[i].pair);
        }
        for (size_t i = 0; i < before->n_routes; i++) {
            add_pair(r, before->routes[i].client_pair);
        }
    }
    keypair_id_of(cert, key, id);
    return map_get(r->pairs, sv_of(id, sizeof(id)));
}

struct keypair *config_pem_try_pair(struct config_reader *r, struct sv cert, struct sv key,
                                    struct diag *d)
{
    struct keypair *pair = known_pair(r, cert, key);

    if (pair != NULL) {
        return keypair_ref(pair);
    }
    return keypair_of_pem(cert, key, &pair, d) == ERR_OK ? pair : NULL;
}

struct keypair *config_pem_pair(struct config_reader *r, const struct config_value *v,
                                struct sv cert, struct sv key)
{
    struct diag d = { .line = 0 };
    struct keypair *pair = config_pem_try_pair(r, cert, key, &d);

    if (pair == NULL) {
        config_error(r, v->place, "%s: %s", v->key, d.text);
    }
    return pair;
}

/* --- CAs and their lists ------------------------------------------------------------------------- */

static bool lists_issuer(struct sv crls, const X509_NAME *name)
{
    BIO *bio = BIO_new_mem_buf(crls.p, (int)crls.n);
    X509_CRL *crl = NULL;
    bool found = false;

    CHECK(bio != NULL);
    for (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL); crl != NULL && !found;
         crl = found ? NULL : PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) {
        found = X509_NAME_cmp(X509_CRL_get_issuer(crl), name) == 0;
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
    return found;
}

static const char *name_text(struct config_reader *r, const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const char *text = NULL;
    long n = 0;

    CHECK(bio != NULL);
    (void)X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253);
    n = BIO_get_mem_data(bio, &text);
    text = config_keep(r, sv_of(text, n < 0 ? 0 : (size_t)n)).p;
    BIO_free(bio);
    return text;
}

const char *config_pem_unlisted(struct config_reader *r, struct sv cas, struct sv crls)
{
    BIO *bio = BIO_new_mem_buf(cas.p, (int)cas.n);
    X509 *ca = NULL;
    const char *missing = NULL;

    CHECK(bio != NULL);
    for (ca = read_leaf(bio); ca != NULL; ca = missing != NULL ? NULL : read_leaf(bio)) {
        if (!lists_issuer(crls, X509_get_subject_name(ca))) {
            missing = name_text(r, X509_get_subject_name(ca));
        }
        X509_free(ca);
    }
    BIO_free(bio);
    ERR_clear_error();
    return missing;
}
