/* plan: when which name is asked for, and what a restart remembers. */
#include "acme/plan.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/mem.h"
#include "test/support/cmocka.h"

#include "acme/folder.h"

#define DAY  86400LL
#define NOW  1800000000LL
#define LIFE (90 * DAY)

struct place {
    char folder[64];
    struct config *config;
    int lock;
};

static struct config *config_of(const struct place *p, const char *more)
{
    const struct config_opts opts = { .file = "test.yaml", .part = CONFIG_PART_ACME };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    char text[1024];

    (void)snprintf(text, sizeof(text),
                   "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
                   "autocert: true\n"
                   "autocert_dir: %s/certs\n"
                   "%s"
                   "routes:\n"
                   "  - {from: https://a.example.com, to: http://10.0.0.1, "
                   "allow_public_unauthenticated_access: true}\n"
                   "  - {from: https://b.example.com, to: http://10.0.0.1, "
                   "allow_public_unauthenticated_access: true}\n",
                   p->folder, more);
    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("%s", config_errors_text(errors, 0));
    }
    return config;
}

static int set_up(void **state)
{
    struct place *p = MEM_NEW(struct place);
    struct diag d = { .line = 0 };

    (void)snprintf(p->folder, sizeof(p->folder), "/tmp/postern-plan-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    p->config = config_of(p, "");
    assert_int_equal(acme_folder_open(p->config, &p->lock, &d), ERR_OK);
    *state = p;
    return 0;
}

static void remove_kind(const struct place *p, const char *kind)
{
    static const char *const files[] = { "a.example.com.pem", "b.example.com.pem",
                                         "a.example.com.json", "b.example.com.json" };
    char path[512];
    struct buf folder;

    buf_init(&folder, sizeof(path));
    acme_folder_path(p->config, kind, &folder);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", buf_cstr(&folder), files[i]);
        (void)unlink(path);
    }
    (void)rmdir(buf_cstr(&folder));
    (void)snprintf(path, sizeof(path), "%s/certs/%s", p->folder, kind);
    (void)rmdir(path);
    buf_deinit(&folder);
}

static int tear_down(void **state)
{
    struct place *p = *state;
    char path[128];

    (void)close(p->lock);
    remove_kind(p, "accounts");
    remove_kind(p, "certificates");
    remove_kind(p, "notes");
    (void)snprintf(path, sizeof(path), "%s/certs/lock", p->folder);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/certs", p->folder);
    (void)rmdir(path);
    (void)rmdir(p->folder);
    config_unref(&p->config);
    mem_free(&p);
    return 0;
}

static X509 *certificate(const char *name, int64_t from_s, int64_t until_s, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    char names[128];
    X509_EXTENSION *san = NULL;

    (void)snprintf(names, sizeof(names), "DNS:%s", name);
    san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    assert_non_null(san);
    assert_non_null(ASN1_TIME_set(X509_getm_notBefore(cert), from_s));
    assert_non_null(ASN1_TIME_set(X509_getm_notAfter(cert), until_s));
    assert_int_equal(X509_set_version(cert, X509_VERSION_3), 1);
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    assert_int_equal(X509_add_ext(cert, san, -1), 1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    X509_EXTENSION_free(san);
    return cert;
}

/* As the client writes it; other_key: one that does not fit. */
static void put(const struct place *p, const char *host, const char *name, int64_t from_s,
                bool other_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    EVP_PKEY *other = EVP_EC_gen("P-256");
    X509 *cert = certificate(name, from_s, from_s + LIFE, key);
    struct buf path;
    FILE *file = NULL;

    buf_init(&path, 512);
    acme_folder_path(p->config, "certificates", &path);
    buf_printf(&path, "/%s.pem", host);
    file = fopen(buf_cstr(&path), "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(PEM_write_PrivateKey(file, other_key ? other : key, NULL, NULL, 0, NULL, NULL),
                     1);
    assert_int_equal(fclose(file), 0);
    buf_deinit(&path);
    X509_free(cert);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

static struct acme_plan *plan_of(const struct place *p)
{
    struct acme_plan *plan = acme_plan_new();

    acme_plan_set(plan, p->config);
    return plan;
}

static void missing_certificates_are_due_at_once(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);

    assert_int_equal(acme_plan_count(plan), 2);
    assert_int_equal(acme_plan_missing(plan, NOW), 2);
    assert_string_equal(acme_plan_next(plan, NOW)->host, "a.example.com");
}

static void a_certificate_is_due_when_a_third_of_its_life_is_left(void **state)
{
    const struct place *p = *state;
    struct acme_plan *plan = NULL;
    int64_t due = 0;

    put(p, "a.example.com", "a.example.com", NOW, false);
    put(p, "b.example.com", "b.example.com", NOW, false);
    plan = plan_of(p);
    assert_int_equal(acme_plan_missing(plan, NOW), 0);
    assert_null(acme_plan_next(plan, NOW + LIFE * 2 / 3 - LIFE / 30 - 1));
    due = acme_plan_due_at(acme_plan_next(plan, NOW + LIFE * 2 / 3));
    assert_true(due <= NOW + LIFE * 2 / 3 && due >= NOW + LIFE * 2 / 3 - LIFE / 30 - 1);
    assert_int_equal(acme_plan_missing(plan, NOW + LIFE), 2);
    acme_plan_free(&plan);
}

static void what_cannot_be_used_is_missing(void **state)
{
    const struct place *p = *state;
    struct acme_plan *plan = NULL;

    put(p, "a.example.com", "a.example.com", NOW, true);      /* another's key */
    put(p, "b.example.com", "other.example.com", NOW, false); /* another's name */
    plan = plan_of(p);
    assert_int_equal(acme_plan_missing(plan, NOW), 2);
    acme_plan_free(&plan);
}

static void a_refused_name_waits_twice_as_long_each_time_and_a_restart_too(void **state)
{
    const struct place *p = *state;
    struct acme_plan *plan = NULL;
    int64_t now_s = NOW;
    int64_t wait_s = 300;

    put(p, "b.example.com", "b.example.com", NOW, false);
    for (int i = 0; i < 12; i++) {
        struct acme_name *name = NULL;

        plan = plan_of(p);
        name = acme_plan_next(plan, now_s);
        assert_non_null(name);
        assert_string_equal(name->host, "a.example.com");
        acme_plan_done(plan, name, ACME_REFUSED, now_s);
        acme_plan_free(&plan);

        plan = plan_of(p); /* a restart */
        assert_null(acme_plan_next(plan, now_s + wait_s - 1));
        acme_plan_free(&plan);
        now_s += wait_s + wait_s / 5 + 1;
        wait_s = MIN(wait_s * 2, 6 * 3600LL);
    }
}

static void a_server_that_asks_for_less_is_left_alone_for_an_hour(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);
    struct acme_name *name = acme_plan_next(plan, NOW);

    acme_plan_done(plan, name, ACME_LIMITED, NOW);
    assert_true(acme_plan_due_at(name) >= NOW + 3600);
    assert_string_equal(acme_plan_next(plan, NOW)->host, "b.example.com");
}

static void nobody_asks_a_server_that_cannot_be_asked(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);
    struct acme_name *name = acme_plan_next(plan, NOW);

    acme_plan_done(plan, name, ACME_BUSY, NOW);
    assert_null(acme_plan_next(plan, NOW + 9));
    assert_string_equal(acme_plan_next(plan, NOW + 13)->host, "b.example.com");
}

static void a_certificate_ends_the_waiting(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);
    struct acme_name *name = acme_plan_next(plan, NOW);

    acme_plan_done(plan, name, ACME_REFUSED, NOW);
    put(p, name->host, name->host, NOW, false);
    acme_plan_done(plan, name, ACME_ISSUED, NOW + 400);
    assert_int_equal(name->failures, 0);
    assert_int_equal(name->not_after_s, NOW + LIFE);
    assert_int_equal(acme_folder_note(p->config, name->host).failures, 0);
}

static void orders_have_a_rate(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);
    int n = 0;

    while (n < 1000 && acme_plan_next(plan, NOW) != NULL) {
        n++;
    }
    assert_int_equal(n, ACME_BURST);
    assert_null(acme_plan_next(plan, NOW + ACME_EVERY_S - 1));
    assert_non_null(acme_plan_next(plan, NOW + ACME_EVERY_S));
    assert_null(acme_plan_next(plan, NOW + ACME_EVERY_S));
}

static void another_configuration_does_not_start_the_rate_anew(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);

    for (int i = 0; i < ACME_BURST; i++) {
        assert_non_null(acme_plan_next(plan, NOW));
    }
    acme_plan_set(plan, NULL);
    assert_null(acme_plan_next(plan, NOW + 10000));
    acme_plan_set(plan, p->config);
    assert_null(acme_plan_next(plan, NOW));
}

static void a_better_setting_ends_the_waiting_and_an_unrelated_one_does_not(void **state)
{
    const struct place *p = *state;
    CLEANUP(acme_plan_free) struct acme_plan *plan = plan_of(p);
    CLEANUP(config_unref) struct config *other = config_of(p, "autocert_email: a@example.com\n");

    put(p, "b.example.com", "b.example.com", NOW, false);
    acme_plan_read(plan);
    acme_plan_done(plan, acme_plan_next(plan, NOW), ACME_REFUSED, NOW);
    acme_plan_set(plan, p->config);
    assert_null(acme_plan_next(plan, NOW + 1));
    acme_plan_set(plan, other);
    assert_string_equal(acme_plan_next(plan, NOW + 1)->host, "a.example.com");
}

static void a_note_that_makes_no_sense_is_none(void **state)
{
    static const char *const texts[] = { "", "{", "[]", "{\"failures\": -1, \"again_at\": 5}",
                                         "{\"failures\": \"x\", \"again_at\": 5}" };
    const struct place *p = *state;
    struct buf path;

    buf_init(&path, 512);
    acme_folder_path(p->config, "notes", &path);
    buf_add_str(&path, "/a.example.com.json");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int fd = open(buf_cstr(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, texts[i], strlen(texts[i])), strlen(texts[i]));
        (void)close(fd);
        assert_int_equal(acme_folder_note(p->config, "a.example.com").failures, 0);
    }
    buf_deinit(&path);
}

static void a_folder_has_one_that_orders(void **state)
{
    const struct place *p = *state;
    struct diag d = { .line = 0 };
    int other = -1;

    assert_int_equal(acme_folder_open(p->config, &other, &d), ERR_EXISTS);
    assert_int_equal(other, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(missing_certificates_are_due_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_certificate_is_due_when_a_third_of_its_life_is_left,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_used_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_refused_name_waits_twice_as_long_each_time_and_a_restart_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_server_that_asks_for_less_is_left_alone_for_an_hour,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_asks_a_server_that_cannot_be_asked, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_certificate_ends_the_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(orders_have_a_rate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_configuration_does_not_start_the_rate_anew, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_better_setting_ends_the_waiting_and_an_unrelated_one_does_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_note_that_makes_no_sense_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_folder_has_one_that_orders, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
