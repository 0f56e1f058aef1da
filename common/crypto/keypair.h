/* keypair: a certificate, its chain and its private key, parsed once and found to belong together.
 * Immutable, refcounted: configurations, snapshots and handshakes share it. Any thread. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

struct keypair;
struct x509_st;
struct evp_pkey_st;
struct stack_st_X509;

enum { KEYPAIR_ID_SIZE = 32, KEYPAIR_CHAIN_MAX = 16, KEYPAIR_TEXT_MAX = 1024 * 1024 };

/* cert_pem: the leaf, then its chain. A key with a passphrase is an error, never a question.
 * ERR_INVALID, ERR_LIMIT with the sentence in d. One reference for the caller. */
MUST_CHECK enum err keypair_of_pem(struct sv cert_pem, struct sv key_pem,
                                   struct keypair **keypair_out, struct diag *d);
struct keypair *keypair_ref(struct keypair *keypair);
void keypair_unref(struct keypair **keypair);
/* SHA-256 over both texts: what makes two of them the same. */
void keypair_id_of(struct sv cert_pem, struct sv key_pem, uint8_t id_out[KEYPAIR_ID_SIZE]);
struct sv keypair_id(const struct keypair *keypair);
/* Borrowed; the chain is without the leaf, its order the file's. */
struct x509_st *keypair_leaf(const struct keypair *keypair);
struct stack_st_X509 *keypair_chain(const struct keypair *keypair);
struct evp_pkey_st *keypair_key(const struct keypair *keypair);
int64_t keypair_ends_s(const struct keypair *keypair); /* notAfter of the leaf, wall clock */

/* notAfter, nextUpdate and the like as seconds since 1970; 0: no such time. */
struct asn1_string_st;
int64_t keypair_time_s(const struct asn1_string_st *time);
