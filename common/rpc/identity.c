#include "common/rpc/identity.h"

#include <stdio.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/rand.h"

enum { NAME_MAX_N = 64, PEM_MAX = 16384, BACKDATE_S = 300 };

struct rpc_identity {
    const struct keys *keys;
    enum rpc_role role;
    char *ca_pem;
    X509 *ca[KEYS_SLOTS_MAX];
    EVP_PKEY *ca_key; /* of slot 0 */
};

static const char *const role_names[] = {
    [RPC_NOBODY] = "nobody",
    [RPC_PROXY] = "proxy",
    [RPC_AUTHORIZE] = "authorize",
    [RPC_AUTHENTICATE] = "authenticate",
    [RPC_DATABROKER] = "databroker",
    [RPC_CLI] = "cli",
    [RPC_TOKEN_SESSION_ADMIN] = "session-admin",
    [RPC_TOKEN_READER] = "reader",
    [RPC_TOKEN_CHECKER] = "checker",
    [RPC_TOKEN_RECORD_WRITER] = "record-writer",
    [RPC_TOKEN_DIRECTORY_WRITER] = "directory-writer",
    [RPC_TOKEN_CONFIG_WRITER] = "config-writer",
};

const char *rpc_role_name(enum rpc_role role)
{
    return (size_t)role < ARRAY_LEN(role_names) ? role_names[role] : "nobody";
}

enum rpc_role rpc_role_of_spiffe(struct sv uri)
{
    struct sv prefix = SV("spiffe://postern/");
    int i = 0;

    if (!sv_starts(uri, prefix)) {
        return RPC_NOBODY;
    }
    uri = sv_from_at(uri, prefix.n);
    for (i = RPC_PROXY; i <= RPC_CLI; i++) {
        if (sv_eq(uri, sv_from(role_names[i]))) {
            return (enum rpc_role)i;
        }
    }
    return RPC_NOBODY;
}

static void add_name(X509_NAME *name, const char *text)
{
    CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)text, -1, -1,
                                     0) == 1);
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx = { .flags = 0 };
    X509_EXTENSION *ext = NULL;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    CHECK(ext != NULL && X509_add_ext(cert, ext, -1) == 1);
    X509_EXTENSION_free(ext);
}

/* Subject and key are the same wherever the secret is: that is all a chain is checked by. */
static X509 *make_ca(const struct keys *keys, size_t slot, EVP_PKEY *key)
{
    X509 *ca = X509_new();
    char subject[NAME_MAX_N];

    CHECK(ca != NULL);
    (void)snprintf(subject, sizeof(subject), "Postern internal CA %02x", keys_id(keys, slot));
    CHECK(X509_set_version(ca, X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(ca), 1) == 1);
    CHECK(ASN1_TIME_set_string_X509(X509_getm_notBefore(ca), "20200101000000Z") == 1);
    CHECK(ASN1_TIME_set_string_X509(X509_getm_notAfter(ca), "21200101000000Z") == 1);
    add_name(X509_get_subject_name(ca), subject);
    CHECK(X509_set_issuer_name(ca, X509_get_subject_name(ca)) == 1);
    CHECK(X509_set_pubkey(ca, key) == 1);
    add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    add_extension(ca, ca, NID_key_usage, "critical,keyCertSign");
    add_extension(ca, ca, NID_subject_key_identifier, "hash");
    CHECK(X509_sign(ca, key, EVP_sha256()) != 0);
    return ca;
}

static char *bio_text(BIO *bio)
{
    char *p = NULL;
    long n = BIO_get_mem_data(bio, &p);
    char *text = mem_svdup(sv_of(p, (size_t)n));

    BIO_free(bio);
    return text;
}

struct rpc_identity *rpc_identity_new(const struct keys *keys, enum rpc_role role)
{
    struct rpc_identity *id = MEM_NEW(struct rpc_identity);
    BIO *bio = BIO_new(BIO_s_mem());
    size_t i = 0;

    CHECK(bio != NULL && role >= RPC_PROXY && role <= RPC_CLI);
    id->keys = keys;
    id->role = role;
    for (i = 0; i < keys_slots(keys); i++) {
        EVP_PKEY *key = keys_ec_p256(keys, i, KEYS_INTERNAL_CA);

        id->ca[i] = make_ca(keys, i, key);
        CHECK(PEM_write_bio_X509(bio, id->ca[i]) == 1);
        if (i == 0) {
            id->ca_key = key;
        } else {
            EVP_PKEY_free(key);
        }
    }
    id->ca_pem = bio_text(bio);
    return id;
}

void rpc_identity_free(struct rpc_identity **identity)
{
    struct rpc_identity *id = TAKE(*identity);
    size_t i = 0;

    if (id == NULL) {
        return;
    }
    for (i = 0; i < KEYS_SLOTS_MAX; i++) {
        X509_free(id->ca[i]);
    }
    EVP_PKEY_free(id->ca_key);
    mem_free(&id->ca_pem);
    mem_free(&id);
}

const struct keys *rpc_identity_keys(const struct rpc_identity *identity)
{
    return identity->keys;
}

enum rpc_role rpc_identity_role(const struct rpc_identity *identity)
{
    return identity->role;
}

const char *rpc_identity_ca_pem(const struct rpc_identity *identity)
{
    return identity->ca_pem;
}

static X509 *issue(const struct rpc_identity *id, EVP_PKEY *key, int64_t life_s)
{
    X509 *cert = X509_new();
    char san[NAME_MAX_N * 2];
    const char *name = rpc_role_name(id->role);
    time_t now = (time_t)clock_wall_s();

    CHECK(cert != NULL);
    (void)snprintf(san, sizeof(san), "URI:spiffe://postern/%s,DNS:%s.postern.internal", name, name);
    CHECK(X509_set_version(cert, X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), rand_u64() >> 1U) == 1);
    CHECK(ASN1_TIME_set(X509_getm_notBefore(cert), now - BACKDATE_S) != NULL);
    CHECK(ASN1_TIME_set(X509_getm_notAfter(cert), now + (time_t)life_s) != NULL);
    add_name(X509_get_subject_name(cert), name);
    CHECK(X509_set_issuer_name(cert, X509_get_subject_name(id->ca[0])) == 1);
    CHECK(X509_set_pubkey(cert, key) == 1);
    add_extension(cert, id->ca[0], NID_basic_constraints, "critical,CA:FALSE");
    add_extension(cert, id->ca[0], NID_key_usage, "critical,digitalSignature");
    add_extension(cert, id->ca[0], NID_ext_key_usage, "serverAuth,clientAuth");
    add_extension(cert, id->ca[0], NID_subject_alt_name, san);
    add_extension(cert, id->ca[0], NID_authority_key_identifier, "keyid:always");
    CHECK(X509_sign(cert, id->ca_key, EVP_sha256()) != 0);
    return cert;
}

bool rpc_identity_due(int64_t issued_s)
{
    int64_t age_s = clock_wall_s() - issued_s;

    return age_s >= RPC_CERT_RENEW_S || age_s < -BACKDATE_S;
}

void rpc_identity_issue(const struct rpc_identity *identity, int64_t life_s, char **cert_pem_out,
                        char **key_pem_out)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    BIO *key_bio = BIO_new(BIO_s_secmem());

    CHECK(key != NULL && bio != NULL && key_bio != NULL);
    cert = issue(identity, key, life_s);
    CHECK(PEM_write_bio_X509(bio, cert) == 1);
    CHECK(PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    *cert_pem_out = bio_text(bio);
    *key_pem_out = bio_text(key_bio);
    X509_free(cert);
    EVP_PKEY_free(key);
}

SSL_CTX *rpc_identity_client_ctx(const struct rpc_identity *identity)
{
    static const unsigned char h2[] = { 2, 'h', '2' };
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = NULL;
    size_t i = 0;

    CHECK(ctx != NULL && key != NULL);
    cert = issue(identity, key, RPC_CERT_LIFE_S);
    CHECK(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
    CHECK(SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1);
    CHECK(SSL_CTX_set_alpn_protos(ctx, h2, sizeof(h2)) == 0);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    for (i = 0; i < keys_slots(identity->keys); i++) {
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), identity->ca[i]) == 1);
    }
    X509_free(cert);
    EVP_PKEY_free(key);
    return ctx;
}

void rpc_identity_expect(SSL *ssl, enum rpc_role server)
{
    char name[NAME_MAX_N];

    (void)snprintf(name, sizeof(name), "%s.postern.internal", rpc_role_name(server));
    CHECK(SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1);
}
