#include "proxy/ticket.h"

#include <pthread.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "common/clock.h"
#include "common/rand.h"

enum { NAME_SIZE = 16, AES_KEY = 32, MAC_KEY = 32, NAME_SECRET = 3, NAME_SLICE = 4, IV_SIZE = 16 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int keys_index;
static EVP_KDF *hkdf;
static EVP_CIPHER *aes;

static void prepare(void)
{
    keys_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    CHECK(keys_index >= 0 && hkdf != NULL && aes != NULL);
}

static uint64_t slice_now(void)
{
    return (uint64_t)clock_wall_s() / PROXY_TICKET_SLICE_S;
}

static void name_of(uint8_t secret, uint64_t slice, unsigned char name_out[NAME_SIZE])
{
    size_t i = 0;

    memset(name_out, 0, NAME_SIZE);
    memcpy(name_out, "PT1", NAME_SECRET);
    name_out[NAME_SECRET] = secret;
    for (i = 0; i < 8; i++) {
        name_out[NAME_SLICE + i] = (unsigned char)(slice >> (56 - 8 * i));
    }
}

/* The slot of the secret that a ticket's name stands for; SIZE_MAX: not ours, or too old. */
static size_t slot_of(const struct keys *keys, const unsigned char name[NAME_SIZE],
                      bool *current_out)
{
    unsigned char expected[NAME_SIZE];
    uint64_t now = slice_now();
    uint64_t slice = 0;
    size_t i = 0;

    for (i = 0; i < 8; i++) {
        slice = slice << 8U | name[NAME_SLICE + i];
    }
    name_of(name[NAME_SECRET], slice, expected);
    if (memcmp(name, expected, NAME_SIZE) != 0 || slice + 1 < now || slice > now + 1) {
        return SIZE_MAX;
    }
    *current_out = slice == now;
    /* Of two secrets with one id the newer is taken: at worst a handshake is a full one. */
    return keys_slot_of(keys, name[NAME_SECRET], 0);
}

static bool derive(const struct keys *keys, size_t slot, unsigned char name[NAME_SIZE],
                   unsigned char out[AES_KEY + MAC_KEY])
{
    unsigned char root[32];
    char digest[] = "SHA256";
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(hkdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, root, sizeof(root)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, name, NAME_SIZE),
        OSSL_PARAM_construct_end(),
    };
    bool fine = false;

    keys_derive(keys, slot, KEYS_TICKET, root, sizeof(root));
    fine = ctx != NULL && EVP_KDF_derive(ctx, out, AES_KEY + MAC_KEY, params) == 1;
    secret_wipe(root, sizeof(root));
    EVP_KDF_CTX_free(ctx);
    return fine;
}

static bool set_keys(const unsigned char material[AES_KEY + MAC_KEY], EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, const unsigned char *iv, bool seal)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, base_unconst(material + AES_KEY),
                                          MAC_KEY),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_CipherInit_ex2(cipher, aes, material, iv, seal ? 1 : 0, NULL) == 1 &&
           EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* The type is OpenSSL's: 1 use the key, 2 use it and send a new ticket, 0 no ticket, -1 an error.
 * NOLINTBEGIN(readability-function-size,readability-non-const-parameter) */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int seal)
{
    const struct keys *keys = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), keys_index);
    unsigned char material[AES_KEY + MAC_KEY];
    bool current = true;
    bool fine = false;
    size_t slot = 0;

    if (SSL_version(ssl) != TLS1_3_VERSION) {
        return 0;
    }
    if (seal != 0) {
        name_of(keys_id(keys, 0), slice_now(), name);
        rand_bytes(iv, IV_SIZE);
    } else {
        slot = slot_of(keys, name, &current);
    }
    if (slot == SIZE_MAX) {
        return 0;
    }
    fine = derive(keys, slot, name, material) && set_keys(material, cipher, mac, iv, seal != 0);
    secret_wipe(material, sizeof(material));
    if (!fine) {
        return -1;
    }
    return seal != 0 || (current && slot == 0) ? 1 : 2;
}

/* NOLINTEND(readability-function-size,readability-non-const-parameter) */

void proxy_ticket_use(SSL_CTX *ctx, const struct keys *keys)
{
    CHECK(pthread_once(&once, prepare) == 0);
    CHECK(SSL_CTX_set_ex_data(ctx, keys_index, base_unconst(keys)) == 1);
    CHECK(SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket) == 1);
    (void)SSL_CTX_set_timeout(ctx, PROXY_TICKET_LIFE_S);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    CHECK(SSL_CTX_set_num_tickets(ctx, 1) == 1);
}
