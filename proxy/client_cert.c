#include "proxy/client_cert.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/x509.h>

#include "common/authz_block.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/policy/cert.h"

/* Routes with CAs of their own on one connection: more than a few take turns. */
enum { VERDICTS = 4, NAME_TEXT = 256, LOGS_A_SECOND = 10 };

struct kept {
    struct proxy_trust *trust;
    bool trusted;
    int64_t until_s;
};

struct proxy_client_cert {
    X509 *leaf;
    STACK_OF(X509) * chain; /* NULL: it sent none */
    struct policy_cert_facts *facts;
    Postern__ClientCertificate message;
    ProtobufCBinaryData names[AUTHZ_CERT_NAMES_MAX];
    struct kept kept[VERDICTS];
    unsigned next;
};

/* ---- facts ----------------------------------------------------------------------------------- */

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

static size_t size_of(const struct sv *names, size_t n)
{
    size_t size = 0;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        size += names[i].n;
    }
    return size;
}

static ProtobufCBinaryData *fill(ProtobufCBinaryData *at, const struct sv *names, size_t n)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        at[i] = bytes_of(names[i]);
    }
    return at + n;
}

/* Facts that are too many for a check are left out whole: such a certificate is shown and matches
 * nothing, it is never read in part. */
static bool fill_message(struct proxy_client_cert *c, const struct policy_cert *facts)
{
    Postern__ClientCertificate *m = &c->message;
    ProtobufCBinaryData *at = c->names;
    size_t n = facts->san_email_count + facts->san_dns_count + facts->san_uri_count;
    size_t size = size_of(facts->san_email, facts->san_email_count) +
                  size_of(facts->san_dns, facts->san_dns_count) +
                  size_of(facts->san_uri, facts->san_uri_count) + facts->issuer.n +
                  facts->subject.n;

    if (n > AUTHZ_CERT_NAMES_MAX || size > AUTHZ_CERT_BYTES_MAX) {
        return false;
    }
    m->fingerprint = bytes_of(sv_of(facts->fingerprint, sizeof(facts->fingerprint)));
    m->spki = bytes_of(sv_of(facts->spki, sizeof(facts->spki)));
    m->issuer = bytes_of(facts->issuer);
    m->subject = bytes_of(facts->subject);
    m->san_email = at;
    m->n_san_email = facts->san_email_count;
    at = fill(at, facts->san_email, facts->san_email_count);
    m->san_dns = at;
    m->n_san_dns = facts->san_dns_count;
    at = fill(at, facts->san_dns, facts->san_dns_count);
    m->san_uri = at;
    m->n_san_uri = facts->san_uri_count;
    (void)fill(at, facts->san_uri, facts->san_uri_count);
    return true;
}

static void read_facts(struct proxy_client_cert *c)
{
    unsigned char *der = NULL;
    int n = i2d_X509(c->leaf, &der);

    if (n > 0 && policy_cert_of_der(sv_of(der, (size_t)n), &c->facts) == ERR_OK &&
        !fill_message(c, policy_cert_get(c->facts))) {
        policy_cert_free(&c->facts);
    }
    OPENSSL_free(der);
    ERR_clear_error();
}

struct proxy_client_cert *proxy_client_cert_new(const SSL *ssl)
{
    X509 *leaf = SSL_get1_peer_certificate(ssl);
    STACK_OF(X509) *chain = leaf == NULL ? NULL : SSL_get_peer_cert_chain(ssl);
    struct proxy_client_cert *c = NULL;

    if (leaf == NULL) {
        return NULL;
    }
    c = MEM_NEW(struct proxy_client_cert);
    c->leaf = leaf;
    c->chain = chain == NULL ? NULL : X509_chain_up_ref(chain);
    postern__client_certificate__init(&c->message);
    read_facts(c);
    return c;
}

void proxy_client_cert_free(struct proxy_client_cert **cert)
{
    struct proxy_client_cert *c = TAKE(*cert);
    size_t i = 0;

    if (c == NULL) {
        return;
    }
    for (i = 0; i < VERDICTS; i++) {
        proxy_trust_unref(&c->kept[i].trust);
    }
    policy_cert_free(&c->facts);
    sk_X509_pop_free(c->chain, X509_free);
    X509_free(c->leaf);
    mem_free(&c);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void log_refused(const struct proxy_client_cert *c, const char *why, const char *peer)
{
    static _Thread_local struct log_limit limit;
    char subject[NAME_TEXT] = "";
    char issuer[NAME_TEXT] = "";

    if (!log_limit_pass(&limit, LOGS_A_SECOND)) {
        return;
    }
    (void)X509_NAME_oneline(X509_get_subject_name(c->leaf), subject, sizeof(subject));
    (void)X509_NAME_oneline(X509_get_issuer_name(c->leaf), issuer, sizeof(issuer));
    log_info("client-certificate.untrusted", KV_STR("why", why), KV_STR("subject", subject),
             KV_STR("issuer", issuer), KV_STR("peer", peer));
}

static bool is_trusted(struct proxy_client_cert *c, struct proxy_trust *trust, const char *peer)
{
    struct proxy_trust_verdict verdict = { .trusted = false };
    struct kept *k = NULL;
    size_t i = 0;

    for (i = 0; i < VERDICTS; i++) {
        if (c->kept[i].trust == trust) {
            k = &c->kept[i];
        }
    }
    if (k != NULL && clock_wall_s() < k->until_s) {
        return k->trusted;
    }
    if (k == NULL) {
        k = &c->kept[c->next++ % VERDICTS];
        proxy_trust_unref(&k->trust);
        k->trust = proxy_trust_ref(trust);
        k->trusted = true; /* so that a refusal is news */
    }
    proxy_trust_judge(trust, c->leaf, c->chain, &verdict);
    if (!verdict.trusted && k->trusted) {
        log_refused(c, verdict.why, peer);
    }
    k->trusted = verdict.trusted;
    k->until_s = verdict.until_s;
    return k->trusted;
}

Postern__ClientCertificate *proxy_client_cert_for(struct proxy_client_cert *cert,
                                                  struct proxy_trust *trust, const char *peer)
{
    cert->message.trusted = trust != NULL && cert->facts != NULL && is_trusted(cert, trust, peer);
    return &cert->message;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static struct sv hex_text(ProtobufCBinaryData bytes, struct arena *arena)
{
    static const char digits[] = "0123456789abcdef";
    char *text = arena_alloc(arena, bytes.len * 2);
    size_t i = 0;

    for (i = 0; i < bytes.len; i++) {
        text[2 * i] = digits[bytes.data[i] >> 4U];
        text[2 * i + 1] = digits[bytes.data[i] & 15U];
    }
    return sv_of(text, bytes.len * 2);
}

/* A name with a comma in it would be read as two: then there is no list. */
static struct sv list_text(const ProtobufCBinaryData *names, size_t n, struct arena *arena)
{
    size_t size = 0;
    size_t at = 0;
    size_t i = 0;
    char *text = NULL;

    for (i = 0; i < n; i++) {
        if (sv_find(sv_of(names[i].data, names[i].len), ',') != SIZE_MAX) {
            return (struct sv){ 0 };
        }
        size += names[i].len + 1;
    }
    text = arena_alloc(arena, size);
    for (i = 0; i < n; i++) {
        if (at != 0) {
            text[at++] = ',';
        }
        memcpy(text + at, names[i].data, names[i].len);
        at += names[i].len;
    }
    return at == 0 ? (struct sv){ 0 } : sv_of(text, at);
}

void proxy_client_cert_texts(struct proxy_client_cert *cert, struct proxy_trust *trust,
                             const char *peer, struct arena *arena,
                             struct proxy_client_cert_texts *texts_out)
{
    const Postern__ClientCertificate *m = proxy_client_cert_for(cert, trust, peer);

    *texts_out = (struct proxy_client_cert_texts){ .fingerprint = { 0 } };
    if (m->trusted) {
        texts_out->fingerprint = hex_text(m->fingerprint, arena);
        texts_out->san_dns = list_text(m->san_dns, m->n_san_dns, arena);
        texts_out->san_email = list_text(m->san_email, m->n_san_email, arena);
    }
}
