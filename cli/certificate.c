#include "cli/certificate.h"

#include <string.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "cli/file.h"
#include "common/buf.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum { CA_DAYS = 3650, SERVER_DAYS = 397, RENEW_DAYS = 30, PEM_MAX = 65536, BACKDATE_S = 3600 };

enum { NAME_MAX_LEN = 200, NAMES_MAX = 65536 };

static const char server_names[] =
    "DNS:demo.localhost,DNS:admin.localhost,DNS:public.localhost,DNS:authenticate.localhost,"
    "DNS:localhost,IP:127.0.0.1";

static void extend(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    CHECK(ext != NULL && X509_add_ext(cert, ext, -1) == 1);
    X509_EXTENSION_free(ext);
}

static X509 *new_certificate(EVP_PKEY *key, const char *name, int days)
{
    X509 *cert = X509_new();

    CHECK(cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), rand_u64() >> 1U) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(cert), -BACKDATE_S) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(cert), (long)days * 86400) != NULL);
    CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                                     (const unsigned char *)name, -1, -1, 0) == 1);
    CHECK(X509_set_pubkey(cert, key) == 1);
    return cert;
}

static enum err write_bio(const char *path, BIO *bio, unsigned mode, struct diag *d)
{
    char *p = NULL;
    long n = BIO_get_mem_data(bio, &p);
    enum err err = cli_file_write(path, sv_of(p, (size_t)n), mode, d);

    BIO_free(bio);
    return err;
}

static enum err write_pair(const struct cli_trial *t, const char *cert_name, const char *key_name,
                           X509 *cert, EVP_PKEY *key, struct diag *d)
{
    BIO *cert_bio = BIO_new(BIO_s_mem());
    BIO *key_bio = BIO_new(BIO_s_secmem());
    char path[TRIAL_PATH];
    enum err err = ERR_OK;

    CHECK(cert_bio != NULL && key_bio != NULL);
    CHECK(PEM_write_bio_X509(cert_bio, cert) == 1);
    CHECK(PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    err = write_bio(cli_trial_path(t, key_name, path), key_bio, 0600, d);
    if (err != ERR_OK) {
        BIO_free(cert_bio);
        return err;
    }
    return write_bio(cli_trial_path(t, cert_name, path), cert_bio, 0644, d);
}

static enum err make_ca(const struct cli_trial *t, struct diag *d)
{
    EVP_PKEY *key = NULL;
    X509 *ca = NULL;
    char path[TRIAL_PATH];
    enum err err = ERR_OK;

    if (cli_file_exists(cli_trial_path(t, "ca.pem", path))) {
        return ERR_OK;
    }
    key = EVP_EC_gen("P-256");
    CHECK(key != NULL);
    ca = new_certificate(key, "Postern trial CA", CA_DAYS);
    CHECK(X509_set_issuer_name(ca, X509_get_subject_name(ca)) == 1);
    extend(ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    extend(ca, NID_key_usage, "critical,keyCertSign,cRLSign");
    /* Whoever trusts this CA trusts it for these names alone. */
    extend(ca, NID_name_constraints,
           "critical,permitted;DNS:localhost,permitted;IP:127.0.0.0/255.0.0.0");
    CHECK(X509_sign(ca, key, EVP_sha256()) != 0);
    err = write_pair(t, "ca.pem", "ca-key.pem", ca, key, d);
    X509_free(ca);
    EVP_PKEY_free(key);
    return err;
}

/* NULL with a sentence in d when the file is missing or no PEM of its kind. */
static BIO *read_bio(const struct cli_trial *t, const char *name, char **text_out, struct diag *d)
{
    char path[TRIAL_PATH];

    if (cli_file_read(cli_trial_path(t, name, path), PEM_MAX, text_out, d) != ERR_OK) {
        return NULL;
    }
    return BIO_new_mem_buf(*text_out, -1);
}

static X509 *read_certificate(const struct cli_trial *t, const char *name, struct diag *d)
{
    char *text = NULL;
    BIO *bio = read_bio(t, name, &text, d);
    X509 *cert = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);

    if (cert == NULL) {
        diag_set(d, "%s/%s holds no certificate", t->folder, name);
    }
    BIO_free(bio);
    mem_free(&text);
    return cert;
}

static EVP_PKEY *read_key(const struct cli_trial *t, const char *name, struct diag *d)
{
    char *text = NULL;
    BIO *bio = read_bio(t, name, &text, d);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);

    if (key == NULL) {
        diag_set(d, "%s/%s holds no private key", t->folder, name);
    }
    BIO_free(bio);
    if (text != NULL) {
        secret_wipe(text, strlen(text));
    }
    mem_free(&text);
    return key;
}

static bool server_is_current(const struct cli_trial *t)
{
    char path[TRIAL_PATH];
    X509 *cert = NULL;
    X509 *ca = NULL;
    int days = 0;
    int seconds = 0;
    bool current = false;

    if (!cli_file_exists(cli_trial_path(t, "server.pem", path)) ||
        !cli_file_exists(cli_trial_path(t, "server-key.pem", path))) {
        return false;
    }
    cert = read_certificate(t, "server.pem", NULL);
    ca = read_certificate(t, "ca.pem", NULL);
    current = cert != NULL && ca != NULL && X509_verify(cert, X509_get0_pubkey(ca)) == 1 &&
              ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) == 1 &&
              days >= RENEW_DAYS;
    X509_free(cert);
    X509_free(ca);
    return current;
}

static enum err issue_server(const struct cli_trial *t, X509 *ca, EVP_PKEY *ca_key,
                             const char *names, struct diag *d)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = NULL;
    enum err err = ERR_OK;

    CHECK(key != NULL);
    cert = new_certificate(key, "demo.localhost", SERVER_DAYS);
    CHECK(X509_set_issuer_name(cert, X509_get_subject_name(ca)) == 1);
    extend(cert, NID_basic_constraints, "critical,CA:FALSE");
    extend(cert, NID_key_usage, "critical,digitalSignature");
    extend(cert, NID_ext_key_usage, "serverAuth");
    extend(cert, NID_subject_alt_name, names);
    CHECK(X509_sign(cert, ca_key, EVP_sha256()) != 0);
    err = write_pair(t, "server.pem", "server-key.pem", cert, key, d);
    X509_free(cert);
    EVP_PKEY_free(key);
    return err;
}

static enum err issue(const struct cli_trial *t, const char *names, struct diag *d)
{
    X509 *ca = read_certificate(t, "ca.pem", d);
    EVP_PKEY *ca_key = ca == NULL ? NULL : read_key(t, "ca-key.pem", d);
    enum err err = ERR_OK;

    if (ca_key == NULL || X509_check_private_key(ca, ca_key) != 1) {
        diag_set(d, "ca.pem and ca-key.pem in %s do not belong together; delete both for new ones",
                 t->folder);
        err = ERR_CRYPTO;
    } else {
        err = issue_server(t, ca, ca_key, names, d);
    }
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    return err;
}

enum err cli_certificates_make(const struct cli_trial *t, struct diag *d)
{
    enum err err = make_ca(t, d);

    if (err != ERR_OK || server_is_current(t)) {
        return err;
    }
    return issue(t, server_names, d);
}

/* What the trial's CA may name, and OpenSSL's checker understands: a '*' is the whole first label. */
static bool is_ours(struct sv host)
{
    size_t star = sv_rfind(host, '*');

    return sv_ends(host, SV(".localhost")) && host.n < NAME_MAX_LEN &&
           (star == SIZE_MAX || (star == 0 && sv_starts(host, SV("*."))));
}

static bool has_name(struct sv names, struct sv host)
{
    while (names.p != NULL) {
        struct sv one = sv_cut(&names, ',');

        if (sv_starts(one, SV("DNS:")) && sv_eq(sv_from_at(one, 4), host)) {
            return true;
        }
    }
    return false;
}

enum err cli_certificates_cover(const struct cli_trial *t, const struct config *config,
                                struct diag *d)
{
    X509 *cert = read_certificate(t, "server.pem", d);
    struct buf names;
    bool missing = false;
    enum err err = ERR_OK;

    if (cert == NULL) {
        return ERR_CRYPTO;
    }
    buf_init(&names, NAMES_MAX);
    buf_add_str(&names, server_names);
    for (size_t i = 0; i < config->n_routes; i++) {
        struct sv host = config->routes[i].host;

        if (is_ours(host) && !has_name(buf_sv(&names), host)) {
            buf_printf(&names, ",DNS:%s", host.p);
            missing = missing || X509_check_host(cert, host.p, host.n, 0, NULL) != 1;
        }
    }
    if (missing && names.err == ERR_OK) {
        err = issue(t, buf_cstr(&names), d);
    }
    buf_deinit(&names);
    X509_free(cert);
    return err;
}
