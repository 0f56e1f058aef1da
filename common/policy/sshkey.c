#include "common/policy/sshkey.h"

#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "common/b64.h"

/* --- the wire form ------------------------------------------------------------------------------- */

static bool take_string(struct sv *s, struct sv *out)
{
    size_t n = 0;
    size_t i = 0;

    if (s->n < 4) {
        return false;
    }
    for (i = 0; i < 4; i++) {
        n = n << 8 | (unsigned char)s->p[i];
    }
    if (n > s->n - 4) {
        return false;
    }
    *out = sv_head(sv_from_at(*s, 4), n);
    *s = sv_from_at(*s, 4 + n);
    return true;
}

static bool take_uint(struct sv *s, size_t bytes, uint64_t *out)
{
    size_t i = 0;

    if (s->n < bytes) {
        return false;
    }
    *out = 0;
    for (i = 0; i < bytes; i++) {
        *out = *out << 8 | (unsigned char)s->p[i];
    }
    *s = sv_from_at(*s, bytes);
    return true;
}

static struct sv take_word(struct sv *s)
{
    struct sv word = { 0 };
    size_t i = 0;

    *s = sv_trim(*s);
    while (i < s->n && s->p[i] != ' ' && s->p[i] != '\t') {
        i++;
    }
    word = sv_head(*s, i);
    *s = sv_from_at(*s, i);
    return word;
}

enum err policy_sshkey_parse(struct sv text, struct arena *arena, struct sv *wire_out)
{
    struct sv rest = text;
    struct sv type = take_word(&rest);
    struct sv b64 = take_word(&rest);
    struct sv wire = { 0 };
    struct sv inner = { 0 };
    size_t room = b64_decoded_max(b64.n);
    char *bytes = NULL;

    if (type.n == 0 || b64.n == 0 || b64.n > POLICY_SSHKEY_MAX) {
        return ERR_INVALID;
    }
    bytes = arena_alloc(arena, room);
    if (b64_decode(b64, bytes, room, &wire.n) != ERR_OK) {
        return ERR_INVALID;
    }
    wire.p = bytes;
    *wire_out = wire;
    /* the type stands inside as well: another one outside is a mistake or a trick */
    return take_string(&wire, &inner) && sv_eq(inner, type) && wire.n != 0 ? ERR_OK : ERR_INVALID;
}

/* --- signatures ---------------------------------------------------------------------------------- */

static EVP_PKEY *key_from(const char *kind, OSSL_PARAM_BLD *build)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, kind, NULL);
    EVP_PKEY *key = NULL;

    if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *rsa_key(struct sv s)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *e = NULL;
    BIGNUM *n = NULL;
    EVP_PKEY *key = NULL;
    struct sv e_bytes = { 0 };
    struct sv n_bytes = { 0 };

    if (take_string(&s, &e_bytes) && take_string(&s, &n_bytes) && s.n == 0 && e_bytes.n <= 8 &&
        n_bytes.n >= 256 && n_bytes.n <= 2049) {
        e = BN_bin2bn((const unsigned char *)e_bytes.p, (int)e_bytes.n, NULL);
        n = BN_bin2bn((const unsigned char *)n_bytes.p, (int)n_bytes.n, NULL);
    }
    if (build != NULL && e != NULL && n != NULL &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1) {
        key = key_from("RSA", build);
    }
    BN_free(e);
    BN_free(n);
    OSSL_PARAM_BLD_free(build);
    return key;
}

static EVP_PKEY *ec_key(struct sv s, struct sv curve)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    struct sv named = { 0 };
    struct sv point = { 0 };
    const char *group = sv_eq(curve, SV("nistp256"))   ? "P-256"
                        : sv_eq(curve, SV("nistp384")) ? "P-384"
                                                       : "P-521";

    if (build != NULL && take_string(&s, &named) && take_string(&s, &point) && s.n == 0 &&
        sv_eq(named, curve) && point.n != 0 &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, group, 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point.p, point.n) == 1) {
        key = key_from("EC", build);
    }
    OSSL_PARAM_BLD_free(build);
    return key;
}

/* Two mpints to the DER that OpenSSL verifies; returns its length, <= 0: no. */
static int ecdsa_der(struct sv s, unsigned char **der_out)
{
    struct sv r_bytes = { 0 };
    struct sv s_bytes = { 0 };
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = NULL;
    BIGNUM *v = NULL;
    int n = -1;

    if (sig != NULL && take_string(&s, &r_bytes) && take_string(&s, &s_bytes) && s.n == 0 &&
        r_bytes.n <= 67 && s_bytes.n <= 67) {
        r = BN_bin2bn((const unsigned char *)r_bytes.p, (int)r_bytes.n, NULL);
        v = BN_bin2bn((const unsigned char *)s_bytes.p, (int)s_bytes.n, NULL);
    }
    if (r != NULL && v != NULL && ECDSA_SIG_set0(sig, r, v) == 1) {
        r = NULL; /* sig owns them now */
        v = NULL;
        n = i2d_ECDSA_SIG(sig, der_out);
    }
    BN_free(r);
    BN_free(v);
    ECDSA_SIG_free(sig);
    return n;
}

static bool verify(EVP_PKEY *key, const EVP_MD *md, struct sv data, struct sv signature)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1 &&
              EVP_DigestVerify(ctx, (const unsigned char *)signature.p, signature.n,
                               (const unsigned char *)data.p, data.n) == 1;

    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool verify_ec(struct sv key_fields, struct sv curve, struct sv data, struct sv signature)
{
    const EVP_MD *md = sv_eq(curve, SV("nistp256"))   ? EVP_sha256()
                       : sv_eq(curve, SV("nistp384")) ? EVP_sha384()
                                                      : EVP_sha512();
    EVP_PKEY *key = ec_key(key_fields, curve);
    unsigned char *der = NULL;
    int n = ecdsa_der(signature, &der);
    bool ok = key != NULL && n > 0 && verify(key, md, data, sv_of(der, (size_t)n));

    OPENSSL_free(der);
    EVP_PKEY_free(key);
    return ok;
}

static bool verify_ed25519(struct sv key_fields, struct sv data, struct sv signature)
{
    struct sv raw = { 0 };
    EVP_PKEY *key = NULL;
    bool ok = false;

    if (!take_string(&key_fields, &raw) || key_fields.n != 0 || raw.n != 32) {
        return false;
    }
    key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)raw.p, raw.n);
    ok = key != NULL && verify(key, NULL, data, signature);
    EVP_PKEY_free(key);
    return ok;
}

/* ca and signature in wire form. SHA-1 signatures (ssh-rsa) are not taken. */
static bool verify_by(struct sv ca, struct sv data, struct sv signature)
{
    struct sv type = { 0 };
    struct sv algorithm = { 0 };
    struct sv blob = { 0 };
    EVP_PKEY *key = NULL;
    bool sha512 = false;
    bool ok = false;

    if (!take_string(&ca, &type) || !take_string(&signature, &algorithm) ||
        !take_string(&signature, &blob) || signature.n != 0) {
        return false;
    }
    if (sv_eq(type, SV("ssh-rsa"))) {
        sha512 = sv_eq(algorithm, SV("rsa-sha2-512"));
        if (!sha512 && !sv_eq(algorithm, SV("rsa-sha2-256"))) {
            return false;
        }
        key = rsa_key(ca);
        ok = key != NULL && verify(key, sha512 ? EVP_sha512() : EVP_sha256(), data, blob);
        EVP_PKEY_free(key);
        return ok;
    }
    if (!sv_eq(type, algorithm)) {
        return false;
    }
    if (sv_eq(type, SV("ssh-ed25519"))) {
        return verify_ed25519(ca, data, blob);
    }
    if (sv_eq(type, SV("ecdsa-sha2-nistp256")) || sv_eq(type, SV("ecdsa-sha2-nistp384")) ||
        sv_eq(type, SV("ecdsa-sha2-nistp521"))) {
        return verify_ec(ca, sv_from_at(type, 11), data, blob);
    }
    return false;
}

/* --- certificates -------------------------------------------------------------------------------- */

/* How many strings of the key itself stand between nonce and serial; 0: no certificate type. */
static size_t key_strings(struct sv type)
{
    static const struct {
        const char *type;
        size_t strings;
    } kinds[] = {
        { "ssh-ed25519-cert-v01@openssh.com", 1 },
        { "ssh-rsa-cert-v01@openssh.com", 2 },
        { "ecdsa-sha2-nistp256-cert-v01@openssh.com", 2 },
        { "ecdsa-sha2-nistp384-cert-v01@openssh.com", 2 },
        { "ecdsa-sha2-nistp521-cert-v01@openssh.com", 2 },
        { "sk-ssh-ed25519-cert-v01@openssh.com", 2 },
        { "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", 3 },
    };

    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(kinds); i++) {
        if (sv_eq(type, sv_from(kinds[i].type))) {
            return kinds[i].strings;
        }
    }
    return 0;
}

struct ssh_cert {
    uint64_t kind; /* 1 = user */
    struct sv principals;
    uint64_t valid_after;
    uint64_t valid_before;
    struct sv critical;
    struct sv ca;
    struct sv signed_part;
    struct sv signature;
};

static bool read_cert(struct sv wire, struct ssh_cert *cert)
{
    struct sv s = wire;
    struct sv skipped = { 0 };
    uint64_t serial = 0;
    size_t strings = 0;

    if (!take_string(&s, &skipped)) {
        return false;
    }
    strings = key_strings(skipped);
    if (strings == 0 || !take_string(&s, &skipped)) { /* the nonce */
        return false;
    }
    for (; strings > 0; strings--) {
        if (!take_string(&s, &skipped)) {
            return false;
        }
    }
    if (!take_uint(&s, 8, &serial) || !take_uint(&s, 4, &cert->kind) ||
        !take_string(&s, &skipped) || !take_string(&s, &cert->principals) ||
        !take_uint(&s, 8, &cert->valid_after) || !take_uint(&s, 8, &cert->valid_before) ||
        !take_string(&s, &cert->critical) || !take_string(&s, &skipped) ||
        !take_string(&s, &skipped) || !take_string(&s, &cert->ca)) {
        return false;
    }
    cert->signed_part = sv_head(wire, wire.n - s.n);
    return take_string(&s, &cert->signature) && s.n == 0;
}

/* A certificate without principals is for everybody in OpenSSH; here it is for nobody. */
static bool names_principal(struct sv principals, struct sv login)
{
    struct sv name = { 0 };

    while (principals.n != 0) {
        if (!take_string(&principals, &name)) {
            return false;
        }
        if (login.n != 0 && sv_eq(name, login)) {
            return true;
        }
    }
    return false;
}

bool policy_sshkey_signed(const struct policy_ssh *ssh, const struct policy_set *cas,
                          int64_t wall_s)
{
    struct ssh_cert cert = { 0 };
    struct policy_text ca = { 0 };

    if (ssh->publickey.n > POLICY_SSHKEY_MAX || wall_s < 0 || !read_cert(ssh->publickey, &cert)) {
        return false;
    }
    ca = POLICY_TEXT(cert.ca);
    return cert.kind == 1 && (uint64_t)wall_s >= cert.valid_after &&
           (uint64_t)wall_s < cert.valid_before && cert.critical.n == 0 &&
           names_principal(cert.principals, ssh->username) && policy_set_has(cas, &ca) &&
           verify_by(cert.ca, cert.signed_part, cert.signature);
}
