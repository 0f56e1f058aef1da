#include "proxy/upstream_tls.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "proxy/target.h"

enum { DAY_S = 86400 };

struct proxy_upstream_tls {
    char id[PROXY_UPSTREAM_TLS_ID];
    SSL_CTX *ctx;
    unsigned refs; /* under lock, as all */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map *all; /* id to struct proxy_upstream_tls; NULL: none */

static bool add_ca(SSL_CTX *ctx, struct sv pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = NULL;
    size_t n = 0;

    CHECK(bio != NULL);
    for (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL); cert != NULL;
         cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) {
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1) {
            n++;
        }
        X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return n > 0;
}

static SSL_CTX *context_new(bool verify)
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
    return ctx;
}

static enum err fill(SSL_CTX *ctx, bool verify, struct sv ca, const struct keypair *own,
                     struct diag *d)
{
    if (ca.n != 0 && !add_ca(ctx, ca)) {
        diag_set(d, "tls_custom_ca holds no certificate");
        return ERR_INVALID;
    }
    if (ca.n == 0 && verify && SSL_CTX_set_default_verify_paths(ctx) != 1) {
        diag_set(d, "the system's certificate authorities cannot be read");
        return ERR_INVALID;
    }
    if (own != NULL && SSL_CTX_use_cert_and_key(ctx, keypair_leaf(own), keypair_key(own),
                                                keypair_chain(own), 1) != 1) {
        ERR_clear_error();
        diag_set(d, "tls_client_cert is too weak to be used: 2048 bits RSA or 256 bits EC are the "
                    "least");
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void hex_sum(struct sv ca, struct sv own, bool verify, char id_out[PROXY_UPSTREAM_TLS_ID])
{
    static const char digits[] = "0123456789abcdef";
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint64_t sizes[] = { verify ? 1 : 0, ca.n, own.n };
    unsigned char sum[EVP_MAX_MD_SIZE];
    size_t i = 0;

    CHECK(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
          EVP_DigestUpdate(md, sizes, sizeof(sizes)) == 1 &&
          EVP_DigestUpdate(md, ca.p, ca.n) == 1 && EVP_DigestUpdate(md, own.p, own.n) == 1 &&
          EVP_DigestFinal_ex(md, sum, NULL) == 1);
    EVP_MD_CTX_free(md);
    for (i = 0; i < (PROXY_UPSTREAM_TLS_ID - 1) / 2; i++) {
        id_out[2 * i] = digits[sum[i] >> 4U];
        id_out[2 * i + 1] = digits[sum[i] & 15U];
    }
    id_out[PROXY_UPSTREAM_TLS_ID - 1] = '\0';
}

void proxy_upstream_tls_id(const struct config_route *route, char id_out[PROXY_UPSTREAM_TLS_ID])
{
    bool verify = route == NULL || !route->tls_skip_verify;
    struct sv ca = route == NULL ? (struct sv){ 0 } : route->tls_custom_ca;
    struct sv own = route == NULL || route->client_pair == NULL ? (struct sv){ 0 }
                                                                : keypair_id(route->client_pair);

    if (ca.n != 0 || own.n != 0) {
        hex_sum(ca, own, verify, id_out);
    } else {
        (void)snprintf(id_out, PROXY_UPSTREAM_TLS_ID, "%s", verify ? "system" : "anybody");
    }
}

static enum err make(const struct config_route *route, struct proxy_upstream_tls **tls_out,
                     struct diag *d)
{
    bool verify = route == NULL || !route->tls_skip_verify;
    struct sv ca = route == NULL ? (struct sv){ 0 } : route->tls_custom_ca;
    SSL_CTX *ctx = context_new(verify);
    enum err err = fill(ctx, verify, ca, route == NULL ? NULL : route->client_pair, d);

    if (err != ERR_OK) {
        SSL_CTX_free(ctx);
        return err;
    }
    *tls_out = MEM_NEW(struct proxy_upstream_tls);
    (*tls_out)->ctx = ctx;
    return ERR_OK;
}

enum err proxy_upstream_tls_get(const struct config_route *route,
                                struct proxy_upstream_tls **tls_out, struct diag *d)
{
    char id[PROXY_UPSTREAM_TLS_ID];
    struct proxy_upstream_tls *tls = NULL;
    enum err err = ERR_OK;

    proxy_upstream_tls_id(route, id);
    (void)pthread_mutex_lock(&lock);
    if (all == NULL) {
        all = map_new();
    }
    tls = map_get(all, sv_from(id));
    if (tls == NULL) {
        err = make(route, &tls, d);
        if (err == ERR_OK) {
            memcpy(tls->id, id, sizeof(id));
            (void)map_set(all, sv_from(id), tls);
        }
    }
    if (err == ERR_OK) {
        tls->refs++;
        *tls_out = tls;
    }
    (void)pthread_mutex_unlock(&lock);
    return err;
}

void proxy_upstream_tls_unref(struct proxy_upstream_tls **tls)
{
    struct proxy_upstream_tls *t = TAKE(*tls);

    if (t == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    if (--t->refs == 0) {
        (void)map_take(all, sv_from(t->id));
        SSL_CTX_free(t->ctx);
        mem_free(&t);
        if (map_count(all) == 0) {
            map_free(&all);
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

SSL_CTX *proxy_upstream_tls_ctx(const struct proxy_upstream_tls *tls)
{
    return tls->ctx;
}

/* ---- a connection ---------------------------------------------------------------------------- */

static bool is_address(const char *name)
{
    unsigned char room[16];

    return inet_pton(AF_INET, name, room) == 1 || inet_pton(AF_INET6, name, room) == 1;
}

static bool set_name(SSL *ssl, const char *name, bool verify)
{
    char bare[PROXY_HOST_MAX];
    size_t n = strlen(name);

    if (name[0] == '[' && n > 2 && n < sizeof(bare)) { /* an IPv6 address as URLs write it */
        memcpy(bare, name + 1, n - 2);
        bare[n - 2] = '\0';
        name = bare;
    }
    /* RFC 6066 3: an address is no server name */
    if (!is_address(name) && SSL_set_tlsext_host_name(ssl, name) != 1) {
        return false;
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return !verify || SSL_set1_host(ssl, name) == 1;
}

SSL *proxy_upstream_tls_open(const struct proxy_target *target, int fd)
{
    SSL *ssl = SSL_new(target->tls);

    CHECK(ssl != NULL && SSL_set_fd(ssl, fd) == 1);
    if (!set_name(ssl, target->server_name, target->verify)) {
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

void proxy_upstream_tls_look(struct proxy_target *target, const SSL *ssl)
{
    const X509 *cert = SSL_get0_peer_certificate(ssl);
    int64_t now_s = clock_wall_s();
    int64_t ends_s = cert == NULL ? 0 : keypair_time_s(X509_get0_notAfter(cert));
    uint32_t today = (uint32_t)(now_s / DAY_S);
    int64_t left_days = (ends_s - now_s) / DAY_S;

    if (ends_s == 0 || left_days >= CONFIG_ENDS_SOON_DAYS ||
        __atomic_exchange_n(&target->warned_day, today, __ATOMIC_RELAXED) == today) {
        return;
    }
    log_warn("upstream.certificate-ends", KV_SV("upstream", target->url.text),
             KV_STR("name", target->server_name), KV_I64("days", left_days));
}
