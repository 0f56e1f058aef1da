/* broker_keyring: the data keys of a store, and records sealed with them (AES-256-GCM).
 *
 *   configured secrets --HKDF--> wrapping keys --wrap--> data keys --seal--> data of records
 *
 * A data key rests in the store as a record of type BROKER_TYPE_KEY, wrapped by the first secret; any of
 * the secrets opens it. Sealed data:
 *   0x00 | 0x01 | key id (4, big endian) | nonce (12) | ciphertext | tag (16)
 * with the six bytes before the nonce and the record's type, id and type of data as associated data: a row
 * that is moved, renamed or retyped does not open. No protobuf message begins with 0x00, so plain data of
 * before is told apart. The version is not in it: it is not known when the bytes are sealed.
 * Any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/secret.h"
#include "databroker/record.h"

enum {
    BROKER_SECRETS_MAX = 4,
    BROKER_KEYS_MAX = 32,      /* data keys at once */
    BROKER_SEAL_OVERHEAD = 34, /* bytes */
    BROKER_KEY_ID_SIZE = 9     /* eight hexadecimal digits with their NUL */
};

struct broker_keyring;

/* secrets: 1..BROKER_SECRETS_MAX of KEYS_SECRET_BYTES; copied. */
struct broker_keyring *broker_keyring_new(const struct secret *const *secrets, size_t n);
void broker_keyring_free(struct broker_keyring **ring);

/* Adds the record of a new key to out; the key is used once broker_keyring_take was given the record,
 * which must be in the store by then. all_sealed: no plain data is believed any more. ERR_LIMIT. */
MUST_CHECK enum err broker_keyring_make(const struct broker_keyring *ring, bool all_sealed,
                                        struct broker_records *out);
/* Adds to out the record of key id wrapped anew, by the first secret. ERR_NOT_FOUND. */
MUST_CHECK enum err broker_keyring_rewrap(const struct broker_keyring *ring, uint32_t id,
                                          bool all_sealed, struct broker_records *out);
/* Learns a key from its record. *old_out: it is wrapped by another secret than the first.
 * ERR_CRYPTO: no secret opens it. ERR_LIMIT. */
MUST_CHECK enum err broker_keyring_take(struct broker_keyring *ring,
                                        const struct broker_record *record, bool *old_out,
                                        struct diag *d);
void broker_keyring_drop(struct broker_keyring *ring, uint32_t id);

/* What the ring holds. newest: seals; 0: there is none yet. */
struct broker_keys {
    size_t count;
    uint32_t ids[BROKER_KEYS_MAX];
    uint32_t newest;
    int64_t made_us; /* the newest */
    bool all_sealed; /* the newest says so */
};

void broker_keyring_look(const struct broker_keyring *ring, struct broker_keys *keys_out);
void broker_key_text(uint32_t id, char text[BROKER_KEY_ID_SIZE]);
uint32_t broker_key_id(struct sv text); /* 0: it is none */
/* The key that data is sealed with; 0: it is plain. */
uint32_t broker_sealed_with(struct sv data);

/* Appends record's data sealed with the newest key. */
MUST_CHECK enum err broker_keyring_seal(const struct broker_keyring *ring,
                                        const struct broker_record *record, struct buf *out);
/* Opens record's data in place; its bytes must be writable. Plain data stays as it is while not all is
 * sealed. ERR_NOT_FOUND: a key that the ring does not hold. ERR_CRYPTO: the bytes are not this record's. */
MUST_CHECK enum err broker_keyring_open(const struct broker_keyring *ring,
                                        struct broker_record *record);
