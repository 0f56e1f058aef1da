#include "common/crypto/token.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

/* Wire form:  0x01 | key id | role | expiry (8, big-endian) | id (36) | HMAC-SHA-256 (32) */
enum {
    VERSION = 1,
    ID = 36,
    BODY = 3 + 8 + ID,
    MAC = 32,
    WIRE = BODY + MAC,
    LEEWAY_S = 60,
};

static const char prefix[] = "postern_";

static enum keys_purpose purpose_of(unsigned char role)
{
    return role == TOKEN_ROLE_SERVICE_ACCOUNT ? KEYS_SERVICE_ACCOUNT : KEYS_TOKEN;
}

static void mac_of(const struct keys *keys, size_t slot, const unsigned char *body,
                   unsigned char mac[MAC])
{
    unsigned char key[MAC];
    unsigned n = 0;

    keys_derive(keys, slot, purpose_of(body[2]), key, sizeof(key));
    CHECK(HMAC(EVP_sha256(), key, sizeof(key), body, BODY, mac, &n) != NULL && n == MAC);
    secret_wipe(key, sizeof(key));
}

enum err token_make(const struct keys *keys, enum token_role role, int64_t ttl_s,
                    struct token *made_out, struct buf *out)
{
    unsigned char wire[WIRE];
    struct token made = { .role = role };
    uint64_t expires = 0;
    int i = 0;

    if (role == TOKEN_ROLE_NONE || ttl_s <= 0 || ttl_s > TOKEN_TTL_MAX_S) {
        return ERR_INVALID;
    }
    made.expires_at_s = clock_wall_s() + ttl_s;
    expires = (uint64_t)made.expires_at_s;
    wire[0] = VERSION;
    wire[1] = keys_id(keys, 0);
    wire[2] = (unsigned char)role;
    for (i = 10; i >= 3; i--) {
        wire[i] = (unsigned char)(expires & 0xffU);
        expires >>= 8U;
    }
    rand_uuid(made.id);
    memcpy(wire + 11, made.id, ID);
    mac_of(keys, 0, wire, wire + BODY);
    buf_add_str(out, prefix);
    b64_url_add(out, sv_of(wire, sizeof(wire)));
    secret_wipe(wire, sizeof(wire));
    if (made_out != NULL) {
        *made_out = made;
    }
    return out->err;
}

static enum err check_mac(const struct keys *keys, const unsigned char *wire)
{
    size_t slot = keys_slot_of(keys, wire[1], 0);
    unsigned char mac[MAC];
    bool fits = false;

    for (; wire[0] == VERSION && slot != SIZE_MAX; slot = keys_slot_of(keys, wire[1], slot + 1)) {
        mac_of(keys, slot, wire, mac);
        fits = secret_same(sv_of(mac, MAC), sv_of(wire + BODY, MAC)) || fits;
    }
    return fits ? ERR_OK : ERR_CRYPTO;
}

enum err token_verify(const struct keys *keys, struct sv text, struct token *token_out)
{
    unsigned char wire[TOKEN_TEXT_MAX];
    struct token t = { .role = TOKEN_ROLE_NONE };
    size_t n = 0;
    size_t i = 0;
    uint64_t expires = 0;

    if (text.n > TOKEN_TEXT_MAX || !sv_starts(text, SV("postern_"))) {
        return ERR_CRYPTO;
    }
    text = sv_from_at(text, sizeof(prefix) - 1);
    if (b64_decode(text, wire, sizeof(wire), &n) != ERR_OK || n != WIRE ||
        check_mac(keys, wire) != ERR_OK) {
        return ERR_CRYPTO;
    }
    for (i = 3; i < 11; i++) {
        expires = expires << 8U | wire[i];
    }
    t.expires_at_s = (int64_t)expires;
    memcpy(t.id, wire + 11, ID);
    if (wire[2] == TOKEN_ROLE_NONE || wire[2] > TOKEN_ROLE_CONFIG_WRITER) {
        return ERR_CRYPTO;
    }
    t.role = (enum token_role)wire[2];
    if (clock_wall_s() > t.expires_at_s + LEEWAY_S) {
        return ERR_EXPIRED;
    }
    *token_out = t;
    return ERR_OK;
}

/* A service account's is not one: what it may is up to policies. */
static const char *const role_names[] = {
    [TOKEN_ROLE_SESSION_ADMIN] = "session-admin",
    [TOKEN_ROLE_READER] = "reader",
    [TOKEN_ROLE_CHECKER] = "checker",
    [TOKEN_ROLE_RECORD_WRITER] = "record-writer",
    [TOKEN_ROLE_DIRECTORY_WRITER] = "directory-writer",
    [TOKEN_ROLE_CONFIG_WRITER] = "config-writer",
};

const char *token_role_name(enum token_role role)
{
    return (size_t)role < ARRAY_LEN(role_names) ? role_names[role] : NULL;
}

enum err token_role_parse(struct sv name, enum token_role *role_out)
{
    for (size_t i = 0; i < ARRAY_LEN(role_names); i++) {
        if (role_names[i] != NULL && sv_eq(name, sv_from(role_names[i]))) {
            *role_out = (enum token_role)i;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}
