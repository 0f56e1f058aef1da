#include "proxy/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "common/http/url.h"
#include "common/map.h"
#include "common/mem.h"

#define SUITES_12                                                                              \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:" \
    "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"

enum { CERT_NAMES_MAX = 1000, SELF_SIGNED_LIFE_S = 365 * 86400 };

struct certs {
    SSL_CTX **ctx;
    size_t n;
    struct map *names; /* lower case; "*.example.com" for wildcards -> SSL_CTX */
};

void proxy_tls_certs_free(void **certs)
{
    struct certs *c = TAKE(*certs);
    size_t i = 0;

    if (c == NULL) {
        return;
    }
    for (i = 0; i < c->n; i++) {
        SSL_CTX_free(c->ctx[i]);
    }
    map_free(&c->names);
    mem_free(&c->ctx);
    mem_free(&c);
}

static SSL_CTX *find_ctx(const struct certs *c, struct sv name)
{
    char wild[HTTP_HOST_MAX + 2];
    SSL_CTX *ctx = map_get(c->names, name);
    size_t dot = sv_find(name, '.');

    if (ctx != NULL || dot == SIZE_MAX || name.n - dot > HTTP_HOST_MAX) {
        return ctx;
    }
    wild[0] = '*';
    memcpy(wild + 1, name.p + dot, name.n - dot);
    return map_get(c->names, sv_of(wild, name.n - dot + 1));
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct certs *c = arg;
    const char *given = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    char lower[HTTP_HOST_MAX + 1];
    struct sv name = { 0 };
    SSL_CTX *ctx = NULL;

    (void)alert;
    if (given == NULL || http_host_canonical(sv_from(given), lower, &name) != ERR_OK) {
        return SSL_TLSEXT_ERR_OK; /* the first certificate */
    }
    ctx = find_ctx(c, name);
    if (ctx != NULL) {
        (void)SSL_set_SSL_CTX(ssl, ctx);
    }
    return SSL_TLSEXT_ERR_OK;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                   const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, ours, sizeof(ours) - 1, in,
                              in_n) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *server_ctx(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    CHECK(ctx != NULL);
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    CHECK(SSL_CTX_set_cipher_list(ctx, SUITES_12) == 1);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE |
                                       SSL_OP_PRIORITIZE_CHACHA | SSL_OP_IGNORE_UNEXPECTED_EOF);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets need none */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    return ctx;
}

static void name_add(struct certs *c, SSL_CTX *ctx, const unsigned char *p, int n)
{
    char lower[HTTP_HOST_MAX + 1];
    size_t i = 0;
    struct sv name = sv_of(p, (size_t)MAX(n, 0));

    if (name.n == 0 || name.n > HTTP_HOST_MAX || memchr(p, '\0', name.n) != NULL) {
        return;
    }
    for (i = 0; i < name.n; i++) {
        char b = name.p[i];

        lower[i] = (char)(b >= 'A' && b <= 'Z' ? b + 32 : b);
    }
    name = sv_of(lower, name.n);
    if (map_get(c->names, name) == NULL && map_count(c->names) < (size_t)1000000) {
        (void)map_set(c->names, name, ctx);
    }
}

static void names_add(struct certs *c, SSL_CTX *ctx)
{
    X509 *leaf = SSL_CTX_get0_certificate(ctx);
    GENERAL_NAMES *sans = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int n = sans == NULL ? 0 : MIN(sk_GENERAL_NAME_num(sans), CERT_NAMES_MAX);
    int i = 0;

    for (i = 0; i < n; i++) {
        const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);

        if (san->type == GEN_DNS) {
            name_add(c, ctx, ASN1_STRING_get0_data(san->d.dNSName),
                     ASN1_STRING_length(san->d.dNSName));
        }
    }
    GENERAL_NAMES_free(sans);
}

static bool use_chain(SSL_CTX *ctx, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    bool ok = cert != NULL && SSL_CTX_use_certificate(ctx, cert) == 1;

    X509_free(cert);
    while (ok) {
        cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (cert == NULL) {
            break;
        }
        ok = SSL_CTX_add0_chain_cert(ctx, cert) == 1;
    }
    ERR_clear_error(); /* the end of the text is an error to PEM_read */
    BIO_free(bio);
    return ok;
}

static bool use_key(SSL_CTX *ctx, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    bool ok = key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1 &&
              SSL_CTX_check_private_key(ctx) == 1;

    EVP_PKEY_free(key);
    BIO_free(bio);
    ERR_clear_error();
    return ok;
}

static void ctx_add(struct certs *c, SSL_CTX *ctx)
{
    c->ctx = mem_realloc(c->ctx, c->n + 1, sizeof(SSL_CTX *));
    c->ctx[c->n++] = ctx;
}

static void use_self_signed(SSL_CTX *ctx)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_NAME *name = NULL;

    CHECK(key != NULL && x != NULL);
    name = X509_get_subject_name(x);
    CHECK(X509_set_version(x, X509_VERSION_3) == 1 &&
          ASN1_INTEGER_set(X509_get_serialNumber(x), 1) == 1 &&
          X509_gmtime_adj(X509_getm_notBefore(x), -3600) != NULL &&
          X509_gmtime_adj(X509_getm_notAfter(x), SELF_SIGNED_LIFE_S) != NULL &&
          X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                     (const unsigned char *)"Postern self-signed", -1, -1, 0) == 1 &&
          X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key) == 1 &&
          X509_sign(x, key, EVP_sha256()) != 0);
    CHECK(SSL_CTX_use_certificate(ctx, x) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1);
    X509_free(x);
    EVP_PKEY_free(key);
}

enum err proxy_tls_server(const struct config *config, SSL_CTX **ctx_out, void **certs_out,
                          struct diag *d)
{
    CLEANUP(proxy_tls_certs_free) void *guard = NULL;
    struct certs *c = MEM_NEW(struct certs);
    size_t i = 0;

    guard = c;
    c->names = map_new();
    for (i = 0; i < config->n_certificates; i++) {
        const struct config_certificate *cert = &config->certificates[i];

        ctx_add(c, server_ctx());
        if (!use_chain(c->ctx[i], cert->cert_pem) || cert->key_pem == NULL ||
            !use_key(c->ctx[i], secret_bytes(cert->key_pem))) {
            diag_set(d, "certificate %zu (%.*s): certificate and key do not load or do not fit",
                     i + 1, SV_ARG(cert->cert_file));
            return ERR_INVALID;
        }
        names_add(c, c->ctx[i]);
    }
    if (c->n == 0) {
        ctx_add(c, server_ctx());
        use_self_signed(c->ctx[0]);
    }
    (void)SSL_CTX_set_tlsext_servername_callback(c->ctx[0], on_server_name);
    (void)SSL_CTX_set_tlsext_servername_arg(c->ctx[0], c);
    *ctx_out = c->ctx[0];
    *certs_out = TAKE(guard);
    return ERR_OK;
}

static bool trust(SSL_CTX *ctx, struct sv ca)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *bio = NULL;
    size_t n = 0;
    bool ok = true;

    if (ca.n == 0) {
        return SSL_CTX_set_default_verify_paths(ctx) == 1;
    }
    bio = BIO_new_mem_buf(ca.p, (int)ca.n);
    while (ok) {
        X509 *cert = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);

        if (cert == NULL) {
            break;
        }
        ok = X509_STORE_add_cert(store, cert) == 1;
        X509_free(cert);
        n++;
    }
    ERR_clear_error();
    BIO_free(bio);
    return ok && n > 0;
}

enum err proxy_tls_client(struct sv ca, bool verify, SSL_CTX **ctx_out, struct diag *d)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    CHECK(ctx != NULL);
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    /* An end without close_notify stays an error: it may be a cut, not the end of a body. */
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_verify(ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (verify && !trust(ctx, ca)) {
        SSL_CTX_free(ctx);
        diag_set(d, "tls_custom_ca holds no certificate that loads");
        return ERR_INVALID;
    }
    *ctx_out = ctx;
    return ERR_OK;
}

enum err proxy_tls_connect(SSL_CTX *ctx, int fd, struct sv name, bool verify, SSL **ssl_out)
{
    static const unsigned char alpn[] = "\x08http/1.1";
    SSL *ssl = SSL_new(ctx);
    bool literal = false;
    bool ok = ssl != NULL && SSL_set_fd(ssl, fd) == 1 &&
              SSL_set_alpn_protos(ssl, alpn, sizeof(alpn) - 1) == 0;

    if (ok && name.n != 0) {
        X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

        literal = X509_VERIFY_PARAM_set1_ip_asc(param, name.p) == 1;
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        if (!literal) {
            ok = SSL_set_tlsext_host_name(ssl, name.p) == 1 && SSL_set1_host(ssl, name.p) == 1;
        }
    }
    if (!ok || (verify && name.n == 0)) {
        ERR_clear_error();
        SSL_free(ssl);
        return ERR_CRYPTO;
    }
    SSL_set_connect_state(ssl);
    *ssl_out = ssl;
    return ERR_OK;
}
