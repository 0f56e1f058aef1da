/* What is no mistake, but somebody should see to. */
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/clock.h"
#include "common/config/reader.h"

enum { DAY_S = 86400, SENTENCE_MAX = 1024, FEATURE_STATUS_REQUEST = 5 };

struct advice {
    const struct config *config;
    int64_t now_s;
    config_advice_fn fn;
    void *arg;
    size_t n;
};

static void say(struct advice *a, struct config_place place, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

static void say(struct advice *a, struct config_place place, const char *fmt, ...)
{
    CLEANUP(buf_deinit) struct buf b = { 0 };
    va_list ap;

    if (a->n++ >= CONFIG_ADVICE_MAX) {
        return;
    }
    buf_init(&b, SENTENCE_MAX);
    if (place.line != 0) {
        buf_printf(&b, "%s:%d:%d: ", place.file, place.line, place.column);
    } else {
        buf_printf(&b, "%s: ", place.file);
    }
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    a->fn(buf_cstr(&b), a->arg);
}

/* "ended on 2026-11-27", "ends on 2026-12-02, in 5 days"; false: there is time. */
static bool end_text(const struct advice *a, int64_t ends_s, char out[64])
{
    char date[CLOCK_TEXT_SIZE];
    int64_t days = (ends_s - a->now_s + DAY_S / 2) / DAY_S;

    (void)clock_format(ends_s * 1000, date);
    if (ends_s <= a->now_s) {
        (void)snprintf(out, 64, "ended on %.10s", date);
    } else if (days == 0) {
        (void)snprintf(out, 64, "ends on %.10s, in a few hours", date);
    } else {
        (void)snprintf(out, 64, "ends on %.10s, in %lld day%s", date, (long long)days,
                       days == 1 ? "" : "s");
    }
    return ends_s < a->now_s + (int64_t)CONFIG_ENDS_SOON_DAYS * DAY_S;
}

static struct config_place whole(const struct advice *a)
{
    return (struct config_place){ a->config->file.n != 0 ? a->config->file.p : "environment", 0,
                                  0 };
}

static struct config_place place_of_route(const struct config_route *route)
{
    return (struct config_place){ route->file, route->line, route->column };
}

/* --- the listener's certificates ----------------------------------------------------------------- */

static bool must_staple(const X509 *leaf)
{
    TLS_FEATURE *features = X509_get_ext_d2i(leaf, NID_tlsfeature, NULL, NULL);
    bool must = false;

    for (int i = 0; i < sk_ASN1_INTEGER_num(features); i++) {
        must =
            must || ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == FEATURE_STATUS_REQUEST;
    }
    sk_ASN1_INTEGER_pop_free(features, ASN1_INTEGER_free);
    return must;
}

static void look_at_staple(struct advice *a, const struct config_certificate *cert,
                           struct config_place place)
{
    bool must = must_staple(keypair_leaf(cert->pair));

    if (cert->ocsp_ends_s != 0 && cert->ocsp.n == 0) {
        say(a, place,
            "the OCSP response does not say that the certificate is good: replace the "
            "certificate; nothing is stapled");
    } else if (cert->ocsp.n != 0 && cert->ocsp_ends_s <= a->now_s) {
        say(a, place, "the OCSP response has ended: nothing is stapled until the file is renewed");
    } else if (must && cert->ocsp.n == 0) {
        say(a, place,
            "the certificate demands a stapled OCSP response, but \"ocsp\" names none: "
            "browsers will refuse it");
    }
}

static void look_at_certificates(struct advice *a)
{
    char text[64];

    for (size_t i = 0; i < a->config->n_certificates; i++) {
        const struct config_certificate *cert = &a->config->certificates[i];
        struct config_place place = { cert->file, cert->line, cert->column };

        if (cert->pair == NULL) {
            continue;
        }
        if (end_text(a, keypair_ends_s(cert->pair), text)) {
            say(a, place, "the certificate %s%s%s: renew it",
                cert->cert_file.n == 0 ? "" : cert->cert_file.p, cert->cert_file.n == 0 ? "" : " ",
                text);
        }
        look_at_staple(a, cert, place);
    }
}

/* --- names --------------------------------------------------------------------------------------- */

static void add_names(struct map *names, const X509 *leaf)
{
    GENERAL_NAMES *sans = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);

    for (int i = 0; i < sk_GENERAL_NAME_num(sans); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(sans, i);
        char lower[256];
        int n = name->type == GEN_DNS ? ASN1_STRING_length(name->d.dNSName) : 0;

        if (n <= 0 || (size_t)n >= sizeof(lower)) {
            continue;
        }
        for (int k = 0; k < n; k++) {
            char c = (char)ASN1_STRING_get0_data(name->d.dNSName)[k];

            lower[k] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
        }
        (void)map_set(names, sv_of(lower, (size_t)n), names);
    }
    GENERAL_NAMES_free(sans);
}

static bool is_covered(const struct map *names, struct sv host)
{
    char wild[256];
    size_t dot = sv_find(host, '.');

    if (map_get(names, host) != NULL) {
        return true;
    }
    if (dot == SIZE_MAX || host.n - dot + 1 >= sizeof(wild)) {
        return false;
    }
    wild[0] = '*';
    memcpy(wild + 1, host.p + dot, host.n - dot);
    return map_get(names, sv_of(wild, host.n - dot + 1)) != NULL;
}

static bool is_a_name(struct sv host)
{
    return host.n != 0 && host.p[0] != '[' &&
           !(host.p[host.n - 1] >= '0' && host.p[host.n - 1] <= '9');
}

static void look_at_hosts(struct advice *a)
{
    const struct config *c = a->config;
    struct map *names = NULL;
    struct map *said = NULL;

    if (c->insecure_server || c->n_certificates == 0 || c->certificates[0].pair == NULL) {
        return;
    }
    names = map_new();
    said = map_new();
    for (size_t i = 0; i < c->n_certificates; i++) {
        add_names(names, keypair_leaf(c->certificates[i].pair));
    }
    if (is_a_name(c->authenticate_service_url.host) &&
        !is_covered(names, c->authenticate_service_url.host)) {
        say(a, whole(a),
            "no certificate covers %s, the host of authenticate_service_url: browsers "
            "will warn",
            c->authenticate_service_url.host.p);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *route = &c->routes[i];

        if (is_a_name(route->host) && !is_covered(names, route->host) &&
            map_set(said, route->host, said) == NULL) {
            say(a, place_of_route(route), "no certificate covers %s: browsers will warn",
                route->host.p);
        }
    }
    map_free(&names);
    map_free(&said);
}

/* --- the others' certificates -------------------------------------------------------------------- */

static void look_at_cas(struct advice *a, struct config_place place, const char *key, struct sv pem)
{
    BIO *bio = pem.n == 0 ? NULL : BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *ca = NULL;
    char text[64];

    if (pem.n == 0) { /* as with most of 10,000 routes */
        return;
    }
    CHECK(bio != NULL);
    for (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL); ca != NULL;
         ca = PEM_read_bio_X509(bio, NULL, NULL, NULL)) {
        if (end_text(a, keypair_time_s(X509_get0_notAfter(ca)), text)) {
            say(a, place, "%s: a CA %s", key, text);
        }
        X509_free(ca);
    }
    BIO_free(bio);
    ERR_clear_error();
}

static void look_at_lists(struct advice *a)
{
    struct sv pem = a->config->downstream_mtls.crl;
    BIO *bio = BIO_new_mem_buf(pem.n == 0 ? "" : pem.p, (int)pem.n);
    X509_CRL *crl = NULL;

    CHECK(bio != NULL);
    for (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL); crl != NULL;
         crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) {
        int64_t ends_s = keypair_time_s(X509_CRL_get0_nextUpdate(crl));

        if (ends_s != 0 && ends_s <= a->now_s) {
            say(a, whole(a),
                "downstream_mtls.crl: a list has ended: no certificate from there is "
                "trusted until it is renewed");
        }
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
}

static void look_at_upstreams(struct advice *a)
{
    const struct config *c = a->config;
    const struct config_route *first = NULL;
    size_t unverified = 0;
    char text[64];

    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *route = &c->routes[i];

        if (route->tls_skip_verify) {
            first = first == NULL ? route : first;
            unverified++;
        }
        if (route->client_pair != NULL && end_text(a, keypair_ends_s(route->client_pair), text)) {
            say(a, place_of_route(route), "tls_client_cert %s: renew it", text);
        }
        look_at_cas(a, place_of_route(route), "tls_custom_ca", route->tls_custom_ca);
        look_at_cas(a, place_of_route(route), "tls_downstream_client_ca", route->client_ca);
    }
    if (first != NULL) {
        say(a, place_of_route(first),
            "tls_skip_verify: anybody on the way can pose as the upstream of %zu route%s; use "
            "tls_custom_ca or tls_upstream_server_name instead",
            unverified, unverified == 1 ? ", this one" : "s, this is the first");
    }
}

/* Whoever has a person log in to any application at the provider can act as them here. */
static void look_at_audiences(struct advice *a)
{
    const struct config *c = a->config;

    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *route = &c->routes[i];

        if (route->bearer == CONFIG_BEARER_IDP_ACCESS &&
            config_takes_any_audience(route->access_audiences)) {
            say(a, place_of_route(route),
                "idp_access_token_allowed_audiences: [\"*\"] takes tokens that people gave other "
                "applications: every application at the provider must be yours");
            return;
        }
    }
}

void config_advise(const struct config *config, int64_t now_s, config_advice_fn fn, void *arg)
{
    struct advice a = { .config = config, .now_s = now_s, .fn = fn, .arg = arg };

    look_at_certificates(&a);
    look_at_hosts(&a);
    look_at_cas(&a, whole(&a), "downstream_mtls.ca", config->downstream_mtls.ca);
    look_at_lists(&a);
    look_at_upstreams(&a);
    look_at_audiences(&a);
    if (a.n > CONFIG_ADVICE_MAX) {
        CLEANUP(buf_deinit) struct buf b = { 0 };

        buf_init(&b, SENTENCE_MAX);
        buf_printf(&b, "%s: and %zu more of these", whole(&a).file, a.n - CONFIG_ADVICE_MAX);
        fn(buf_cstr(&b), arg);
    }
}
