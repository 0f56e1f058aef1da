/* config: settings of TLS: what is refused, what other programs than the proxy leave alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config/config.h"
#include "common/mem.h"
#include "test/support/cmocka.h"
#include "test/support/pki.h"

#define HEAD "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
#define ROUTE                                                              \
    "routes:\n  - from: https://a.example.com\n    to: https://10.0.0.1\n" \
    "    allow_public_unauthenticated_access: true\n"

static char folder[] = "/tmp/postern-config-tls-XXXXXX";
static struct pki_pair pair;
static struct pki_pair other;

static void write_file(const char *name, const char *text)
{
    char path[256];
    FILE *f = NULL;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
}

/* $ in yaml stands for the folder. */
static struct config *load(enum config_part part, const char *yaml, const char *const *env,
                           const struct config *previous, char refusal[512])
{
    struct config_opts opts = { .file = "c.yaml", .part = part, .env = env, .previous = previous };
    struct config_errors *errors = NULL;
    struct config *config = NULL;
    struct buf text;

    buf_init(&text, 1 << 20);
    for (const char *p = yaml; *p != '\0'; p++) {
        if (*p == '$') {
            buf_add_str(&text, folder);
        } else {
            buf_add_char(&text, *p);
        }
    }
    refusal[0] = '\0';
    if (config_parse(buf_sv(&text), &opts, &config, &errors) != ERR_OK) {
        (void)snprintf(refusal, 512, "%s", config_errors_text(errors, 0));
        config_errors_free(&errors);
    }
    buf_deinit(&text);
    return config;
}

static const struct {
    const char *yaml;
    const char *says;
} refused[] = {
    { "downstream_mtls: {ca_file: $/ca.crt, depth: 2}\n",
      "unknown setting of downstream_mtls \"depth\"" },
    { "downstream_mtls: {ca_file: $/no.crt}\n", "ca_file: cannot read" },
    { "downstream_mtls: {ca: AAAA}\n", "ca: expected certificates as PEM" },
    { "downstream_mtls: {enforcement: policy}\n", "says nothing without \"ca\"" },
    { "downstream_mtls: {ca_file: $/ca.crt, enforcement: maybe}\n",
      "enforcement: expected policy" },
    { "downstream_mtls: {ca_file: $/ca.crt, max_verify_depth: 17}\n", "a number from 0 to 16" },
    { "downstream_mtls: {ca_file: $/ca.crt, crl_file: $/ca.crt}\n", "there is no list of revoked" },
    { "downstream_mtls: {ca_file: $/ca.crt, match_subject_alt_names: [{dns: '('}]}\n", "dns: " },
    { "downstream_mtls: {ca_file: $/ca.crt, match_subject_alt_names: [{name: x}]}\n",
      "unknown kind of name \"name\"" },
    { "downstream_mtls: {ca_file: $/ca.crt, match_subject_alt_names: [{dns: x, uri: y}]}\n",
      "one kind of name" },
    { "downstream_mtls: {ca_file: $/ca.crt}\ninsecure_server: true\n", "need TLS on our side" },
    { "downstream_mtls: {enforcement: reject_connection}\n" ROUTE
      "    tls_downstream_client_ca_file: $/ca.crt\n",
      "reject_connection needs \"ca\"" },
    { "tls_min_version: tls1.1\n", "tls_min_version: expected tls1.2 or tls1.3" },
    { "http_redirect_addr: unix:/x\n", "http_redirect_addr: expected host:port" },
    { "http_redirect_addr: ':80'\ninsecure_server: true\n", "no https to go to" },
    { ROUTE "    tls_client_cert_file: $/a.crt\n", "belong together" },
    { ROUTE "    tls_client_cert_file: $/a.crt\n    tls_client_key_file: $/ca.key\n",
      "do not belong together" },
    { ROUTE "    tls_upstream_allow_renegotiation: true\n", "renegotiation stays off" },
};

static const char certificates[] = HEAD "certificates: [{cert: $/a.crt, key: $/a.key}]\n";

static void test_mistakes_are_refused_with_a_sentence(void **state)
{
    char refusal[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct buf text;
        struct config *config = NULL;

        buf_init(&text, 4096);
        buf_add_str(&text, strstr(refused[i].yaml, "insecure") == NULL ? certificates : HEAD);
        buf_add_str(&text, refused[i].yaml);
        config = load(CONFIG_PART_PROXY, buf_cstr(&text), NULL, NULL, refusal);
        if (config != NULL || strstr(refusal, refused[i].says) == NULL) {
            fail_msg("%s: %s", refused[i].yaml, refusal);
        }
        buf_deinit(&text);
    }
}

static void test_a_certificate_without_its_key_or_with_a_bad_response_is_refused(void **state)
{
    char refusal[512];

    (void)state;
    assert_null(load(CONFIG_PART_PROXY, HEAD "certificates: [{cert: $/a.crt, key: $/ca.key}]\n",
                     NULL, NULL, refusal));
    assert_string_equal(refusal, "c.yaml:2:17: cert: certificate and key do not belong together");
    assert_null(load(CONFIG_PART_PROXY,
                     HEAD "certificates: [{cert: $/a.crt, key: $/a.key, ocsp: $/a.crt}]\n", NULL,
                     NULL, refusal));
    assert_non_null(strstr(refusal, "ocsp: it is no OCSP response"));
    assert_null(load(CONFIG_PART_PROXY,
                     HEAD "certificates: [{cert: $/a.crt, key: $/a.key, oscp: $/a.crt}]\n", NULL,
                     NULL, refusal));
    assert_non_null(strstr(refusal, "unknown setting of a certificate \"oscp\""));
}

static void test_other_parts_know_that_a_ca_is_set_without_reading_it(void **state)
{
    char refusal[512];
    struct config *c =
        load(CONFIG_PART_AUTHORIZE,
             HEAD "downstream_mtls: {ca_file: /not/here.pem, crl_file: /nor/this.pem}\n" ROUTE
                  "    tls_client_cert_file: /not/here.crt\n"
                  "    tls_client_key_file: /not/here.key\n",
             NULL, NULL, refusal);

    (void)state;
    assert_string_equal(refusal, "");
    assert_true(c->downstream_mtls.has_ca && c->asks_client_cert);
    assert_int_equal(c->downstream_mtls.ca.n, 0);
    assert_null(c->routes[0].client_pair);
    config_unref(&c);
}

static void test_the_environment_has_names_for_it(void **state)
{
    char file[256];
    const char *env[] = { file, "DOWNSTREAM_MTLS_ENFORCEMENT=policy",
                          "POSTERN_DOWNSTREAM_MTLS_MAX_VERIFY_DEPTH=3", NULL };
    char refusal[512];
    struct config *c = NULL;

    (void)state;
    (void)snprintf(file, sizeof(file), "DOWNSTREAM_MTLS_CA_FILE=%s/ca.crt", folder);
    c = load(CONFIG_PART_PROXY,
             HEAD "certificates: [{cert: $/a.crt, key: $/a.key}]\n"
                  "downstream_mtls: {enforcement: reject_connection}\n",
             env, NULL, refusal);
    assert_string_equal(refusal, "");
    assert_true(sv_starts(c->downstream_mtls.ca, SV("-----BEGIN")));
    assert_int_equal(c->downstream_mtls.enforcement, CONFIG_MTLS_POLICY);
    assert_int_equal(c->downstream_mtls.max_verify_depth, 3);
    config_unref(&c);
}

static void test_a_reload_takes_over_what_did_not_change(void **state)
{
    static const char yaml[] =
        HEAD "certificates: [{cert: $/a.crt, key: $/a.key}, {cert: $/b.crt, key: $/b.key}]\n" ROUTE
             "    tls_client_cert_file: $/a.crt\n    tls_client_key_file: $/a.key\n";
    char refusal[512];
    struct config *first = NULL;
    struct config *second = NULL;

    (void)state;
    write_file("b.crt", other.cert);
    write_file("b.key", other.key);
    first = load(CONFIG_PART_PROXY, yaml, NULL, NULL, refusal);
    assert_string_equal(refusal, "");
    assert_ptr_not_equal(first->certificates[0].pair, first->certificates[1].pair);
    write_file("b.crt", pair.cert);
    write_file("b.key", pair.key);
    second = load(CONFIG_PART_PROXY, yaml, NULL, first, refusal);
    assert_string_equal(refusal, "");
    assert_ptr_equal(second->certificates[0].pair, first->certificates[0].pair);
    assert_ptr_equal(second->certificates[1].pair, first->certificates[0].pair);
    assert_non_null(second->routes[0].client_pair);
    config_unref(&first);
    assert_non_null(keypair_key(second->certificates[0].pair));
    config_unref(&second);
}

static void note(const char *sentence, void *arg)
{
    struct buf *all = arg;

    buf_add_str(all, sentence);
    buf_add_char(all, '\n');
}

static void test_advice_names_what_ends_and_what_is_not_covered(void **state)
{
    char refusal[512];
    struct config *c =
        load(CONFIG_PART_PROXY,
             HEAD "certificates: [{cert: $/a.crt, key: $/a.key}]\n"
                  "downstream_mtls: {ca_file: $/ca.crt}\n" ROUTE "    tls_skip_verify: true\n"
                  "  - from: https://b.example.com\n    to: https://10.0.0.1\n"
                  "    allow_public_unauthenticated_access: true\n",
             NULL, NULL, refusal);
    struct buf said;
    int64_t ends_s = 0;

    (void)state;
    assert_string_equal(refusal, "");
    ends_s = keypair_ends_s(c->certificates[0].pair);
    buf_init(&said, 1 << 16);
    config_advise(c, ends_s - 20 * 86400LL, note, &said);
    assert_null(strstr(buf_cstr(&said), "the certificate"));
    assert_null(strstr(buf_cstr(&said), "covers a.example.com"));
    assert_non_null(strstr(buf_cstr(&said), "c.yaml:9:5: no certificate covers b.example.com"));
    assert_non_null(strstr(buf_cstr(&said), "c.yaml:5:5: tls_skip_verify: anybody on the way"));
    buf_reset(&said);
    config_advise(c, ends_s - 3 * 86400LL, note, &said);
    assert_non_null(strstr(buf_cstr(&said), "a.crt ends on "));
    assert_non_null(strstr(buf_cstr(&said), ", in 3 days: renew it"));
    buf_reset(&said);
    config_advise(c, ends_s + 1, note, &said);
    assert_non_null(strstr(buf_cstr(&said), "a.crt ended on "));
    assert_non_null(strstr(buf_cstr(&said), "downstream_mtls.ca: a CA ended on"));
    buf_deinit(&said);
    config_unref(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes_are_refused_with_a_sentence),
        cmocka_unit_test(test_a_certificate_without_its_key_or_with_a_bad_response_is_refused),
        cmocka_unit_test(test_other_parts_know_that_a_ca_is_set_without_reading_it),
        cmocka_unit_test(test_the_environment_has_names_for_it),
        cmocka_unit_test(test_a_reload_takes_over_what_did_not_change),
        cmocka_unit_test(test_advice_names_what_ends_and_what_is_not_covered),
    };
    static const char *const files[] = { "a.crt", "a.key", "b.crt", "b.key", "ca.crt", "ca.key" };
    int failed = 0;

    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    pair = pki_pair_new(PKI_P256, "a.example.com");
    other = pki_pair_new(PKI_P256, "ca");
    write_file("a.crt", pair.cert);
    write_file("a.key", pair.key);
    write_file("ca.crt", other.cert);
    write_file("ca.key", other.key);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[256];

        (void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
    pki_pair_deinit(&pair);
    pki_pair_deinit(&other);
    return failed;
}
