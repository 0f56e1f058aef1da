#include "databroker/keyring.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/clock.h"
#include "common/crypto/keys.h"
#include "common/crypto/seal.h"
#include "common/mem.h"
#include "common/rand.h"

enum {
    HEAD = 6,
    NONCE = 12,
    TAG = 16,
    KEY = 32,
    WRAPPED = KEY + 8 + 1, /* key, made_us, whether all is sealed */
    WRAPPED_TEXT_MAX = 256
};

_Static_assert(HEAD + NONCE + TAG == BROKER_SEAL_OVERHEAD, "the form is fixed");

struct data_key {
    uint32_t id;
    int64_t made_us;
    bool all_sealed;
    unsigned char key[KEY];
};

struct broker_keyring {
    EVP_CIPHER *cipher;
    size_t n_secrets;
    struct keys *keys[BROKER_SECRETS_MAX];
    struct sealer *sealers[BROKER_SECRETS_MAX]; /* under mutex: a sealer belongs to one thread */
    pthread_mutex_t mutex;
    struct data_key ring[BROKER_KEYS_MAX]; /* under mutex, as count is */
    size_t count;
    uint64_t changes; /* under mutex: of ring */
    pthread_mutex_t sealing;
    EVP_CIPHER_CTX *seal;  /* under sealing: holds the newest key, as of then */
    uint64_t seal_changes; /* likewise */
};

struct broker_keyring *broker_keyring_new(const struct secret *const *secrets, size_t n)
{
    struct broker_keyring *ring = MEM_NEW(struct broker_keyring);

    CHECK(n >= 1 && n <= BROKER_SECRETS_MAX);
    ring->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    CHECK(ring->cipher != NULL);
    ring->n_secrets = n;
    for (size_t i = 0; i < n; i++) {
        CHECK(keys_new(&secrets[i], 1, &ring->keys[i]) == ERR_OK);
        ring->sealers[i] = sealer_new(ring->keys[i], KEYS_DATA_KEY);
    }
    (void)pthread_mutex_init(&ring->mutex, NULL);
    (void)pthread_mutex_init(&ring->sealing, NULL);
    ring->seal = EVP_CIPHER_CTX_new();
    CHECK(ring->seal != NULL);
    return ring;
}

void broker_keyring_free(struct broker_keyring **ring)
{
    struct broker_keyring *r = TAKE(*ring);

    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->n_secrets; i++) {
        sealer_free(&r->sealers[i]);
        keys_free(&r->keys[i]);
    }
    EVP_CIPHER_CTX_free(r->seal);
    EVP_CIPHER_free(r->cipher);
    secret_wipe(r->ring, sizeof(r->ring));
    (void)pthread_mutex_destroy(&r->sealing);
    (void)pthread_mutex_destroy(&r->mutex);
    mem_free(&r);
}

static void lock(const struct broker_keyring *ring)
{
    (void)pthread_mutex_lock(base_unconst(&ring->mutex));
}

static void unlock(const struct broker_keyring *ring)
{
    (void)pthread_mutex_unlock(base_unconst(&ring->mutex));
}

/* ---- data keys -------------------------------------------------------------------------------- */

/* Under mutex; NULL: none. */
static const struct data_key *newest(const struct broker_keyring *ring)
{
    const struct data_key *best = NULL;

    for (size_t i = 0; i < ring->count; i++) {
        const struct data_key *k = &ring->ring[i];

        if (best == NULL || k->made_us > best->made_us ||
            (k->made_us == best->made_us && k->id > best->id)) {
            best = k;
        }
    }
    return best;
}

static const struct data_key *find(const struct broker_keyring *ring, uint32_t id)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (ring->ring[i].id == id) {
            return &ring->ring[i];
        }
    }
    return NULL;
}

void broker_key_text(uint32_t id, char text[BROKER_KEY_ID_SIZE])
{
    (void)snprintf(text, BROKER_KEY_ID_SIZE, "%08x", id);
}

uint32_t broker_key_id(struct sv text)
{
    uint32_t id = 0;

    if (text.n != BROKER_KEY_ID_SIZE - 1) {
        return 0;
    }
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return 0;
        }
        id = id << 4U | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return id;
}

/* Under mutex. */
static void add_record(const struct broker_keyring *ring, const struct data_key *key,
                       struct broker_records *out)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    unsigned char plain[WRAPPED];
    char id[BROKER_KEY_ID_SIZE];
    struct broker_record record = { .type = SV(BROKER_TYPE_KEY), .data_type = SV(BROKER_TYPE_KEY) };

    broker_key_text(key->id, id);
    memcpy(plain, key->key, KEY);
    for (unsigned i = 0; i < 8; i++) {
        plain[KEY + i] = (unsigned char)((uint64_t)key->made_us >> (56U - 8U * i));
    }
    plain[KEY + 8] = key->all_sealed ? 1 : 0;
    buf_init(&text, WRAPPED_TEXT_MAX);
    CHECK(seal_make(ring->sealers[0], sv_of(plain, sizeof(plain)), sv_from(id), &text) == ERR_OK);
    secret_wipe(plain, sizeof(plain));
    record.id = sv_from(id);
    record.data = buf_sv(&text);
    broker_records_add(out, &record);
}

enum err broker_keyring_make(const struct broker_keyring *ring, bool all_sealed,
                             struct broker_records *out)
{
    struct data_key key = { .made_us = clock_wall_us(), .all_sealed = all_sealed };
    const struct data_key *before = NULL;
    enum err err = ERR_LIMIT;

    lock(ring);
    before = newest(ring);
    if (before != NULL) { /* newer, whatever the clock says */
        key.made_us = MAX(key.made_us, before->made_us + 1);
    }
    do {
        key.id = (uint32_t)rand_u64();
    } while (key.id == 0 || find(ring, key.id) != NULL);
    rand_bytes(key.key, sizeof(key.key));
    if (ring->count < BROKER_KEYS_MAX) {
        add_record(ring, &key, out);
        err = ERR_OK;
    }
    unlock(ring);
    secret_wipe(&key, sizeof(key));
    return err;
}

enum err broker_keyring_rewrap(const struct broker_keyring *ring, uint32_t id, bool all_sealed,
                               struct broker_records *out)
{
    struct data_key key = { .id = 0 };
    const struct data_key *found = NULL;

    lock(ring);
    found = find(ring, id);
    if (found != NULL) {
        key = *found;
        key.all_sealed = all_sealed;
        add_record(ring, &key, out);
    }
    unlock(ring);
    secret_wipe(&key, sizeof(key));
    return found != NULL ? ERR_OK : ERR_NOT_FOUND;
}

/* Under mutex. SIZE_MAX: none opens it. */
static size_t unwrap(const struct broker_keyring *ring, const struct broker_record *record,
                     struct buf *plain)
{
    for (size_t i = 0; i < ring->n_secrets; i++) {
        buf_reset(plain);
        if (seal_open(ring->sealers[i], record->data, record->id, plain) == ERR_OK &&
            plain->n == WRAPPED) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* Under mutex. */
static enum err put(struct broker_keyring *ring, uint32_t id, const unsigned char plain[WRAPPED])
{
    struct data_key *key = base_unconst(find(ring, id));
    uint64_t made_us = 0;

    if (key == NULL && ring->count == BROKER_KEYS_MAX) {
        return ERR_LIMIT;
    }
    if (key == NULL) {
        key = &ring->ring[ring->count];
        ring->count++;
    }
    for (unsigned i = 0; i < 8; i++) {
        made_us = made_us << 8U | plain[KEY + i];
    }
    key->id = id;
    key->made_us = (int64_t)made_us;
    key->all_sealed = plain[KEY + 8] != 0;
    memcpy(key->key, plain, KEY);
    ring->changes++;
    return ERR_OK;
}

enum err broker_keyring_take(struct broker_keyring *ring, const struct broker_record *record,
                             bool *old_out, struct diag *d)
{
    struct buf plain = { 0 };
    uint32_t id = broker_key_id(record->id);
    size_t secret = SIZE_MAX;
    enum err err = ERR_CRYPTO;

    buf_init(&plain, WRAPPED_TEXT_MAX);
    lock(ring);
    if (id != 0) {
        secret = unwrap(ring, record, &plain);
    }
    if (secret != SIZE_MAX) {
        err = put(ring, id, (const unsigned char *)plain.p);
    }
    unlock(ring);
    if (err == ERR_CRYPTO) {
        diag_set(d,
                 "the store's data key %.*s does not open with the configured secret: give the one "
                 "before as databroker_encryption_key_previous or shared_secret_previous",
                 (int)MIN(record->id.n, (size_t)16), record->id.p);
    } else if (err == ERR_LIMIT) {
        diag_set(d, "the store holds more than %d data keys", BROKER_KEYS_MAX);
    }
    if (plain.p != NULL) {
        secret_wipe(plain.p, plain.n);
    }
    buf_deinit(&plain);
    *old_out = secret != SIZE_MAX && secret != 0;
    return err;
}

void broker_keyring_drop(struct broker_keyring *ring, uint32_t id)
{
    struct data_key *key = NULL;

    lock(ring);
    key = base_unconst(find(ring, id));
    if (key != NULL) {
        ring->count--;
        ring->changes++;
        *key = ring->ring[ring->count];
        secret_wipe(&ring->ring[ring->count], sizeof(ring->ring[0]));
    }
    unlock(ring);
}

void broker_keyring_look(const struct broker_keyring *ring, struct broker_keys *keys_out)
{
    const struct data_key *best = NULL;

    *keys_out = (struct broker_keys){ .count = 0 };
    lock(ring);
    keys_out->count = ring->count;
    for (size_t i = 0; i < ring->count; i++) {
        keys_out->ids[i] = ring->ring[i].id;
    }
    best = newest(ring);
    if (best != NULL) {
        keys_out->newest = best->id;
        keys_out->made_us = best->made_us;
        keys_out->all_sealed = best->all_sealed;
    }
    unlock(ring);
}

/* ---- records ---------------------------------------------------------------------------------- */

uint32_t broker_sealed_with(struct sv data)
{
    const unsigned char *p = (const unsigned char *)data.p;

    if (data.n < BROKER_SEAL_OVERHEAD || p[0] != 0 || p[1] != 1) {
        return 0;
    }
    return (uint32_t)p[2] << 24U | (uint32_t)p[3] << 16U | (uint32_t)p[4] << 8U | (uint32_t)p[5];
}

static bool bind_bytes(EVP_CIPHER_CTX *ctx, const void *p, size_t n)
{
    int done = 0;

    return EVP_CipherUpdate(ctx, NULL, &done, p, (int)n) == 1;
}

/* Names what the bytes belong to. No name holds a NUL, so it parts them. */
static bool bind_to(EVP_CIPHER_CTX *ctx, const unsigned char *head,
                    const struct broker_record *record)
{
    return bind_bytes(ctx, head, HEAD) && bind_bytes(ctx, record->type.p, record->type.n) &&
           bind_bytes(ctx, "", 1) && bind_bytes(ctx, record->id.p, record->id.n) &&
           bind_bytes(ctx, "", 1) && bind_bytes(ctx, record->data_type.p, record->data_type.n);
}

/* Makes the context that seals ready for a message: it goes on with the key that it has while that is the
 * newest. Under sealing. Returns the key's id. */
static uint32_t begin_seal(struct broker_keyring *ring, const unsigned char *nonce)
{
    struct data_key key;
    const struct data_key *found = NULL;
    bool changed = false;

    lock(ring);
    found = newest(ring);
    CHECK(found != NULL);
    key = *found;
    changed = ring->seal_changes != ring->changes;
    ring->seal_changes = ring->changes;
    unlock(ring);
    CHECK(EVP_CipherInit_ex2(ring->seal, changed ? ring->cipher : NULL, changed ? key.key : NULL,
                             nonce, 1, NULL) == 1);
    secret_wipe(key.key, sizeof(key.key));
    return key.id;
}

enum err broker_keyring_seal(const struct broker_keyring *ring, const struct broker_record *record,
                             struct buf *out)
{
    struct broker_keyring *r = base_unconst(ring); /* the context is a cache */
    unsigned char *wire = (unsigned char *)buf_room(out, record->data.n + BROKER_SEAL_OVERHEAD);
    unsigned char *body = NULL;
    uint32_t id = 0;
    int done = 0;

    if (wire == NULL) {
        return out->err;
    }
    body = wire + HEAD + NONCE;
    rand_bytes(wire + HEAD, NONCE);
    (void)pthread_mutex_lock(&r->sealing);
    id = begin_seal(r, wire + HEAD);
    wire[0] = 0;
    wire[1] = 1;
    for (unsigned i = 0; i < 4; i++) {
        wire[2 + i] = (unsigned char)(id >> (24U - 8U * i));
    }
    CHECK(bind_to(r->seal, wire, record));
    CHECK(record->data.n == 0 ||
          EVP_CipherUpdate(r->seal, body, &done, (const unsigned char *)record->data.p,
                           (int)record->data.n) == 1);
    CHECK(EVP_CipherFinal_ex(r->seal, body + done, &done) == 1);
    CHECK(EVP_CIPHER_CTX_ctrl(r->seal, EVP_CTRL_GCM_GET_TAG, TAG, body + record->data.n) == 1);
    (void)pthread_mutex_unlock(&r->sealing);
    buf_grew(out, record->data.n + BROKER_SEAL_OVERHEAD);
    return ERR_OK;
}

static enum err open_with(const struct broker_keyring *ring, const struct data_key *key,
                          struct broker_record *record)
{
    unsigned char *wire = base_unconst(record->data.p);
    unsigned char *body = wire + HEAD + NONCE;
    size_t n = record->data.n - BROKER_SEAL_OVERHEAD;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int done = 0;
    bool fine = EVP_CipherInit_ex2(ctx, ring->cipher, key->key, wire + HEAD, 0, NULL) == 1 &&
                bind_to(ctx, wire, record) &&
                (n == 0 || EVP_CipherUpdate(ctx, body, &done, body, (int)n) == 1) &&
                EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG, body + n) == 1 &&
                EVP_CipherFinal_ex(ctx, body + done, &done) == 1;

    EVP_CIPHER_CTX_free(ctx);
    if (!fine) {
        secret_wipe(body, n); /* unverified bytes must not be seen */
        return ERR_CRYPTO;
    }
    record->data = sv_of(body, n);
    return ERR_OK;
}

enum err broker_keyring_open(const struct broker_keyring *ring, struct broker_record *record)
{
    struct data_key key = { .id = 0 };
    const struct data_key *found = NULL;
    uint32_t id = broker_sealed_with(record->data);
    bool plain_is_fine = false;
    enum err err = ERR_NOT_FOUND;

    lock(ring);
    found = find(ring, id);
    if (found != NULL) {
        key = *found;
    }
    found = newest(ring);
    plain_is_fine = found != NULL && !found->all_sealed;
    unlock(ring);
    if (id == 0) {
        return plain_is_fine ? ERR_OK : ERR_CRYPTO;
    }
    if (key.id != 0) {
        err = open_with(ring, &key, record);
    }
    secret_wipe(&key, sizeof(key));
    return err;
}
