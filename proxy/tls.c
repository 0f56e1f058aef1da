#include "proxy/tls.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/map.h"
#include "common/mem.h"

static SSL_CTX *by_name(const struct map *certs, struct sv name)
{
    char wild[PROXY_HOST_MAX];
    SSL_CTX *ctx = map_get(certs, name);
    size_t dot = sv_find(name, '.');

    if (ctx != NULL || dot == SIZE_MAX || name.n - dot + 1 >= sizeof(wild)) {
        return ctx;
    }
    wild[0] = '*';
    memcpy(wild + 1, name.p + dot, name.n - dot);
    return map_get(certs, sv_of(wild, name.n - dot + 1));
}

/* The types are OpenSSL's. NOLINTNEXTLINE(readability-non-const-parameter) */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct proxy_snapshot *s = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    char lower[PROXY_HOST_MAX];
    size_t n = 0;
    SSL_CTX *ctx = NULL;

    (void)alert;
    if (name == NULL) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    for (n = 0; name[n] != '\0' && n < sizeof(lower); n++) {
        lower[n] = (char)(name[n] >= 'A' && name[n] <= 'Z' ? name[n] | 0x20 : name[n]);
    }
    ctx = by_name(s->certs, sv_of(lower, n));
    if (ctx != NULL) {
        (void)SSL_set_SSL_CTX(ssl, ctx);
    }
    return SSL_TLSEXT_ERR_OK;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                   const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char mine[] = "\x02h2\x08http/1.1";
    unsigned char *chosen = NULL;

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_n, mine, sizeof(mine) - 1, in, in_n) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's type */
static int no_password(char *room, int size, int writing, void *arg)
{
    (void)room;
    (void)size;
    (void)writing;
    (void)arg;
    return -1; /* never ask the terminal */
}

/* Leaf and chain. */
static bool use_chain(SSL_CTX *ctx, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);
    bool fine = cert != NULL && SSL_CTX_use_certificate(ctx, cert) == 1;

    X509_free(cert);
    while (fine) {
        cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);
        if (cert == NULL) {
            break;
        }
        fine = SSL_CTX_add1_chain_cert(ctx, cert) == 1;
        X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return fine;
}

static bool use_key(SSL_CTX *ctx, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    bool fine =
        key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;

    EVP_PKEY_free(key);
    BIO_free(bio);
    ERR_clear_error();
    return fine;
}

static void index_name(struct proxy_snapshot *s, const unsigned char *p, size_t n, SSL_CTX *ctx)
{
    char lower[PROXY_HOST_MAX];
    size_t i = 0;

    if (n >= sizeof(lower) || memchr(p, '\0', n) != NULL) {
        return; /* a name with NUL in it is somebody's trick */
    }
    for (i = 0; i < n; i++) {
        lower[i] = (char)(p[i] >= 'A' && p[i] <= 'Z' ? p[i] | 0x20 : p[i]);
    }
    if (map_get(s->certs, sv_of(lower, n)) == NULL) { /* the first in the list wins */
        (void)map_set(s->certs, sv_of(lower, n), ctx);
    }
}

static void index_certificate(struct proxy_snapshot *s, SSL_CTX *ctx)
{
    GENERAL_NAMES *names =
        X509_get_ext_d2i(SSL_CTX_get0_certificate(ctx), NID_subject_alt_name, NULL, NULL);
    int i = 0;

    for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_DNS) {
            index_name(s, ASN1_STRING_get0_data(name->d.dNSName),
                       (size_t)ASN1_STRING_length(name->d.dNSName), ctx);
        }
    }
    GENERAL_NAMES_free(names);
}

static SSL_CTX *listener_ctx(struct proxy_snapshot *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    CHECK(ctx != NULL);
    CHECK(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
    CHECK(SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                       SSL_OP_IGNORE_UNEXPECTED_EOF);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    (void)SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    (void)SSL_CTX_set_tlsext_servername_arg(ctx, s);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    (void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"postern", 7);
    return ctx;
}

enum err proxy_tls_build(struct proxy_snapshot *snapshot, struct diag *d)
{
    const struct config *c = snapshot->config;
    size_t i = 0;

    if (c->insecure_server) {
        return ERR_OK;
    }
    if (c->n_certificates == 0) {
        diag_set(d, "no certificate is configured: set certificates, or insecure_server behind "
                    "something that does TLS");
        return ERR_INVALID;
    }
    snapshot->certs = map_new();
    snapshot->contexts = mem_array(c->n_certificates, sizeof(SSL_CTX *));
    for (i = 0; i < c->n_certificates; i++) {
        const struct config_certificate *cert = &c->certificates[i];
        SSL_CTX *ctx = listener_ctx(snapshot);

        snapshot->contexts[snapshot->n_contexts++] = ctx;
        if (!use_chain(ctx, cert->cert_pem) || cert->key_pem == NULL ||
            !use_key(ctx, secret_bytes(cert->key_pem))) {
            diag_set(d, "certificate %.*s cannot be used: it is no PEM, or its key does not fit",
                     SV_ARG(cert->cert_file));
            return ERR_CRYPTO;
        }
        index_certificate(snapshot, ctx);
    }
    snapshot->tls = snapshot->contexts[0];
    return ERR_OK;
}

void proxy_tls_drop(struct proxy_snapshot *snapshot)
{
    size_t i = 0;

    for (i = 0; i < snapshot->n_contexts; i++) {
        SSL_CTX_free(snapshot->contexts[i]);
    }
    mem_free(&snapshot->contexts);
    map_free(&snapshot->certs);
}

static bool add_ca(SSL_CTX *ctx, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = NULL;
    size_t n = 0;

    for (cert = PEM_read_bio_X509(bio, NULL, no_password, NULL); cert != NULL;
         cert = PEM_read_bio_X509(bio, NULL, no_password, NULL)) {
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1) {
            n++;
        }
        X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return n > 0;
}

enum err proxy_tls_upstream_ctx(struct sv ca_pem, bool verify, SSL_CTX **ctx_out, struct diag *d)
{
    static const unsigned char alpn[] = "\x02h2\x08http/1.1";
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    CHECK(ctx != NULL);
    CHECK(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_read_ahead(ctx, 1);
    CHECK(SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn) - 1) == 0);
    SSL_CTX_set_verify(ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (ca_pem.n != 0 ? !add_ca(ctx, ca_pem)
                      : (verify && SSL_CTX_set_default_verify_paths(ctx) != 1)) {
        diag_set(d, "tls_custom_ca holds no certificate");
        SSL_CTX_free(ctx);
        return ERR_INVALID;
    }
    *ctx_out = ctx;
    return ERR_OK;
}

bool proxy_tls_covers(const SSL *ssl, const char *host)
{
    X509 *cert = SSL_get_certificate(ssl);

    return cert != NULL && X509_check_host(cert, host, 0, 0, NULL) == 1;
}
