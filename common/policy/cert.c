#include "common/policy/cert.h"

#include <string.h>

#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "common/arena.h"
#include "common/mem.h"

struct policy_cert_facts {
    struct arena arena;
    struct policy_cert cert;
};

const struct policy_cert *policy_cert_get(const struct policy_cert_facts *facts)
{
    return &facts->cert;
}

void policy_cert_free(struct policy_cert_facts **facts)
{
    if (*facts != NULL) {
        arena_deinit(&(*facts)->arena);
        mem_free(facts);
    }
}

/* The names of one kind into *names_out. */
static enum err take_sans(struct policy_cert_facts *facts, const GENERAL_NAMES *sans, int kind,
                          const struct sv **names_out, size_t *count_out)
{
    int total = sk_GENERAL_NAME_num(sans);
    struct sv *names = NULL;
    size_t n = 0;
    int i = 0;

    if (total <= 0) {
        return ERR_OK;
    }
    names = arena_alloc(&facts->arena, (size_t)total * sizeof(*names));
    for (i = 0; i < total; i++) {
        const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);
        struct sv text = { 0 };

        if (san->type != kind) {
            continue;
        }
        /* e-mail, DNS and URI share the representation */
        text = sv_of(ASN1_STRING_get0_data(san->d.ia5), (size_t)ASN1_STRING_length(san->d.ia5));
        if (sv_find(text, '\0') != SIZE_MAX) {
            return ERR_INVALID;
        }
        names[n++] = arena_sv(&facts->arena, text);
    }
    *names_out = names;
    *count_out = n;
    return ERR_OK;
}

static enum err take_all_sans(struct policy_cert_facts *facts, const GENERAL_NAMES *sans)
{
    struct policy_cert *c = &facts->cert;
    enum err err = ERR_OK;

    if (sk_GENERAL_NAME_num(sans) > POLICY_CERT_SANS_MAX) {
        return ERR_LIMIT;
    }
    err = take_sans(facts, sans, GEN_EMAIL, &c->san_email, &c->san_email_count);
    if (err == ERR_OK) {
        err = take_sans(facts, sans, GEN_DNS, &c->san_dns, &c->san_dns_count);
    }
    if (err == ERR_OK) {
        err = take_sans(facts, sans, GEN_URI, &c->san_uri, &c->san_uri_count);
    }
    return err;
}

/* RFC 4514, what makes a name ambiguous escaped: each name has one text. */
static enum err take_name(struct policy_cert_facts *facts, const X509_NAME *name, struct sv *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long n = 0;
    enum err err = ERR_INVALID;

    if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        n = BIO_get_mem_data(bio, &text);
        err = n > POLICY_CERT_NAME_MAX ? ERR_LIMIT : ERR_OK;
    }
    if (err == ERR_OK) {
        *out = arena_sv(&facts->arena, sv_of(text, (size_t)n));
    }
    (void)BIO_free(bio);
    return err;
}

static enum err take_names(struct policy_cert_facts *facts, X509 *x)
{
    enum err err = take_name(facts, X509_get_issuer_name(x), &facts->cert.issuer);

    return err != ERR_OK ? err : take_name(facts, X509_get_subject_name(x), &facts->cert.subject);
}

static enum err take_x509(struct policy_cert_facts *facts, X509 *x)
{
    unsigned char *spki = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
    int critical = 0;
    GENERAL_NAMES *sans = NULL;
    enum err err = take_names(facts, x);

    if (n <= 0) {
        return ERR_INVALID;
    }
    SHA256(spki, (size_t)n, facts->cert.spki);
    OPENSSL_free(spki);
    if (err != ERR_OK) {
        return err;
    }
    sans = X509_get_ext_d2i(x, NID_subject_alt_name, &critical, NULL);
    if (sans == NULL) {
        return critical == -1 ? ERR_OK : ERR_INVALID; /* none; else unreadable or twice */
    }
    err = take_all_sans(facts, sans);
    GENERAL_NAMES_free(sans);
    return err;
}

enum err policy_cert_of_der(struct sv der, struct policy_cert_facts **facts_out)
{
    CLEANUP(policy_cert_free) struct policy_cert_facts *facts = NULL;
    const unsigned char *p = (const unsigned char *)der.p;
    X509 *x = NULL;
    enum err err = ERR_OK;

    if (der.n > POLICY_CERT_DER_MAX) {
        return ERR_LIMIT;
    }
    x = der.n == 0 ? NULL : d2i_X509(NULL, &p, (long)der.n);
    if (x == NULL || p != (const unsigned char *)der.p + der.n) {
        X509_free(x);
        return ERR_INVALID;
    }
    facts = MEM_NEW(struct policy_cert_facts);
    arena_init(&facts->arena);
    SHA256((const unsigned char *)der.p, der.n, facts->cert.fingerprint);
    err = take_x509(facts, x);
    X509_free(x);
    if (err != ERR_OK) {
        return err;
    }
    *facts_out = TAKE(facts);
    return ERR_OK;
}

enum err policy_cert_of_pem(struct sv pem, struct policy_cert_facts **facts_out)
{
    unsigned char *der = NULL;
    long n = 0;
    BIO *bio = NULL;
    enum err err = ERR_INVALID;

    if (pem.n > (size_t)POLICY_CERT_DER_MAX * 2) {
        return ERR_LIMIT;
    }
    bio = BIO_new_mem_buf(pem.p == NULL ? "" : pem.p, (int)pem.n);
    if (bio != NULL && PEM_bytes_read_bio(&der, &n, NULL, PEM_STRING_X509, bio, NULL, NULL) == 1) {
        err = policy_cert_of_der(sv_of(der, (size_t)n), facts_out);
        OPENSSL_free(der);
    }
    (void)BIO_free(bio);
    return err;
}
