/* What strangers send where challenges are answered: a path, and the first bytes of a TLS connection. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <openssl/err.h>

#include "common/crypto/stand_in.h"
#include "proxy/acme.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct proxy_acme *table;
static SSL_CTX *site;

static void set_up(void)
{
    static char folder[] = "/tmp/postern-acme-fuzz-XXXXXX";
    char path[128];
    struct keypair *pair = stand_in_new();
    FILE *file = NULL;

    must(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof(path), "%s/challenges", folder);
    must(mkdir(path, 0700) == 0);
    (void)snprintf(path, sizeof(path), "%s/challenges/http-01", folder);
    must(mkdir(path, 0700) == 0);
    (void)snprintf(path, sizeof(path), "%s/challenges/http-01/t", folder);
    file = fopen(path, "w");
    must(file != NULL && fputs("t.x", file) >= 0 && fclose(file) == 0);
    table = proxy_acme_read(sv_from(folder));
    site = SSL_CTX_new(TLS_server_method());
    must(SSL_CTX_use_certificate(site, keypair_leaf(pair)) == 1 &&
         SSL_CTX_use_PrivateKey(site, keypair_key(pair)) == 1);
    keypair_unref(&pair);
    proxy_acme_listen(site);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SSL *ssl = NULL;
    struct sv answer = { 0 };

    if (table == NULL) {
        set_up();
    }
    answer = proxy_acme_answer(table, sv_of(data, size));
    must(answer.n == 0 || sv_eq(sv_of(data, size), SV("/.well-known/acme-challenge/t")));
    ssl = SSL_new(site);
    proxy_acme_attach(ssl, &table);
    SSL_set_accept_state(ssl);
    SSL_set_bio(ssl, BIO_new_mem_buf(data, (int)size), BIO_new(BIO_s_null()));
    (void)SSL_do_handshake(ssl);
    must(!proxy_acme_was_challenge(ssl)); /* none is open in TLS */
    ERR_clear_error();
    SSL_free(ssl);
    return 0;
}
