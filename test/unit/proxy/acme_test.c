/* acme: which challenges are answered, and that nothing else comes of one. */
#include "proxy/acme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/crypto/stand_in.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

struct place {
    char folder[64];
    SSL_CTX *site;
};

static const char *path_of(const struct place *p, const char *name, char room[256])
{
    (void)snprintf(room, 256, "%s/challenges/%s", p->folder, name);
    return room;
}

static void write_text(const struct place *p, const char *name, const char *text)
{
    char room[256];
    FILE *file = fopen(path_of(p, name, room), "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static X509 *certificate(const char *name, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *subject = X509_get_subject_name(cert);

    assert_int_equal(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                                (const unsigned char *)name, -1, -1, 0),
                     1);
    assert_int_equal(X509_set_version(cert, X509_VERSION_3), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(cert), -60));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), 3600));
    assert_int_equal(X509_set_issuer_name(cert, subject), 1);
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

static void write_challenge(const struct place *p, const char *host)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = certificate("challenge", key);
    char name[128];
    char room[256];
    FILE *file = NULL;

    (void)snprintf(name, sizeof(name), "tls-alpn-01/%s.pem", host);
    file = fopen(path_of(p, name, room), "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static int choose_http(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char mine[] = "\x08http/1.1";
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

static int set_up(void **state)
{
    struct place *p = MEM_NEW(struct place);
    struct keypair *pair = stand_in_new();
    char room[256];

    (void)snprintf(p->folder, sizeof(p->folder), "/tmp/postern-acme-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    assert_int_equal(mkdir(path_of(p, "", room), 0700), 0);
    assert_int_equal(mkdir(path_of(p, "http-01", room), 0700), 0);
    assert_int_equal(mkdir(path_of(p, "tls-alpn-01", room), 0700), 0);
    p->site = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(p->site, keypair_leaf(pair)), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(p->site, keypair_key(pair)), 1);
    keypair_unref(&pair);
    proxy_acme_listen(p->site);
    SSL_CTX_set_alpn_select_cb(p->site, choose_http, NULL);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = { "http-01/token",
                                         "http-01/other",
                                         "http-01/lines",
                                         "http-01/no.token",
                                         "http-01/bare",
                                         "http-01/big",
                                         "http-01/link",
                                         "tls-alpn-01/a.example.com.pem",
                                         "tls-alpn-01/broken.pem",
                                         "tls-alpn-01/a.example.com",
                                         "http-01",
                                         "tls-alpn-01",
                                         "" };
    struct place *p = *state;
    char room[256];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)remove(path_of(p, names[i], room));
    }
    (void)rmdir(p->folder);
    SSL_CTX_free(p->site);
    mem_free(&p);
    return 0;
}

static struct proxy_acme *table_of(const struct place *p)
{
    return proxy_acme_read(sv_from(p->folder));
}

/* ---- HTTP-01 --------------------------------------------------------------------------------- */

static void an_open_token_is_answered_with_its_key_authorization(void **state)
{
    const struct place *p = *state;
    CLEANUP(proxy_acme_unref) struct proxy_acme *acme = NULL;

    write_text(p, "http-01/token", "token.thumb-PRINT_1");
    acme = table_of(p);
    assert_true(sv_eq(proxy_acme_answer(acme, SV("/.well-known/acme-challenge/token")),
                      SV("token.thumb-PRINT_1")));
    assert_int_equal(proxy_acme_answer(acme, SV("/.well-known/acme-challenge/Token")).n, 0);
    assert_int_equal(proxy_acme_answer(acme, SV("/.well-known/acme-challenge/token/")).n, 0);
    assert_int_equal(proxy_acme_answer(acme, SV("/.well-known/acme-challenge/")).n, 0);
    assert_int_equal(proxy_acme_answer(acme, SV("/.well-known/acme-challenge")).n, 0);
    assert_int_equal(proxy_acme_answer(acme, SV("token")).n, 0);
    assert_int_equal(proxy_acme_answer(NULL, SV("/.well-known/acme-challenge/token")).n, 0);
}

static void a_file_that_is_no_answer_to_its_token_is_not_told(void **state)
{
    static const char *const names[] = { "other", "lines", "no.token", "bare", "big", "link" };
    const struct place *p = *state;
    CLEANUP(proxy_acme_unref) struct proxy_acme *acme = NULL;
    char big[20000];
    char room[256];
    char path[128];

    write_text(p, "http-01/other", "token.thumb");
    write_text(p, "http-01/lines", "lines.a\r\nSet-Cookie: b");
    write_text(p, "http-01/no.token", "no.token.thumb");
    write_text(p, "http-01/bare", "bare");
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    memcpy(big, "big.", 4);
    write_text(p, "http-01/big", big);
    assert_int_equal(symlink("/etc/passwd", path_of(p, "http-01/link", room)), 0);
    acme = table_of(p);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof(path), "/.well-known/acme-challenge/%s", names[i]);
        assert_int_equal(proxy_acme_answer(acme, sv_from(path)).n, 0);
    }
}

static void a_folder_that_is_not_there_has_no_challenges(void **state)
{
    CLEANUP(proxy_acme_unref) struct proxy_acme *none = proxy_acme_read(SV("/nonexistent"));
    CLEANUP(proxy_acme_unref) struct proxy_acme *off = proxy_acme_read(SV(""));

    (void)state;
    assert_int_equal(proxy_acme_answer(none, SV("/.well-known/acme-challenge/a")).n, 0);
    assert_int_equal(proxy_acme_answer(off, SV("/.well-known/acme-challenge/a")).n, 0);
}

/* ---- TLS-ALPN-01 ----------------------------------------------------------------------------- */

struct handshake {
    bool done;
    bool challenge; /* as the server sees it */
    char shown[64]; /* CN of the certificate that the client got */
};

/* name NULL: no SNI. alpn: as in the extension, each with its length. */
static struct handshake shake(const struct place *p, struct proxy_acme *acme, const char *name,
                              const char *alpn)
{
    struct handshake h = { .done = false };
    struct proxy_acme *slot = acme;
    SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
    SSL *client = SSL_new(client_ctx);
    SSL *server = SSL_new(p->site);
    BIO *a = NULL;
    BIO *b = NULL;
    X509 *cert = NULL;

    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(client, a, a);
    SSL_set_bio(server, b, b);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    proxy_acme_attach(server, &slot);
    assert_int_equal(
        SSL_set_alpn_protos(client, (const unsigned char *)alpn, (unsigned)strlen(alpn)), 0);
    if (name != NULL) {
        assert_int_equal(SSL_set_tlsext_host_name(client, name), 1);
    }
    for (int i = 0; i < 20 && !h.done; i++) {
        int one = SSL_do_handshake(client);
        int two = SSL_do_handshake(server);

        h.done = one == 1 && two == 1;
    }
    h.challenge = proxy_acme_was_challenge(server);
    cert = SSL_get1_peer_certificate(client);
    if (cert != NULL) {
        (void)X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, h.shown,
                                        sizeof(h.shown));
        X509_free(cert);
    }
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(client_ctx);
    return h;
}

static void an_open_challenge_gets_its_certificate_and_nothing_else(void **state)
{
    const struct place *p = *state;
    CLEANUP(proxy_acme_unref) struct proxy_acme *acme = NULL;
    struct handshake h;

    write_challenge(p, "a.example.com");
    acme = table_of(p);
    h = shake(p, acme, "a.example.com",
              "\x0a"
              "acme-tls/1");
    assert_true(h.done && h.challenge);
    assert_string_equal(h.shown, "challenge");
    h = shake(p, acme, "A.Example.COM",
              "\x0a"
              "acme-tls/1");
    assert_true(h.done && h.challenge);
}

static void a_challenge_that_is_not_open_is_refused(void **state)
{
    const struct place *p = *state;
    CLEANUP(proxy_acme_unref) struct proxy_acme *acme = NULL;

    write_challenge(p, "a.example.com");
    write_text(p, "tls-alpn-01/broken.pem", "-----BEGIN CERTIFICATE-----\n");
    write_text(p, "tls-alpn-01/a.example.com", "no suffix");
    acme = table_of(p);
    assert_false(shake(p, acme, "b.example.com",
                       "\x0a"
                       "acme-tls/1")
                     .done);
    assert_false(shake(p, acme, "broken",
                       "\x0a"
                       "acme-tls/1")
                     .done);
    assert_false(shake(p, acme, NULL,
                       "\x0a"
                       "acme-tls/1")
                     .done);
    assert_false(shake(p, NULL, "a.example.com",
                       "\x0a"
                       "acme-tls/1")
                     .done);
}

static void who_looks_at_a_challenge_needs_no_certificate(void **state)
{
    const struct place *p = *state;
    CLEANUP(proxy_acme_unref) struct proxy_acme *acme = NULL;

    SSL_CTX_set_verify(p->site, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    write_challenge(p, "a.example.com");
    acme = table_of(p);
    assert_true(shake(p, acme, "a.example.com",
                      "\x0a"
                      "acme-tls/1")
                    .done);
    assert_false(shake(p, acme, "a.example.com", "\x08http/1.1").done);
}

static void who_offers_more_than_the_challenge_is_a_visitor(void **state)
{
    const struct place *p = *state;
    CLEANUP(proxy_acme_unref) struct proxy_acme *acme = NULL;
    struct handshake h;

    write_challenge(p, "a.example.com");
    acme = table_of(p);
    h = shake(p, acme, "a.example.com",
              "\x0a"
              "acme-tls/1"
              "\x08http/1.1");
    assert_true(h.done);
    assert_false(h.challenge);
    assert_string_equal(h.shown, "no certificate yet");
    h = shake(p, acme, "a.example.com", "\x08http/1.1");
    assert_true(h.done);
    assert_false(h.challenge);
    assert_false(shake(p, acme, "a.example.com",
                       "\x0a"
                       "acme-tls/1"
                       "\x02h9")
                     .done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_open_token_is_answered_with_its_key_authorization,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_answer_to_its_token_is_not_told, set_up,
                                        tear_down),
        cmocka_unit_test(a_folder_that_is_not_there_has_no_challenges),
        cmocka_unit_test_setup_teardown(an_open_challenge_gets_its_certificate_and_nothing_else,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_challenge_that_is_not_open_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_looks_at_a_challenge_needs_no_certificate, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(who_offers_more_than_the_challenge_is_a_visitor, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
