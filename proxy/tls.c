#include "proxy/tls.h"

#include <pthread.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "proxy/acme.h"
#include "proxy/ticket.h"

enum { NAMES_BYTES_MAX = 32 * 1024, CLIENT_CHAIN_MAX = 64 * 1024, LOGS_A_SECOND = 10 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int pair_index; /* SSL: the first of the pairs that its client may have been shown */

/* The certificates of a name: one of each kind of key, of which OpenSSL takes what the client can
 * verify. */
struct shown {
    const struct config_certificate *cert;
    struct shown *next;
};

/* The type is OpenSSL's. NOLINTNEXTLINE(readability-function-size) */
static void free_pair(void *parent, void *p, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    struct keypair *pair = p;

    (void)parent;
    (void)data;
    (void)index;
    (void)argl;
    (void)argp;
    keypair_unref(&pair);
}

static void prepare(void)
{
    pair_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_pair);
    CHECK(pair_index >= 0);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* In lower case, into room; {NULL, 0}: too long for a name. */
static struct sv lower_name(const void *name, size_t n, char room[PROXY_HOST_MAX])
{
    const char *p = name;
    size_t i = 0;

    if (n >= PROXY_HOST_MAX) {
        return (struct sv){ 0 };
    }
    for (i = 0; i < n; i++) {
        room[i] = (char)(p[i] >= 'A' && p[i] <= 'Z' ? p[i] | 0x20 : p[i]);
    }
    return sv_of(room, n);
}

/* name: lower case. NULL: none fits. */
static const struct shown *by_name(const struct map *certs, struct sv name)
{
    char wild[PROXY_HOST_MAX];
    struct shown *shown = map_get(certs, name);
    size_t dot = sv_find(name, '.');

    if (shown != NULL || dot == SIZE_MAX || dot == 0 || name.n - dot + 1 >= sizeof(wild)) {
        return shown;
    }
    wild[0] = '*';
    memcpy(wild + 1, name.p + dot, name.n - dot);
    return map_get(certs, sv_of(wild, name.n - dot + 1));
}

/* What a visitor of name is shown; "": he names none. */
static const struct shown *shown_for(const struct proxy_snapshot *s, struct sv name)
{
    const struct shown *shown = name.n == 0 ? NULL : by_name(s->certs, name);

    return shown != NULL ? shown : s->nameless;
}

static struct shown *shown_new(const struct config_certificate *cert)
{
    struct shown *shown = MEM_NEW(struct shown);

    shown->cert = cert;
    return shown;
}

static void shown_free(struct shown *shown)
{
    while (shown != NULL) {
        struct shown *next = shown->next;

        mem_free(&shown);
        shown = next;
    }
}

static int kind_of(const struct config_certificate *cert)
{
    return EVP_PKEY_get_base_id(keypair_key(cert->pair));
}

static bool same_certificates(const struct shown *a, const struct shown *b)
{
    const struct shown *x = a;
    const struct shown *y = b;

    if (a == b) {
        return true;
    }
    while (x != NULL && y != NULL && x->cert->pair == y->cert->pair) {
        x = x->next;
        y = y->next;
    }
    return x == NULL && y == NULL;
}

static void index_name(struct proxy_snapshot *s, const ASN1_STRING *text,
                       const struct config_certificate *cert)
{
    char room[PROXY_HOST_MAX];
    size_t n = (size_t)ASN1_STRING_length(text);
    struct sv name = lower_name(ASN1_STRING_get0_data(text), n, room);
    struct shown *at = NULL;

    if (name.n == 0 || sv_find(name, '\0') != SIZE_MAX) {
        return; /* a name with NUL in it is somebody's trick */
    }
    at = map_get(s->certs, name);
    if (at == NULL) {
        (void)map_set(s->certs, name, shown_new(cert));
        return;
    }
    while (kind_of(at->cert) != kind_of(cert) && at->next != NULL) {
        at = at->next;
    }
    if (kind_of(at->cert) != kind_of(cert)) { /* of one kind the first in the list wins */
        at->next = shown_new(cert);
    }
}

static void index_certificate(struct proxy_snapshot *s, const struct config_certificate *cert)
{
    GENERAL_NAMES *names =
        X509_get_ext_d2i(keypair_leaf(cert->pair), NID_subject_alt_name, NULL, NULL);
    int i = 0;

    for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_DNS) {
            index_name(s, name->d.dNSName, cert);
        }
    }
    GENERAL_NAMES_free(names);
}

/* ---- the handshake --------------------------------------------------------------------------- */

static bool use_certificate(SSL *ssl, const struct keypair *pair)
{
    return SSL_use_cert_and_key(ssl, keypair_leaf(pair), keypair_key(pair), keypair_chain(pair),
                                1) == 1;
}

static bool use_certificates(SSL *ssl, const struct shown *shown)
{
    struct keypair *pair = shown->cert->pair;
    struct keypair *before = SSL_get_ex_data(ssl, pair_index);
    const struct shown *at = NULL;

    for (at = shown; at != NULL; at = at->next) {
        if (!use_certificate(ssl, at->cert->pair)) {
            return false;
        }
    }
    if (before != pair) { /* a client may come twice to here: HelloRetryRequest */
        CHECK(SSL_set_ex_data(ssl, pair_index, keypair_ref(pair)) == 1);
        keypair_unref(&before);
    }
    return true;
}

/* Names of CAs help a browser to choose among its certificates. */
static void ask_for_certificate(SSL *ssl, const struct proxy_snapshot *s, struct sv host)
{
    STACK_OF(X509_NAME) *names = NULL;
    uint64_t wanted = 0;
    size_t i = 0;

    if (s->n_trusts < 2) {
        return; /* the context has them */
    }
    names = sk_X509_NAME_new_null();
    CHECK(names != NULL);
    wanted = proxy_snapshot_trusts_of(s, host);
    for (i = 0; i < s->n_trusts; i++) {
        if ((wanted & (UINT64_C(1) << (i % 64))) != 0) {
            proxy_trust_add_names(s->trusts[i], names);
        }
    }
    SSL_set_client_CA_list(ssl, names);
}

/* The types are OpenSSL's. NOLINTNEXTLINE(readability-non-const-parameter) */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct proxy_snapshot *s = arg;
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    char room[PROXY_HOST_MAX];
    struct sv name = sni == NULL ? (struct sv){ 0 } : lower_name(sni, strlen(sni), room);

    if (!use_certificates(ssl, shown_for(s, name))) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    ask_for_certificate(ssl, s, name);
    return sni == NULL ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_OK;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                   const unsigned char *in, unsigned in_n, void *arg)
{
    static const struct sv offers[] = {
        [CONFIG_VERSIONS_AUTO] = { "\x02h2\x08http/1.1", 12 },
        [CONFIG_VERSIONS_HTTP1] = { "\x08http/1.1", 9 },
        [CONFIG_VERSIONS_HTTP2] = { "\x02h2", 3 },
    };
    const struct proxy_snapshot *s = arg;
    struct sv mine = offers[s->config->http_versions];
    unsigned char *chosen = NULL;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_n, (const unsigned char *)mine.p, (unsigned)mine.n, in,
                              in_n) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Of those for its name, the certificate that OpenSSL chose; the context is the one of s. */
static const struct config_certificate *chosen(const struct proxy_snapshot *s, SSL *ssl)
{
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const X509 *leaf = SSL_get_certificate(ssl);
    char room[PROXY_HOST_MAX];
    struct sv name = sni == NULL ? (struct sv){ 0 } : lower_name(sni, strlen(sni), room);
    const struct shown *at = shown_for(s, name);

    while (at != NULL && keypair_leaf(at->cert->pair) != leaf) {
        at = at->next;
    }
    return at == NULL ? NULL : at->cert;
}

/* A response is stapled only while it is good. */
static int on_status(SSL *ssl, void *arg)
{
    const struct proxy_snapshot *s = arg;
    const struct config_certificate *cert = chosen(s, ssl);
    int64_t now_s = clock_wall_s();
    unsigned char *copy = NULL;

    if (cert == NULL || cert->ocsp.n == 0 || now_s < cert->ocsp_from_s ||
        now_s >= cert->ocsp_ends_s) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    copy = OPENSSL_memdup(cert->ocsp.p, cert->ocsp.n);
    if (copy == NULL || SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)cert->ocsp.n) != 1) {
        OPENSSL_free(copy);
        return SSL_TLSEXT_ERR_NOACK;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* ---- client certificates --------------------------------------------------------------------- */

/* Who enters is judged at each request, against what applies to its route. Here only
 * reject_connection looks: one of the CAs must vouch for the certificate. */
static int on_client_certificate(X509_STORE_CTX *ctx, void *arg)
{
    const struct proxy_snapshot *s = arg;
    struct proxy_trust_verdict verdict = { .trusted = false };
    size_t i = 0;

    if (s->config->downstream_mtls.enforcement != CONFIG_MTLS_REJECT) {
        X509_STORE_CTX_set_error(ctx, X509_V_OK);
        return 1;
    }
    for (i = 0; i < s->n_trusts && !verdict.trusted; i++) {
        proxy_trust_judge(s->trusts[i], X509_STORE_CTX_get0_cert(ctx),
                          X509_STORE_CTX_get0_untrusted(ctx), &verdict);
    }
    X509_STORE_CTX_set_error(ctx, verdict.trusted ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return verdict.trusted ? 1 : 0;
}

static bool names_fit_a_message(STACK_OF(X509_NAME) * names)
{
    size_t size = 0;
    int i = 0;

    for (i = 0; i < sk_X509_NAME_num(names); i++) {
        size += (size_t)MAX(i2d_X509_NAME(sk_X509_NAME_value(names, i), NULL), 0) + 2;
    }
    return size <= NAMES_BYTES_MAX;
}

static void ask_all(SSL_CTX *ctx, struct proxy_snapshot *s)
{
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    bool reject = s->config->downstream_mtls.enforcement == CONFIG_MTLS_REJECT;
    size_t i = 0;

    CHECK(names != NULL);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (reject ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    SSL_CTX_set_cert_verify_callback(ctx, on_client_certificate, s);
    SSL_CTX_set_max_cert_list(ctx, CLIENT_CHAIN_MAX);
    for (i = 0; i < s->n_trusts; i++) {
        proxy_trust_add_names(s->trusts[i], names);
    }
    if (!names_fit_a_message(names)) { /* none: the client chooses by itself */
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        names = sk_X509_NAME_new_null();
    }
    SSL_CTX_set_client_CA_list(ctx, names);
    /* A ticket would stand for a certificate that nobody looks at again, and for the lack of one. */
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    CHECK(SSL_CTX_set_num_tickets(ctx, 0) == 1);
}

/* ---- the context ----------------------------------------------------------------------------- */

static SSL_CTX *listener_ctx(struct proxy_snapshot *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    bool only_13 = s->config->tls_min_version == CONFIG_TLS_1_3;

    CHECK(ctx != NULL);
    CHECK(SSL_CTX_set_min_proto_version(ctx, only_13 ? TLS1_3_VERSION : TLS1_2_VERSION) == 1);
    CHECK(SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1);
    CHECK(SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                       SSL_OP_IGNORE_UNEXPECTED_EOF);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    (void)SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    (void)SSL_CTX_set_tlsext_servername_arg(ctx, s);
    (void)SSL_CTX_set_tlsext_status_cb(ctx, on_status);
    (void)SSL_CTX_set_tlsext_status_arg(ctx, s);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, s);
    proxy_acme_listen(ctx);
    (void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"postern", 7);
    if (s->n_trusts != 0) {
        ask_all(ctx, s);
    } else {
        proxy_ticket_use(ctx, s->config->keys);
    }
    return ctx;
}

/* What the handshake would refuse is refused here, with its name. */
static enum err try_certificate(SSL_CTX *ctx, const struct config_certificate *cert, struct diag *d)
{
    SSL *ssl = SSL_new(ctx);
    bool fine = false;

    CHECK(ssl != NULL);
    fine = use_certificate(ssl, cert->pair);
    SSL_free(ssl);
    ERR_clear_error();
    if (!fine) {
        diag_set(d, "the certificate is too weak to be used: 2048 bits RSA or 256 bits EC are the "
                    "least, with SHA-256");
        diag_at(d, cert->file, cert->line, cert->column);
        return ERR_CRYPTO;
    }
    return ERR_OK;
}

/* The first certificate's first name tells which others stand beside it. */
static void add_kinds(struct proxy_snapshot *s)
{
    const X509 *leaf = keypair_leaf(s->nameless->cert->pair);
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    char room[PROXY_HOST_MAX];
    struct shown *end = s->nameless;
    int i = 0;

    for (i = 0; i < sk_GENERAL_NAME_num(names) && end == s->nameless; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const struct shown *at = NULL;

        if (name->type == GEN_DNS) {
            at = map_get(s->certs, lower_name(ASN1_STRING_get0_data(name->d.dNSName),
                                              (size_t)ASN1_STRING_length(name->d.dNSName), room));
        }
        for (at = at == NULL ? NULL : at->next; at != NULL; at = at->next) {
            end->next = shown_new(at->cert);
            end = end->next;
        }
    }
    GENERAL_NAMES_free(names);
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
    CHECK(pthread_once(&once, prepare) == 0);
    snapshot->certs = map_new();
    snapshot->tls = listener_ctx(snapshot);
    for (i = 0; i < c->n_certificates; i++) {
        const struct config_certificate *cert = &c->certificates[i];
        enum err err = try_certificate(snapshot->tls, cert, d);

        if (err != ERR_OK) {
            return err;
        }
        index_certificate(snapshot, cert);
    }
    snapshot->nameless = shown_new(&c->certificates[0]);
    add_kinds(snapshot);
    return ERR_OK;
}

static void free_shown(struct sv name, void *value, void *arg)
{
    (void)name;
    (void)arg;
    shown_free(value);
}

void proxy_tls_drop(struct proxy_snapshot *snapshot)
{
    SSL_CTX_free(snapshot->tls);
    if (snapshot->certs != NULL) {
        map_each(snapshot->certs, free_shown, NULL);
    }
    map_free(&snapshot->certs);
    shown_free(snapshot->nameless);
}

/* ---- afterwards ------------------------------------------------------------------------------ */

bool proxy_tls_serves(const struct proxy_snapshot *snapshot, const SSL *ssl, struct sv host)
{
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct shown *shown = NULL;
    char room[PROXY_HOST_MAX];
    struct sv name = { 0 };

    /* Same name, or no name at all (an address, a tool): nothing to confuse. */
    if (sni == NULL || sv_ieq(sv_from(sni), host)) {
        return true;
    }
    shown = snapshot->certs == NULL ? NULL : by_name(snapshot->certs, host);
    name = lower_name(sni, strlen(sni), room);
    if (shown == NULL || shown->cert->pair != SSL_get_ex_data(ssl, pair_index) ||
        !same_certificates(shown, shown_for(snapshot, name))) {
        return false;
    }
    return snapshot->n_trusts < 2 ||
           proxy_snapshot_trusts_of(snapshot, name) == proxy_snapshot_trusts_of(snapshot, host);
}

bool proxy_tls_is_stale(const struct proxy_snapshot *snapshot, const SSL *ssl)
{
    return snapshot->n_trusts != 0 && SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE;
}

void proxy_tls_failed(const struct proxy_snapshot *snapshot, const SSL *ssl, const char *peer)
{
    static _Thread_local struct log_limit limit;
    unsigned long code = ERR_peek_last_error();
    const char *why = code == 0 ? "the client left" : ERR_reason_error_string(code);
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    if (!log_limit_pass(&limit, LOGS_A_SECOND)) {
        return;
    }
    if (snapshot->config->downstream_mtls.enforcement == CONFIG_MTLS_REJECT && code != 0) {
        log_info("connection.refused", KV_STR("why", why), KV_STR("name", name),
                 KV_STR("peer", peer));
    } else {
        log_debug("handshake.failed", KV_STR("why", why), KV_STR("name", name),
                  KV_STR("peer", peer));
    }
}
