#include "proxy/ticket.h"

#include <pthread.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum {
    NAME_SIZE = 16,
    ROOT = 32,
    AES_KEY = 32,
    MAC_KEY = 32,
    NAME_SECRET = 3,
    NAME_SLICE = 4,
    IV_SIZE = 16
};

/* Of a context: the ticket keys of the secrets. */
struct roots {
    size_t n;

    struct {
        uint8_t id;
        unsigned char key[ROOT];
    } v[KEYS_SLOTS_MAX];
};

/* What derive said last on this thread: for hours it is asked the same again. */
struct derived {
    unsigned char root[ROOT];
    unsigned char name[NAME_SIZE];
    unsigned char material[AES_KEY + MAC_KEY];
};

static _Thread_local struct derived last;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int roots_index;
static EVP_KDF *hkdf;
static EVP_CIPHER *aes;

/* The type is OpenSSL's. NOLINTNEXTLINE(readability-function-size) */
static void free_roots(void *parent, void *p, CRYPTO_EX_DATA *data, int index, long argl, void *arg)
{
    struct roots *roots = p;

    (void)parent;
    (void)data;
    (void)index;
    (void)argl;
    (void)arg;
    if (roots != NULL) {
        secret_wipe(roots, sizeof(*roots));
        mem_free(&roots);
    }
}

static void prepare(void)
{
    roots_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_roots);
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    CHECK(roots_index >= 0 && hkdf != NULL && aes != NULL);
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

/* The secret that a ticket's name stands for; SIZE_MAX: not ours, or too old. */
static size_t slot_of(const struct roots *roots, const unsigned char name[NAME_SIZE],
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
    for (i = 0; i < roots->n && roots->v[i].id != name[NAME_SECRET]; i++) {
    }
    return i < roots->n ? i : SIZE_MAX;
}

static bool derive(const unsigned char root[ROOT], unsigned char name[NAME_SIZE],
                   unsigned char out[AES_KEY + MAC_KEY])
{
    char digest[] = "SHA256";
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(hkdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, base_unconst(root), ROOT),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, name, NAME_SIZE),
        OSSL_PARAM_construct_end(),
    };
    bool fine = ctx != NULL && EVP_KDF_derive(ctx, out, AES_KEY + MAC_KEY, params) == 1;

    EVP_KDF_CTX_free(ctx);
    return fine;
}

/* The keys of a name, good until the thread asks again; NULL: OpenSSL failed. */
static const unsigned char *material_of(const unsigned char root[ROOT],
                                        unsigned char name[NAME_SIZE])
{
    if (memcmp(last.root, root, ROOT) != 0 || memcmp(last.name, name, NAME_SIZE) != 0) {
        memset(&last, 0, sizeof(last));
        if (!derive(root, name, last.material)) {
            return NULL;
        }
        memcpy(last.root, root, ROOT);
        memcpy(last.name, name, NAME_SIZE);
    }
    return last.material;
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
    const struct roots *roots = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), roots_index);
    const unsigned char *material = NULL;
    bool current = true;
    size_t slot = 0;

    if (SSL_version(ssl) != TLS1_3_VERSION) {
        return 0;
    }
    if (seal != 0) {
        name_of(roots->v[0].id, slice_now(), name);
        rand_bytes(iv, IV_SIZE);
    } else {
        slot = slot_of(roots, name, &current);
    }
    if (slot == SIZE_MAX) {
        return 0;
    }
    material = material_of(roots->v[slot].key, name);
    if (material == NULL || !set_keys(material, cipher, mac, iv, seal != 0)) {
        return -1;
    }
    return seal != 0 || (current && slot == 0) ? 1 : 2;
}

/* NOLINTEND(readability-function-size,readability-non-const-parameter) */

void proxy_ticket_use(SSL_CTX *ctx, const struct keys *keys)
{
    struct roots *roots = MEM_NEW(struct roots);

    CHECK(pthread_once(&once, prepare) == 0);
    for (roots->n = 0; roots->n < keys_slots(keys); roots->n++) {
        roots->v[roots->n].id = keys_id(keys, roots->n);
        keys_derive(keys, roots->n, KEYS_TICKET, roots->v[roots->n].key, ROOT);
    }
    CHECK(SSL_CTX_set_ex_data(ctx, roots_index, roots) == 1);
    CHECK(SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket) == 1);
    (void)SSL_CTX_set_timeout(ctx, PROXY_TICKET_LIFE_S);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    CHECK(SSL_CTX_set_num_tickets(ctx, 1) == 1);
}
