/* keys: one key for each purpose, derived from the shared secrets by HKDF-SHA-256 (RFC 5869) with
 * the purpose as info: a key for one thing verifies nothing else. Up to two secrets live at once for
 * rotation: slot 0 makes, every slot verifies. Immutable; any thread. */
#pragma once

#include "common/base.h"
#include "common/secret.h"
#include "common/sv.h"

enum { KEYS_SLOTS_MAX = 2, KEYS_SECRET_BYTES = 32, KEYS_MATERIAL_MAX = 64, KEYS_MAC_BYTES = 32 };

/* The purposes. Their labels are part of the wire formats: add, never change. */
enum keys_purpose {
    KEYS_HANDLE = 1,      /* the browser's session handle */
    KEYS_LOGIN_STATE,     /* sealed state of a login with the provider */
    KEYS_LOGIN_CODE,      /* one-time code back to the app's host */
    KEYS_LINK,            /* signed links between proxy and authenticate */
    KEYS_TOKEN,           /* tokens of outside clients */
    KEYS_TOKEN_AT_REST,   /* the provider's tokens in a session record */
    KEYS_ASSERTION,       /* P-256 key that signs X-Pomerium-Jwt-Assertion */
    KEYS_INTERNAL_CA,     /* P-256 key of the internal CA */
    KEYS_FORM,            /* anti-forgery tokens of forms on authenticate's pages */
    KEYS_TICKET,          /* TLS session tickets */
    KEYS_SERVICE_ACCOUNT, /* tokens of service accounts */
    KEYS_PROOF,           /* the parts' proofs on unix sockets */
    KEYS_AUDIT,           /* the chain of audit lines */
    KEYS_DATA_KEY         /* wraps the data keys of the store */
};

struct keys;

/* secrets: 1..KEYS_SLOTS_MAX of exactly KEYS_SECRET_BYTES; the first one makes new things.
 * ERR_INVALID: wrong count or size. */
MUST_CHECK enum err keys_new(const struct secret *const *secrets, size_t n, struct keys **keys_out);
void keys_free(struct keys **keys);
size_t keys_slots(const struct keys *keys);
/* One byte that names the secret of a slot in a token; tells nothing about the secret. */
uint8_t keys_id(const struct keys *keys, size_t slot);
/* The first slot with that id, beginning at from; SIZE_MAX: none. Two secrets may share an id. */
size_t keys_slot_of(const struct keys *keys, uint8_t id, size_t from);
/* n <= KEYS_MATERIAL_MAX bytes of key material for purpose; the caller wipes them. */
void keys_derive(const struct keys *keys, size_t slot, enum keys_purpose purpose, void *out,
                 size_t n);

/* HMAC-SHA-256 of text under the secret itself, which is how Pomerium signs (service_jwt.h): for what
 * others made, never for anything of ours. */
void keys_root_mac(const struct keys *keys, size_t slot, struct sv text,
                   unsigned char mac_out[KEYS_MAC_BYTES]);

/* A P-256 private key (EVP_PKEY) fixed by secret and purpose; the caller frees it with
 * EVP_PKEY_free. Derived by rejection-free reduction of 48 bytes (FIPS 186-5 A.2.1). */
struct evp_pkey_st;
struct evp_pkey_st *keys_ec_p256(const struct keys *keys, size_t slot, enum keys_purpose purpose);
