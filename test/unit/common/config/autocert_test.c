/* autocert: which names are asked for, what is refused, and the certificates that are there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/config/config.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

#define KEY  "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define HEAD "shared_secret: " KEY "\nautocert: true\n"
#define PUB  "to: http://10.0.0.1, allow_public_unauthenticated_access: true}\n"

static struct config *read_as(const char *text, enum config_part part, char *error, size_t room)
{
    const struct config_opts opts = { .file = "/etc/postern/c.yaml", .part = part };
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        if (error == NULL) {
            fail_msg("refused: %s", config_errors_text(errors, 0));
        }
        (void)snprintf(error, room, "%s", config_errors_text(errors, 0));
        config_errors_free(&errors);
    }
    return config;
}

static void settings_that_contradict_are_refused(void **state)
{
    static const struct {
        const char *yaml;
        const char *error;
    } rows[] = {
        { "insecure_server: true\n", "autocert gets certificates for TLS" },
        { "autocert_ca: http://ca.example.com/dir\n", "autocert_ca: ACME is spoken over https" },
        { "autocert_ca: ca.example.com\n", "autocert_ca: expected an absolute" },
        { "autocert_ca: https://ca.example.com/\nautocert_use_staging: true\n",
          "autocert_use_staging names Let's Encrypt's" },
        { "autocert_dir: s3://bucket/folder\n", "autocert_dir: only a folder" },
        { "autocert_eab_key_id: a\n", "\"autocert_eab_key_id\" and \"autocert_eab_mac_key\"" },
        { "autocert_eab_mac_key: a\n", "\"autocert_eab_key_id\" and \"autocert_eab_mac_key\"" },
        { "autocert_trusted_ca: x\n", "autocert_trusted_ca: expected certificates" },
        { "autocert_must_staple: true\n", "autocert_must_staple: such a certificate stops" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[512];
        char error[512] = "";

        (void)snprintf(text, sizeof(text), HEAD "%s", rows[i].yaml);
        assert_null(read_as(text, CONFIG_PART_ACME, error, sizeof(error)));
        if (strstr(error, rows[i].error) == NULL) {
            fail_msg("%s\n%s", rows[i].yaml, error);
        }
    }
}

static void every_server_has_folders_of_its_own(void **state)
{
    static const struct {
        const char *yaml;
        const char *url;
        const char *name;
    } rows[] = {
        { "", "https://acme-v02.api.letsencrypt.org/directory",
          "acme-v02.api.letsencrypt.org-directory" },
        { "autocert_use_staging: true\n", "https://acme-staging-v02.api.letsencrypt.org/directory",
          "acme-staging-v02.api.letsencrypt.org-directory" },
        { "autocert_ca: https://CA.example.com:14000/a/../b?c\n",
          "https://CA.example.com:14000/a/../b?c", "ca.example.com-14000-a-..-b-c" },
        { "autocert_ca: https://[::1]/\n", "https://[::1]/", "---1--" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[512];
        struct config *c = NULL;

        (void)snprintf(text, sizeof(text), HEAD "%s", rows[i].yaml);
        c = read_as(text, CONFIG_PART_ACME, NULL, 0);
        assert_string_equal(c->autocert_ca.p, rows[i].url);
        assert_string_equal(c->autocert_server.p, rows[i].name);
        assert_string_equal(c->autocert_dir.p, "/etc/postern/autocert");
        config_unref(&c);
    }
}

static void assert_names(const struct config_strings *list, const char *const *names)
{
    size_t n = 0;

    for (n = 0; names[n] != NULL; n++) {
        assert_true(n < list->n);
        assert_string_equal(list->v[n].p, names[n]);
    }
    assert_int_equal(list->n, n);
}

static void names_that_can_be_proven_are_asked_for_once(void **state)
{
    static const char text[] =
        HEAD "authenticate_service_url: https://login.example.com\n"
             "idp_provider: local\nidp_local_users_file: /etc/hosts\n"
             "routes:\n"
             "  - {from: https://App.example.com, prefix: /a, " PUB
             "  - {from: https://app.example.com, prefix: /b, " PUB
             "  - {from: 'https://b-1.example.com:8443', " PUB
             "  - {from: http://plain.example.com, " PUB "  - {from: 'https://*.example.com', " PUB
             "  - {from: https://localhost, " PUB "  - {from: https://192.0.2.1, " PUB
             "  - {from: 'https://[2001:db8::1]', " PUB
             "  - {from: https://under_score.example.com, " PUB;
    static const char *const asked[] = { "login.example.com", "app.example.com", "b-1.example.com",
                                         NULL };
    static const char *const skipped[] = {
        "*.example.com", "localhost", "192.0.2.1", "[2001:db8::1]", "under_score.example.com", NULL
    };
    struct config *c = read_as(text, CONFIG_PART_ACME, NULL, 0);

    (void)state;
    assert_names(&c->autocert_hosts, asked);
    assert_names(&c->autocert_skipped, skipped);
    config_unref(&c);
}

static void without_autocert_nothing_is_asked_for(void **state)
{
    struct config *c = read_as("shared_secret: " KEY "\ninsecure_server: true\n"
                               "autocert_ca: http://x\nroutes:\n  - {from: https://a.b, " PUB,
                               CONFIG_PART_ACME, NULL, 0);

    (void)state;
    assert_false(c->autocert);
    assert_int_equal(c->autocert_hosts.n, 0);
    config_unref(&c);
}

static void the_key_of_an_external_account_is_read_by_acme_alone(void **state)
{
    static const char text[] =
        HEAD "autocert_eab_key_id: a\nautocert_eab_mac_key_file: /nonexistent/mac\n";
    char error[512] = "";
    struct config *c = NULL;

    (void)state;
    assert_null(read_as(text, CONFIG_PART_ACME, error, sizeof(error)));
    assert_non_null(strstr(error, "/nonexistent/mac"));
    c = read_as(text, CONFIG_PART_PROXY, NULL, 0);
    assert_null(c->autocert_eab_mac_key);
    config_unref(&c);
}

static void staging_does_not_pin_browsers_to_tls(void **state)
{
    struct config *c = read_as(HEAD "autocert_use_staging: true\n", CONFIG_PART_PROXY, NULL, 0);

    (void)state;
    for (size_t i = 0; i < c->set_response_headers.n; i++) {
        assert_false(sv_ieq(c->set_response_headers.v[i].name, SV("Strict-Transport-Security")));
    }
    config_unref(&c);
}

/* ---- certificates that are there ------------------------------------------------------------- */

struct place {
    char folder[64];
    char file[160];
    char text[512];
};

static int set_up(void **state)
{
    struct place *p = MEM_NEW(struct place);

    (void)snprintf(p->folder, sizeof(p->folder), "/tmp/postern-autocert-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    (void)snprintf(p->file, sizeof(p->file), "%s/certificates", p->folder);
    assert_int_equal(mkdir(p->file, 0700), 0);
    (void)snprintf(p->file, sizeof(p->file), "%s/certificates/ca.example.com-d", p->folder);
    assert_int_equal(mkdir(p->file, 0700), 0);
    (void)snprintf(p->file, sizeof(p->file), "%s/certificates/ca.example.com-d/a.example.com.pem",
                   p->folder);
    (void)snprintf(p->text, sizeof(p->text),
                   HEAD "autocert_ca: https://ca.example.com/d\nautocert_dir: %s\n"
                        "routes:\n  - {from: https://a.example.com, " PUB,
                   p->folder);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;

    (void)unlink(p->file);
    for (int i = 0; i < 3; i++) {
        *strrchr(p->file, '/') = '\0';
        (void)rmdir(p->file);
    }
    mem_free(&p);
    return 0;
}

/* As the client writes it. */
static void put(const struct place *p, bool key_fits)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    EVP_PKEY *other = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    FILE *file = fopen(p->file, "w");

    assert_non_null(file);
    assert_int_equal(X509_set_version(cert, X509_VERSION_3), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(cert), 0));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), 3600));
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(PEM_write_PrivateKey(file, key_fits ? key : other, NULL, NULL, 0, NULL, NULL),
                     1);
    assert_int_equal(fclose(file), 0);
    X509_free(cert);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

static void the_proxy_starts_without_and_takes_what_comes(void **state)
{
    const struct place *p = *state;
    struct config *before = read_as(p->text, CONFIG_PART_PROXY, NULL, 0);
    struct config *after = NULL;

    assert_int_equal(before->n_certificates, 1); /* the stand-in, which stays the first */
    put(p, true);
    after = read_as(p->text, CONFIG_PART_PROXY, NULL, 0);
    assert_int_equal(after->n_certificates, 2);
    assert_int_equal(after->certificates[0].cert_file.n, 0);
    assert_string_equal(after->certificates[1].cert_file.p, p->file);
    assert_string_not_equal(before->checksum, after->checksum);
    config_unref(&before);
    config_unref(&after);
}

static void damage_is_no_mistake_of_the_configuration(void **state)
{
    const struct place *p = *state;
    FILE *file = NULL;
    struct config *c = NULL;

    put(p, false);
    c = read_as(p->text, CONFIG_PART_PROXY, NULL, 0);
    assert_int_equal(c->n_certificates, 1);
    config_unref(&c);
    file = fopen(p->file, "w");
    assert_non_null(file);
    assert_true(fputs("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    c = read_as(p->text, CONFIG_PART_PROXY, NULL, 0);
    assert_int_equal(c->n_certificates, 1);
    config_unref(&c);
}

static void other_parts_do_not_read_keys(void **state)
{
    const struct place *p = *state;
    struct config *c = NULL;

    put(p, true);
    c = read_as(p->text, CONFIG_PART_AUTHORIZE, NULL, 0);
    assert_int_equal(c->n_certificates, 0);
    config_unref(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_that_contradict_are_refused),
        cmocka_unit_test(every_server_has_folders_of_its_own),
        cmocka_unit_test(names_that_can_be_proven_are_asked_for_once),
        cmocka_unit_test(without_autocert_nothing_is_asked_for),
        cmocka_unit_test(the_key_of_an_external_account_is_read_by_acme_alone),
        cmocka_unit_test(staging_does_not_pin_browsers_to_tls),
        cmocka_unit_test_setup_teardown(the_proxy_starts_without_and_takes_what_comes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(damage_is_no_mistake_of_the_configuration, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(other_parts_do_not_read_keys, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
