#include "common/crypto/jose.h"

#include <string.h>

#include <jose/jws.h>

#include "common/b64.h"
#include "common/crypto/ed25519.h"
#include "common/mem.h"

struct jose_key {
    json_t *jwk; /* public, with our alg set when it is tried */
    const char *alg;
    const char *kty;
    const char *crv;
    struct sv kid;
};

struct jose_keys {
    json_t *set; /* owns the texts of key[] */
    size_t n;
    struct jose_key key[JOSE_KEYS_MAX];
};

struct jose_alg {
    const char *name;
    const char *kty;
    const char *crv; /* NULL: RSA */
};

static const struct jose_alg algs[] = {
    { "RS256", "RSA", NULL },      { "RS384", "RSA", NULL },   { "RS512", "RSA", NULL },
    { "PS256", "RSA", NULL },      { "PS384", "RSA", NULL },   { "PS512", "RSA", NULL },
    { "ES256", "EC", "P-256" },    { "ES384", "EC", "P-384" }, { "ES512", "EC", "P-521" },
    { "EdDSA", "OKP", "Ed25519" },
};

static const struct jose_alg *alg_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < ARRAY_LEN(algs); i++) {
        if (strcmp(algs[i].name, name) == 0) {
            return &algs[i];
        }
    }
    return NULL;
}

/* Nesting by brackets outside of texts: jansson's own bound is 2048, deeper than anybody needs. */
static bool too_deep(struct sv text)
{
    size_t depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (quoted) {
            i += c == '\\' ? 1U : 0U;
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
            if (depth > JOSE_DEPTH_MAX) {
                return true;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

enum err jose_object_parse(struct sv text, size_t max, json_t **object_out)
{
    json_t *json = NULL;

    if (text.n > max || too_deep(text)) {
        return ERR_LIMIT;
    }
    json = json_loadb(text.p == NULL ? "" : text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return ERR_INVALID;
    }
    *object_out = json;
    return ERR_OK;
}

static const char *text_member(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static bool may_verify(const json_t *jwk)
{
    const char *use = text_member(jwk, "use");
    const json_t *ops = json_object_get(jwk, "key_ops");

    if (json_object_get(jwk, "use") != NULL && (use == NULL || strcmp(use, "sig") != 0)) {
        return false;
    }
    if (ops == NULL) {
        return true;
    }
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const char *op = json_string_value(json_array_get(ops, i));

        if (op != NULL && strcmp(op, "verify") == 0) {
            return true;
        }
    }
    return false;
}

/* Bits of an RSA modulus; 0 where it is none. */
static size_t modulus_bits(const json_t *jwk)
{
    unsigned char n[1200];
    size_t len = 0;
    size_t lead = 0;
    const char *text = text_member(jwk, "n");

    if (text == NULL || b64_decode(sv_from(text), n, sizeof n, &len) != ERR_OK) {
        return 0;
    }
    while (lead < len && n[lead] == 0) {
        lead++;
    }
    return lead == len ? 0 : (len - lead) * 8 - (size_t)(__builtin_clz(n[lead]) - 24);
}

/* With what b64_decode wants beyond. */
enum { POINT_ROOM = ED25519_KEY_SIZE + 4, SIGNATURE_ROOM = ED25519_SIGNATURE_SIZE + 4 };

/* The public key of an OKP key, into room; "" where it has none. */
static struct sv point_of(const json_t *jwk, unsigned char room[POINT_ROOM])
{
    const char *x = text_member(jwk, "x");
    size_t n = 0;

    return x != NULL && b64_decode(sv_from(x), room, POINT_ROOM, &n) == ERR_OK ? sv_of(room, n)
                                                                               : SV("");
}

static bool key_usable(const json_t *jwk)
{
    const char *kty = text_member(jwk, "kty");
    const char *crv = text_member(jwk, "crv");
    const char *alg = text_member(jwk, "alg");
    const char *kid = text_member(jwk, "kid");

    if (kty == NULL || !may_verify(jwk) || json_object_get(jwk, "d") != NULL ||
        (json_object_get(jwk, "kid") != NULL && (kid == NULL || strlen(kid) > JOSE_KID_MAX)) ||
        (json_object_get(jwk, "alg") != NULL && alg_find(alg) == NULL)) {
        return false;
    }
    if (strcmp(kty, "RSA") == 0) {
        size_t bits = modulus_bits(jwk);

        return bits >= 2048 && bits <= 8192;
    }
    if (strcmp(kty, "OKP") == 0) {
        unsigned char room[POINT_ROOM];

        return crv != NULL && strcmp(crv, "Ed25519") == 0 && ed25519_is_key(point_of(jwk, room));
    }
    return strcmp(kty, "EC") == 0 && crv != NULL &&
           (strcmp(crv, "P-256") == 0 || strcmp(crv, "P-384") == 0 || strcmp(crv, "P-521") == 0);
}

enum err jose_keys_parse(struct sv json, struct jose_keys **keys_out, struct diag *d)
{
    CLEANUP(jose_keys_free) struct jose_keys *keys = MEM_NEW(struct jose_keys);
    const json_t *list = NULL;
    enum err err = jose_object_parse(json, JOSE_SET_MAX, &keys->set);

    if (err != ERR_OK) {
        diag_set(d, "the key set is not a JSON object");
        return err;
    }
    list = json_object_get(keys->set, "keys");
    for (size_t i = 0; i < json_array_size(list) && keys->n < JOSE_KEYS_MAX; i++) {
        json_t *jwk = json_array_get(list, i);

        if (json_is_object(jwk) && key_usable(jwk)) {
            keys->key[keys->n++] = (struct jose_key){ .jwk = jwk,
                                                      .alg = text_member(jwk, "alg"),
                                                      .kty = text_member(jwk, "kty"),
                                                      .crv = text_member(jwk, "crv"),
                                                      .kid = sv_from(text_member(jwk, "kid")) };
        }
    }
    if (keys->n == 0) {
        diag_set(d, "the key set holds no RSA, EC or Ed25519 key to verify signatures with");
        return ERR_INVALID;
    }
    *keys_out = TAKE(keys);
    return ERR_OK;
}

void jose_keys_free(struct jose_keys **keys)
{
    if (*keys != NULL) {
        json_decref((*keys)->set);
    }
    mem_free(keys);
}

size_t jose_keys_count(const struct jose_keys *keys)
{
    return keys->n;
}

struct token_parts {
    struct sv header;
    struct sv payload;
    struct sv signature;
};

static enum err token_split(struct sv token, struct token_parts *parts)
{
    struct sv rest = token;

    if (token.n > JOSE_TOKEN_MAX) {
        return ERR_LIMIT;
    }
    parts->header = sv_cut(&rest, '.');
    parts->payload = sv_cut(&rest, '.');
    parts->signature = rest;
    if (rest.p == NULL || rest.n == 0 || parts->header.n == 0 || sv_find(rest, '.') != SIZE_MAX) {
        return ERR_INVALID;
    }
    for (size_t i = 0; i < token.n; i++) {
        if (token.p[i] == '=' || token.p[i] == '+' || token.p[i] == '/') {
            return ERR_INVALID; /* RFC 7515 §2: base64url without padding */
        }
    }
    return ERR_OK;
}

static enum err part_decode(struct sv text, struct buf *out)
{
    char *room = NULL;
    size_t n = 0;
    enum err err = ERR_OK;

    if (text.n == 0) {
        return ERR_OK;
    }
    room = buf_room(out, b64_decoded_max(text.n));
    if (room == NULL) {
        return ERR_LIMIT;
    }
    err = b64_decode(text, room, b64_decoded_max(text.n), &n);
    if (err == ERR_OK) {
        buf_grew(out, n);
    }
    return err == ERR_OK ? ERR_OK : ERR_INVALID;
}

static enum err part_parse(struct sv text, json_t **object_out)
{
    CLEANUP(buf_deinit) struct buf bytes;
    enum err err = ERR_OK;

    buf_init(&bytes, JOSE_TOKEN_MAX);
    err = part_decode(text, &bytes);
    return err == ERR_OK ? jose_object_parse(buf_sv(&bytes), JOSE_TOKEN_MAX, object_out) : err;
}

enum err jose_token_kid(struct sv token, char kid[JOSE_KID_MAX + 1])
{
    struct token_parts parts;
    json_t *header = NULL;
    const char *text = NULL;
    enum err err = token_split(token, &parts);

    kid[0] = '\0';
    if (err != ERR_OK || part_parse(parts.header, &header) != ERR_OK) {
        return ERR_INVALID;
    }
    text = text_member(header, "kid");
    if (text != NULL && strlen(text) <= JOSE_KID_MAX) {
        memcpy(kid, text, strlen(text) + 1);
    } else if (json_object_get(header, "kid") != NULL) {
        err = ERR_INVALID;
    }
    json_decref(header);
    return err;
}

enum err jose_token_issuer(struct sv token, struct buf *issuer)
{
    struct token_parts parts;
    json_t *claims = NULL;
    const json_t *iss = NULL;
    enum err err = token_split(token, &parts);

    if (err == ERR_OK) {
        err = part_parse(parts.payload, &claims);
    }
    if (err != ERR_OK) {
        return err;
    }
    iss = json_object_get(claims, "iss");
    if (json_is_string(iss)) {
        buf_add_sv(issuer, sv_of(json_string_value(iss), json_string_length(iss)));
        err = issuer->err;
    } else {
        err = ERR_INVALID;
    }
    json_decref(claims);
    return err;
}

static bool key_fits(const struct jose_key *key, const struct jose_alg *alg, const json_t *header)
{
    const char *kid = text_member(header, "kid");

    return strcmp(key->kty, alg->kty) == 0 &&
           (alg->crv == NULL || strcmp(key->crv, alg->crv) == 0) &&
           (key->alg == NULL || strcmp(key->alg, alg->name) == 0) &&
           (kid == NULL || sv_eq(key->kid, sv_from(kid)));
}

/* RFC 7515 §5.2: what was signed is the text of header and payload, as it came. */
static bool ed25519_fits(const struct jose_key *key, const struct token_parts *parts)
{
    unsigned char room[POINT_ROOM];
    unsigned char signature[SIGNATURE_ROOM];
    struct sv signed_text = sv_of(parts->header.p, parts->header.n + 1 + parts->payload.n);
    size_t n = 0;

    return b64_decode(parts->signature, signature, sizeof signature, &n) == ERR_OK &&
           ed25519_verify(point_of(key->jwk, room), signed_text, sv_of(signature, n));
}

/* A copy with nothing but the key and the algorithm, so that jose has nothing to choose. */
static bool jose_fits(const struct jose_key *key, const struct jose_alg *alg,
                      const struct token_parts *parts)
{
    static const char *const members[] = { "kty", "n", "e", "crv", "x", "y" };
    json_t *jwk = json_object();
    json_t *jws = json_pack("{s:s%,s:s%,s:s%}", "protected", parts->header.p, parts->header.n,
                            "payload", parts->payload.p, parts->payload.n, "signature",
                            parts->signature.p, parts->signature.n);
    bool fits =
        jwk != NULL && jws != NULL && json_object_set_new(jwk, "alg", json_string(alg->name)) == 0;

    for (size_t i = 0; fits && i < ARRAY_LEN(members); i++) {
        json_t *member = json_object_get(key->jwk, members[i]);

        fits = member == NULL || json_object_set(jwk, members[i], member) == 0;
    }
    fits = fits && jose_jws_ver(NULL, jws, NULL, jwk, true);
    json_decref(jwk);
    json_decref(jws);
    return fits;
}

static bool signature_fits(const struct jose_key *key, const struct jose_alg *alg,
                           const struct token_parts *parts)
{
    return strcmp(alg->kty, "OKP") == 0 ? ed25519_fits(key, parts) : jose_fits(key, alg, parts);
}

static enum err verify_parts(const struct jose_keys *keys, const struct token_parts *parts,
                             const json_t *header, struct diag *d)
{
    const struct jose_alg *alg = alg_find(text_member(header, "alg"));
    enum err err = ERR_NOT_FOUND;

    if (json_object_get(header, "crit") != NULL || json_object_get(header, "b64") != NULL ||
        (json_object_get(header, "kid") != NULL && text_member(header, "kid") == NULL)) {
        diag_set(d, "the token's header asks for an extension");
        return ERR_INVALID;
    }
    if (alg == NULL) {
        diag_set(d, "the token's signature algorithm is none of RS, PS, ES (256 to 512) and EdDSA");
        return ERR_UNSUPPORTED;
    }
    for (size_t i = 0; i < keys->n && err != ERR_OK; i++) {
        if (key_fits(&keys->key[i], alg, header)) {
            err = signature_fits(&keys->key[i], alg, parts) ? ERR_OK : ERR_CRYPTO;
        }
    }
    if (err != ERR_OK) {
        diag_set(d, err == ERR_CRYPTO ? "the token's signature does not fit"
                                      : "the key set has no key for this token");
    }
    return err;
}

/* One text for one signature: no bits beyond the last byte. */
static bool signature_is_canonical(struct sv text)
{
    CLEANUP(buf_deinit) struct buf bytes;

    buf_init(&bytes, JOSE_TOKEN_MAX);
    return part_decode(text, &bytes) == ERR_OK;
}

enum err jose_verify(const struct jose_keys *keys, struct sv token, struct buf *payload,
                     json_t **header_out, struct diag *d)
{
    struct token_parts parts;
    json_t *header = NULL;
    enum err err = token_split(token, &parts);

    if (err == ERR_OK) {
        err = part_parse(parts.header, &header);
    }
    if (err != ERR_OK) {
        diag_set(d, "not a compact signed token");
        return err;
    }
    if (!signature_is_canonical(parts.signature)) {
        diag_set(d, "the token's signature is not base64url");
        err = ERR_INVALID;
    } else {
        err = verify_parts(keys, &parts, header, d);
    }
    if (err == ERR_OK) {
        err = part_decode(parts.payload, payload);
        diag_set(err == ERR_OK ? NULL : d, "the token's payload is not base64url, or too long");
    }
    if (err == ERR_OK && header_out != NULL) {
        *header_out = json_incref(header);
    }
    json_decref(header);
    return err;
}
