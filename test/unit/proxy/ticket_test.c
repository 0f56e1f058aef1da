/* ticket: which tickets resume: by secret, by time, by version. Two ends in memory. */
#include "proxy/ticket.h"

#include <string.h>

#include <openssl/pem.h>

#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"
#include "test/support/pki.h"

static const int64_t slice_ms = INT64_C(1000) * PROXY_TICKET_SLICE_S;

static struct keys *keys_of(unsigned char first, unsigned char second)
{
    char bytes[KEYS_SECRET_BYTES];
    struct secret *secrets[2] = { NULL, NULL };
    struct keys *keys = NULL;

    memset(bytes, first, sizeof(bytes));
    secrets[0] = secret_new(sv_of(bytes, sizeof(bytes)));
    memset(bytes, second, sizeof(bytes));
    secrets[1] = secret_new(sv_of(bytes, sizeof(bytes)));
    assert_int_equal(keys_new((const struct secret *const *)secrets, second == 0 ? 1 : 2, &keys),
                     ERR_OK);
    secret_free(&secrets[0]);
    secret_free(&secrets[1]);
    return keys;
}

static SSL_CTX *server_of(const struct keys *keys, const struct pki_pair *pair)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    BIO *cert_bio = BIO_new_mem_buf(pair->cert, -1);
    BIO *key_bio = BIO_new_mem_buf(pair->key, -1);
    X509 *cert = PEM_read_bio_X509(cert_bio, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, NULL);

    assert_int_equal(SSL_CTX_use_cert_and_key(ctx, cert, key, NULL, 1), 1);
    proxy_ticket_use(ctx, keys);
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    return ctx;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION **kept = SSL_get_app_data(ssl);

    SSL_SESSION_free(*kept);
    *kept = session;
    return 1;
}

/* One conversation; session: offered if not NULL, the new one afterwards. True: it was resumed. */
static bool talk(SSL_CTX *server_ctx, int version, SSL_SESSION **session)
{
    SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
    SSL *client = NULL;
    SSL *server = SSL_new(server_ctx);
    BIO *one = NULL;
    BIO *two = NULL;
    char byte = 0;
    bool resumed = false;
    int i = 0;

    (void)SSL_CTX_set_session_cache_mode(client_ctx,
                                         SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, on_session);
    (void)SSL_CTX_set_max_proto_version(client_ctx, version);
    client = SSL_new(client_ctx);
    (void)SSL_set_app_data(client, session);
    if (*session != NULL) {
        assert_int_equal(SSL_set_session(client, *session), 1);
    }
    assert_int_equal(BIO_new_bio_pair(&one, 1 << 16, &two, 1 << 16), 1);
    SSL_set_bio(client, one, one);
    SSL_set_bio(server, two, two);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    for (i = 0; i < 10; i++) {
        (void)SSL_do_handshake(client);
        (void)SSL_do_handshake(server);
    }
    assert_true(SSL_is_init_finished(client) && SSL_is_init_finished(server));
    assert_int_equal(SSL_write(server, "x", 1), 1);
    assert_int_equal(SSL_read(client, &byte, 1), 1); /* takes the tickets on the way */
    resumed = SSL_session_reused(client) == 1;
    assert_int_equal(resumed, SSL_session_reused(server));
    (void)SSL_shutdown(client); /* or OpenSSL takes the session for a broken one */
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(client_ctx);
    return resumed;
}

struct fixture {
    struct pki_pair pair;
    struct keys *keys;
    SSL_CTX *server;
    SSL_SESSION *session;
};

static int set_up(void **state)
{
    struct fixture *f = MEM_NEW(struct fixture);

    f->pair = pki_pair_new(PKI_P256, "a");
    f->keys = keys_of(1, 0);
    f->server = server_of(f->keys, &f->pair);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    SSL_SESSION_free(f->session);
    SSL_CTX_free(f->server);
    keys_free(&f->keys);
    pki_pair_deinit(&f->pair);
    mem_free(&f);
    return 0;
}

/* Whether another proxy with these secrets takes f's ticket. */
static bool other_takes(struct fixture *f, unsigned char first, unsigned char second)
{
    struct keys *keys = keys_of(first, second);
    SSL_CTX *server = server_of(keys, &f->pair);
    SSL_SESSION *offered = SSL_SESSION_dup(f->session); /* a client offers a session once */
    bool taken = false;

    taken = talk(server, TLS1_3_VERSION, &offered);
    SSL_SESSION_free(offered);
    SSL_CTX_free(server);
    keys_free(&keys);
    return taken;
}

static void test_whoever_has_the_secret_resumes(void **state)
{
    struct fixture *f = *state;

    assert_false(talk(f->server, TLS1_3_VERSION, &f->session));
    assert_true(other_takes(f, 1, 0));
    assert_true(other_takes(f, 2, 1)); /* the secret is being replaced */
    assert_true(other_takes(f, 1, 2));
    assert_false(other_takes(f, 2, 0));
    assert_false(other_takes(f, 2, 3));
    assert_true(talk(f->server, TLS1_3_VERSION, &f->session));
}

static void test_a_ticket_is_good_for_its_slice_and_the_next(void **state)
{
    struct fixture *f = *state;

    assert_false(talk(f->server, TLS1_3_VERSION, &f->session));
    clock_test_shift(slice_ms);
    assert_true(other_takes(f, 1, 0));
    clock_test_shift(slice_ms);
    assert_false(other_takes(f, 1, 0));
    clock_test_shift(-3 * slice_ms); /* the maker's clock is ahead of ours */
    assert_true(other_takes(f, 1, 0));
    clock_test_shift(-slice_ms);
    assert_false(other_takes(f, 1, 0));
    clock_test_shift(2 * slice_ms);
}

static void test_a_ticket_of_the_last_slice_is_renewed(void **state)
{
    struct fixture *f = *state;

    assert_false(talk(f->server, TLS1_3_VERSION, &f->session));
    clock_test_shift(slice_ms);
    assert_true(talk(f->server, TLS1_3_VERSION, &f->session));
    clock_test_shift(slice_ms);
    assert_true(talk(f->server, TLS1_3_VERSION, &f->session));
    clock_test_shift(-2 * slice_ms);
}

static void test_tls_12_never_resumes(void **state)
{
    struct fixture *f = *state;

    assert_false(talk(f->server, TLS1_2_VERSION, &f->session));
    assert_false(talk(f->server, TLS1_2_VERSION, &f->session));
}

static void test_a_changed_ticket_is_none(void **state)
{
    struct fixture *f = *state;
    const unsigned char *ticket = NULL;
    unsigned char *der = NULL;
    const unsigned char *p = NULL;
    size_t n = 0;
    size_t at = 0;
    int der_n = 0;

    assert_false(talk(f->server, TLS1_3_VERSION, &f->session));
    SSL_SESSION_get0_ticket(f->session, &ticket, &n);
    assert_memory_equal(ticket, "PT1", 3);
    der_n = i2d_SSL_SESSION(f->session, &der);
    assert_true(der_n > 0);
    while (memcmp(der + at, ticket, n) != 0) {
        at++;
    }
    for (size_t i = 0; i < n; i += 5) {
        SSL_SESSION *changed = NULL;

        der[at + i] ^= 0x40U;
        p = der;
        changed = d2i_SSL_SESSION(NULL, &p, der_n);
        der[at + i] ^= 0x40U;
        assert_non_null(changed);
        assert_false(talk(f->server, TLS1_3_VERSION, &changed));
        SSL_SESSION_free(changed);
    }
    OPENSSL_free(der);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whoever_has_the_secret_resumes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_ticket_is_good_for_its_slice_and_the_next, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_ticket_of_the_last_slice_is_renewed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_tls_12_never_resumes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_changed_ticket_is_none, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
