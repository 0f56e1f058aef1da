#include "common/crypto/service_jwt.h"

#include <string.h>
#include <strings.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/crypto/jose.h"
#include "common/secret.h"

/* RFC 7515 §2, §7.1: base64url without padding, and dots. */
static bool is_compact(struct sv text)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.')) {
            return false;
        }
    }
    return true;
}

static bool is_signed(const struct keys *keys, struct sv text, struct sv signature)
{
    unsigned char shown[SERVICE_JWT_MAX];
    unsigned char mac[KEYS_MAC_BYTES];
    size_t n = 0;
    bool fits = false;

    if (b64_decode(signature, shown, sizeof(shown), &n) != ERR_OK || n != sizeof(mac)) {
        return false;
    }
    for (size_t slot = 0; slot < keys_slots(keys); slot++) {
        keys_root_mac(keys, slot, text, mac);
        fits = secret_same(sv_of(mac, sizeof(mac)), sv_of(shown, n)) || fits;
    }
    secret_wipe(mac, sizeof(mac));
    return fits;
}

static json_t *object_in(struct sv part)
{
    unsigned char bytes[SERVICE_JWT_MAX];
    json_t *object = NULL;
    size_t n = 0;

    if (b64_decode(part, bytes, sizeof(bytes), &n) != ERR_OK ||
        jose_object_parse(sv_of(bytes, n), SERVICE_JWT_MAX, &object) != ERR_OK) {
        return NULL;
    }
    return object;
}

/* {"alg":"HS256"}, with or without "typ":"JWT": no header can ask for anything. */
static bool is_plain_header(const json_t *header)
{
    const char *alg = json_string_value(json_object_get(header, "alg"));
    const json_t *typ = json_object_get(header, "typ");
    const char *type = typ == NULL ? "JWT" : json_string_value(typ);

    return alg != NULL && strcmp(alg, "HS256") == 0 && type != NULL &&
           strcasecmp(type, "JWT") == 0 && json_object_size(header) == (typ == NULL ? 1 : 2);
}

static enum err check_claims(const json_t *claims)
{
    const json_t *exp = json_object_get(claims, "exp");
    int64_t now_s = clock_wall_s();

    if (json_object_size(claims) != 1 || !json_is_integer(exp)) {
        return ERR_INVALID;
    }
    if (json_integer_value(exp) < now_s - SERVICE_JWT_LEEWAY_S) {
        return ERR_EXPIRED;
    }
    return json_integer_value(exp) > now_s + SERVICE_JWT_LIFE_S + SERVICE_JWT_LEEWAY_S ? ERR_LIMIT
                                                                                       : ERR_OK;
}

/* The signature comes first: of a stranger's nothing is parsed. */
enum err service_jwt_verify(const struct keys *keys, struct sv text)
{
    size_t last = sv_rfind(text, '.');
    size_t first = sv_find(text, '.');
    json_t *header = NULL;
    json_t *claims = NULL;
    enum err err = ERR_INVALID;

    if (text.n > SERVICE_JWT_MAX || last == first || !is_compact(text) ||
        !is_signed(keys, sv_head(text, last), sv_from_at(text, last + 1))) {
        return ERR_CRYPTO;
    }
    header = object_in(sv_head(text, first));
    claims = object_in(sv_from_at(sv_head(text, last), first + 1));
    if (header != NULL && claims != NULL && is_plain_header(header)) {
        err = check_claims(claims);
    }
    json_decref(header);
    json_decref(claims);
    return err;
}
