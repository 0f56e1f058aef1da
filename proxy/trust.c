#include "proxy/trust.h"

#include <arpa/inet.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/clock.h"
#include "common/crypto/keypair.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/pattern.h"

enum { AGAIN_S = 60, SECURITY_LEVEL = 2, CAS_MAX = 1024, LISTS_MAX = 1024 };

struct name_rule {
    enum config_san_kind kind;
    struct pattern *pattern;
};

struct proxy_trust {
    int refs; /* atomic */
    X509_STORE *store;
    STACK_OF(X509_NAME) * names;
    int64_t *list_ends_s;
    size_t n_lists;
    struct name_rule *rules;
    size_t n_rules;
    int depth; /* certificates above the leaf */
};

/* ---- building -------------------------------------------------------------------------------- */

static enum err add_cas(struct proxy_trust *t, struct sv pem, struct diag *d)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *ca = NULL;
    int n = 0;

    CHECK(bio != NULL);
    for (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL); ca != NULL && n < CAS_MAX;
         ca = PEM_read_bio_X509(bio, NULL, NULL, NULL)) {
        CHECK(X509_STORE_add_cert(t->store, ca) == 1);
        CHECK(sk_X509_NAME_push(t->names, X509_NAME_dup(X509_get_subject_name(ca))) > 0);
        X509_free(ca);
        n++;
    }
    X509_free(ca);
    BIO_free(bio);
    ERR_clear_error();
    if (n == 0 || n == CAS_MAX) {
        diag_set(d, "the CAs for client certificates: there are %s", n == 0 ? "none" : "too many");
        return ERR_INVALID;
    }
    return ERR_OK;
}

static enum err add_lists(struct proxy_trust *t, struct sv pem, struct diag *d)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509_CRL *crl = NULL;

    CHECK(bio != NULL);
    t->list_ends_s = mem_array(LISTS_MAX, sizeof(*t->list_ends_s));
    for (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL); crl != NULL && t->n_lists < LISTS_MAX;
         crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) {
        CHECK(X509_STORE_add_crl(t->store, crl) == 1);
        t->list_ends_s[t->n_lists++] = keypair_time_s(X509_CRL_get0_nextUpdate(crl));
        X509_CRL_free(crl);
    }
    X509_CRL_free(crl);
    BIO_free(bio);
    ERR_clear_error();
    if (t->n_lists == 0 || t->n_lists == LISTS_MAX) {
        diag_set(d, "downstream_mtls.crl: there are %s lists", t->n_lists == 0 ? "no" : "too many");
        return ERR_INVALID;
    }
    return ERR_OK;
}

static enum err add_rules(struct proxy_trust *t, const struct config_mtls *mtls, struct diag *d)
{
    size_t i = 0;

    t->rules = mem_array(mtls->n_names + 1, sizeof(*t->rules));
    for (i = 0; i < mtls->n_names; i++) {
        struct sv text = mtls->names[i].pattern;
        enum err err = pattern_new(text, PATTERN_WHOLE, &t->rules[i].pattern, d);

        if (err != ERR_OK) {
            return err;
        }
        t->rules[i].kind = mtls->names[i].kind;
        t->n_rules++;
    }
    return ERR_OK;
}

static void set_rules_of_chains(struct proxy_trust *t, bool lists)
{
    X509_VERIFY_PARAM *param = X509_STORE_get0_param(t->store);
    /* What an operator names as CA is trusted, also where it has a CA above it. */
    unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;

    if (lists) {
        flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
    }
    CHECK(X509_VERIFY_PARAM_set_flags(param, flags) == 1);
    CHECK(X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT) == 1);
    X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
    X509_VERIFY_PARAM_set_depth(param, PROXY_TRUST_DEPTH_MAX);
}

enum err proxy_trust_new(const struct config_mtls *mtls, struct sv ca,
                         struct proxy_trust **trust_out, struct diag *d)
{
    CLEANUP(proxy_trust_unref) struct proxy_trust *t = MEM_NEW(struct proxy_trust);
    enum err err = ERR_OK;

    t->refs = 1;
    t->store = X509_STORE_new();
    t->names = sk_X509_NAME_new_null();
    CHECK(t->store != NULL && t->names != NULL);
    t->depth = mtls->max_verify_depth == 0 ? PROXY_TRUST_DEPTH_MAX : mtls->max_verify_depth;
    set_rules_of_chains(t, mtls->crl.n != 0);
    err = add_cas(t, ca, d);
    if (err == ERR_OK && mtls->crl.n != 0) {
        err = add_lists(t, mtls->crl, d);
    }
    err = err != ERR_OK ? err : add_rules(t, mtls, d);
    if (err != ERR_OK) {
        return err;
    }
    *trust_out = TAKE(t);
    return ERR_OK;
}

struct proxy_trust *proxy_trust_ref(struct proxy_trust *trust)
{
    (void)__atomic_add_fetch(&trust->refs, 1, __ATOMIC_RELAXED);
    return trust;
}

void proxy_trust_unref(struct proxy_trust **trust)
{
    struct proxy_trust *t = TAKE(*trust);
    size_t i = 0;

    if (t == NULL || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    for (i = 0; i < t->n_rules; i++) {
        pattern_unref(&t->rules[i].pattern);
    }
    mem_free(&t->rules);
    mem_free(&t->list_ends_s);
    X509_STORE_free(t->store);
    sk_X509_NAME_pop_free(t->names, X509_NAME_free);
    mem_free(&t);
}

void proxy_trust_add_names(const struct proxy_trust *trust, STACK_OF(X509_NAME) * names)
{
    int i = 0;

    for (i = 0; i < sk_X509_NAME_num(trust->names); i++) {
        CHECK(sk_X509_NAME_push(names, X509_NAME_dup(sk_X509_NAME_value(trust->names, i))) > 0);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

enum { ADDRESS_TEXT = INET6_ADDRSTRLEN };

/* The name's bytes as they are, with their length; an address as text. */
static struct sv name_text(const GENERAL_NAME *name, char room[ADDRESS_TEXT],
                           enum config_san_kind *kind_out)
{
    const ASN1_STRING *s = NULL;
    const ASN1_OCTET_STRING *ip = NULL;

    switch (name->type) {
    case GEN_DNS:
        *kind_out = CONFIG_SAN_DNS;
        s = name->d.dNSName;
        break;
    case GEN_EMAIL:
        *kind_out = CONFIG_SAN_EMAIL;
        s = name->d.rfc822Name;
        break;
    case GEN_URI:
        *kind_out = CONFIG_SAN_URI;
        s = name->d.uniformResourceIdentifier;
        break;
    case GEN_IPADD:
        *kind_out = CONFIG_SAN_IP;
        ip = name->d.iPAddress;
        if ((ip->length != 4 && ip->length != 16) ||
            inet_ntop(ip->length == 4 ? AF_INET : AF_INET6, ip->data, room, ADDRESS_TEXT) == NULL) {
            return (struct sv){ 0 };
        }
        return sv_from(room);
    case GEN_OTHERNAME:
        *kind_out = CONFIG_SAN_UPN;
        if (OBJ_obj2nid(name->d.otherName->type_id) == NID_ms_upn &&
            name->d.otherName->value->type == V_ASN1_UTF8STRING) {
            s = name->d.otherName->value->value.utf8string;
        }
        break;
    default:
        break;
    }
    return s == NULL ? (struct sv){ 0 }
                     : sv_of(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

/* A pattern that hits its bounds has not matched. */
static bool any_rule_fits(const struct proxy_trust *t, struct sv text, enum config_san_kind kind)
{
    size_t i = 0;

    if (text.n == 0 || sv_find(text, '\0') != SIZE_MAX) {
        return false; /* a name with NUL in it is somebody's trick */
    }
    for (i = 0; i < t->n_rules; i++) {
        if (t->rules[i].kind == kind && pattern_fits(t->rules[i].pattern, text) == PATTERN_YES) {
            return true;
        }
    }
    return false;
}

static bool names_fit(const struct proxy_trust *t, const X509 *leaf)
{
    GENERAL_NAMES *names = NULL;
    bool fits = false;
    int i = 0;

    if (t->n_rules == 0) {
        return true;
    }
    names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    for (i = 0; i < sk_GENERAL_NAME_num(names) && !fits; i++) {
        char room[ADDRESS_TEXT];
        enum config_san_kind kind = CONFIG_SAN_DNS;
        struct sv text = name_text(sk_GENERAL_NAME_value(names, i), room, &kind);

        fits = any_rule_fits(t, text, kind);
    }
    GENERAL_NAMES_free(names);
    return fits;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

static int64_t ends_of(const struct proxy_trust *t, STACK_OF(X509) * chain, int64_t now_s)
{
    int64_t until = INT64_MAX;
    size_t k = 0;
    int i = 0;

    for (i = 0; i < sk_X509_num(chain); i++) {
        until = MIN(until, keypair_time_s(X509_get0_notAfter(sk_X509_value(chain, i))));
    }
    for (k = 0; k < t->n_lists; k++) {
        if (t->list_ends_s[k] > now_s) {
            until = MIN(until, t->list_ends_s[k]);
        }
    }
    return until;
}

/* The one place that trusts. */
static void judge(const struct proxy_trust *t, X509_STORE_CTX *ctx, const X509 *leaf,
                  struct proxy_trust_verdict *out)
{
    STACK_OF(X509) *chain = NULL;
    int64_t now_s = clock_wall_s();

    out->until_s = now_s + AGAIN_S;
    X509_STORE_CTX_set_time(ctx, 0, (time_t)now_s);
    if (X509_verify_cert(ctx) != 1) {
        out->why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx));
        return;
    }
    chain = X509_STORE_CTX_get0_chain(ctx);
    if (sk_X509_num(chain) - 1 > t->depth) {
        out->why = "the chain is longer than max_verify_depth";
    } else if (!names_fit(t, leaf)) {
        out->why = "no name of it fits match_subject_alt_names";
    } else {
        out->trusted = true;
        out->until_s = ends_of(t, chain, now_s);
    }
}

void proxy_trust_judge(const struct proxy_trust *trust, X509 *leaf, STACK_OF(X509) * chain,
                       struct proxy_trust_verdict *verdict_out)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();

    *verdict_out = (struct proxy_trust_verdict){ .trusted = false, .why = "it cannot be checked" };
    if (ctx != NULL && X509_STORE_CTX_init(ctx, trust->store, leaf, chain) == 1) {
        judge(trust, ctx, leaf, verdict_out);
    }
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
}
