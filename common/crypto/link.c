#include "common/crypto/link.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/secret.h"

enum { MAC = 32, MAC_TEXT = 43 };

static const struct sv issued_key = { "pomerium_issued=", 16 };
static const struct sv expiry_key = { "pomerium_expiry=", 16 };
static const struct sv signature_key = { "pomerium_signature=", 19 };

static void mac_of(const struct keys *keys, size_t slot, struct sv url, unsigned char mac[MAC])
{
    unsigned char key[MAC];
    unsigned n = 0;

    keys_derive(keys, slot, KEYS_LINK, key, sizeof(key));
    CHECK(HMAC(EVP_sha256(), key, sizeof(key), (const unsigned char *)url.p, url.n, mac, &n) !=
          NULL);
    CHECK(n == MAC);
    secret_wipe(key, sizeof(key));
}

enum err link_sign(const struct keys *keys, struct buf *url)
{
    unsigned char mac[MAC];
    uint64_t now = (uint64_t)clock_wall_s();

    buf_add_char(url, sv_find(buf_sv(url), '?') == SIZE_MAX ? '?' : '&');
    buf_add_sv(url, issued_key);
    buf_add_u64(url, now);
    buf_add_char(url, '&');
    buf_add_sv(url, expiry_key);
    buf_add_u64(url, now + LINK_LIFE_S);
    if (url->err != ERR_OK || url->n > LINK_MAX) {
        return ERR_LIMIT;
    }
    mac_of(keys, 0, buf_sv(url), mac);
    buf_add_char(url, '&');
    buf_add_sv(url, signature_key);
    b64_url_add(url, sv_of(mac, sizeof(mac)));
    return url->err;
}

/* Takes "&key=value" or "?key=value" off the end of *url: what link_sign put last is read first. */
static bool take_last(struct sv *url, struct sv key, struct sv *value_out)
{
    size_t at = url->n;
    struct sv pair = { 0 };

    while (at > 0 && url->p[at - 1] != '&' && url->p[at - 1] != '?') {
        at--;
    }
    pair = sv_from_at(*url, at);
    if (at == 0 || !sv_starts(pair, key)) {
        return false;
    }
    *value_out = sv_from_at(pair, key.n);
    *url = sv_head(*url, at - 1);
    return true;
}

static bool signature_fits(const struct keys *keys, struct sv url, struct sv signature)
{
    unsigned char given[MAC_TEXT + 8];
    unsigned char mac[MAC];
    size_t n = 0;
    size_t i = 0;
    bool fits = false;

    if (signature.n != MAC_TEXT || b64_decode(signature, given, sizeof(given), &n) != ERR_OK ||
        n != MAC) {
        return false;
    }
    for (i = 0; i < keys_slots(keys); i++) {
        mac_of(keys, i, url, mac);
        fits = secret_same(sv_of(mac, MAC), sv_of(given, MAC)) || fits;
    }
    return fits;
}

enum err link_verify(const struct keys *keys, struct sv url)
{
    struct sv signature = { 0 };
    struct sv expiry_text = { 0 };
    struct sv issued_text = { 0 };
    uint64_t expiry = 0;
    uint64_t issued = 0;
    uint64_t now = (uint64_t)clock_wall_s();

    if (url.n > LINK_MAX || !take_last(&url, signature_key, &signature) ||
        !signature_fits(keys, url, signature)) {
        return ERR_CRYPTO;
    }
    if (!take_last(&url, expiry_key, &expiry_text) || !take_last(&url, issued_key, &issued_text) ||
        sv_u64(expiry_text, INT64_MAX, &expiry) != ERR_OK ||
        sv_u64(issued_text, INT64_MAX, &issued) != ERR_OK) {
        return ERR_CRYPTO;
    }
    if (now > expiry + LINK_LEEWAY_S || now + LINK_LEEWAY_S < issued) {
        return ERR_EXPIRED;
    }
    return ERR_OK;
}
