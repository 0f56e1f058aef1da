#include "common/crypto/seal.h"

#include <string.h>

#include <openssl/evp.h>

#include "common/b64.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum { VERSION = 1, HEAD = 2, NONCE = 12, TAG = 16, KEY = 32 };

_Static_assert(HEAD + NONCE + TAG == SEAL_OVERHEAD, "the wire form is fixed");

struct sealer {
    const struct keys *keys; /* borrowed; outlives the sealer */
    EVP_CIPHER_CTX *make;
    EVP_CIPHER_CTX *open[KEYS_SLOTS_MAX];
};

static EVP_CIPHER_CTX *ctx_new(const struct keys *keys, size_t slot, enum keys_purpose purpose,
                               int encrypt)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    unsigned char key[KEY];

    CHECK(ctx != NULL);
    keys_derive(keys, slot, purpose, key, sizeof(key));
    CHECK(EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, NULL, encrypt) == 1);
    secret_wipe(key, sizeof(key));
    return ctx;
}

struct sealer *sealer_new(const struct keys *keys, enum keys_purpose purpose)
{
    struct sealer *s = MEM_NEW(struct sealer);
    size_t i = 0;

    s->keys = keys;
    s->make = ctx_new(keys, 0, purpose, 1);
    for (i = 0; i < keys_slots(keys); i++) {
        s->open[i] = ctx_new(keys, i, purpose, 0);
    }
    return s;
}

void sealer_free(struct sealer **sealer)
{
    struct sealer *s = TAKE(*sealer);
    size_t i = 0;

    if (s == NULL) {
        return;
    }
    EVP_CIPHER_CTX_free(s->make);
    for (i = 0; i < KEYS_SLOTS_MAX; i++) {
        EVP_CIPHER_CTX_free(s->open[i]);
    }
    mem_free(&s);
}

/* Starts a message: nonce and associated data (head, then the caller's). */
static bool begin(EVP_CIPHER_CTX *ctx, const unsigned char *nonce, const unsigned char *head,
                  struct sv aad)
{
    int n = 0;

    return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, nonce, -1) == 1 &&
           EVP_CipherUpdate(ctx, NULL, &n, head, HEAD) == 1 &&
           (aad.n == 0 ||
            EVP_CipherUpdate(ctx, NULL, &n, (const unsigned char *)aad.p, (int)aad.n) == 1);
}

enum err seal_make(struct sealer *sealer, struct sv plain, struct sv aad, struct buf *out)
{
    unsigned char *wire = NULL;
    unsigned char *body = NULL;
    int n = 0;
    int last = 0;

    if (plain.n > SEAL_MAX || aad.n > SEAL_MAX) {
        return ERR_LIMIT;
    }
    wire = mem_alloc(plain.n + SEAL_OVERHEAD);
    wire[0] = VERSION;
    wire[1] = keys_id(sealer->keys, 0);
    rand_bytes(wire + HEAD, NONCE);
    body = wire + HEAD + NONCE;
    CHECK(begin(sealer->make, wire + HEAD, wire, aad));
    CHECK(EVP_CipherUpdate(sealer->make, body, &n, (const unsigned char *)plain.p, (int)plain.n) ==
          1);
    CHECK(EVP_CipherFinal_ex(sealer->make, body + n, &last) == 1);
    CHECK((size_t)n + (size_t)last == plain.n);
    CHECK(EVP_CIPHER_CTX_ctrl(sealer->make, EVP_CTRL_GCM_GET_TAG, TAG, body + plain.n) == 1);
    b64_url_add(out, sv_of(wire, plain.n + SEAL_OVERHEAD));
    mem_free(&wire);
    return out->err;
}

/* plain: room for n - SEAL_OVERHEAD bytes. */
static bool open_with(EVP_CIPHER_CTX *ctx, unsigned char *wire, size_t n, struct sv aad,
                      unsigned char *plain)
{
    size_t body_n = n - SEAL_OVERHEAD;
    int got = 0;
    int last = 0;

    if (!begin(ctx, wire + HEAD, wire, aad) ||
        EVP_CipherUpdate(ctx, plain, &got, wire + HEAD + NONCE, (int)body_n) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG, wire + n - TAG) != 1 ||
        EVP_CipherFinal_ex(ctx, plain + got, &last) != 1) {
        secret_wipe(plain, body_n); /* unverified bytes must not be seen */
        return false;
    }
    return true;
}

static enum err open_wire(struct sealer *sealer, unsigned char *wire, size_t n, struct sv aad,
                          struct buf *out)
{
    size_t slot = keys_slot_of(sealer->keys, wire[1], 0);
    size_t body_n = n - SEAL_OVERHEAD;
    char *plain = NULL;

    if (wire[0] != VERSION) {
        return ERR_CRYPTO;
    }
    plain = buf_room(out, body_n);
    if (plain == NULL) {
        return out->err;
    }
    for (; slot != SIZE_MAX; slot = keys_slot_of(sealer->keys, wire[1], slot + 1)) {
        if (open_with(sealer->open[slot], wire, n, aad, (unsigned char *)plain)) {
            buf_grew(out, body_n);
            return ERR_OK;
        }
    }
    return ERR_CRYPTO;
}

enum err seal_open(struct sealer *sealer, struct sv text, struct sv aad, struct buf *out)
{
    size_t room = b64_decoded_max(text.n);
    unsigned char stack[512];
    unsigned char *wire = stack;
    unsigned char *heap = NULL;
    size_t n = 0;
    enum err err = ERR_CRYPTO;

    if (text.n > (SEAL_MAX + SEAL_OVERHEAD) * 4 / 3 + 4 || aad.n > SEAL_MAX) {
        return ERR_CRYPTO;
    }
    if (room > sizeof(stack)) {
        heap = mem_alloc(room);
        wire = heap;
    }
    if (b64_decode(text, wire, room, &n) == ERR_OK && n >= SEAL_OVERHEAD) {
        err = open_wire(sealer, wire, n, aad, out);
    }
    mem_free(&heap);
    return err;
}
