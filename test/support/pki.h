/* pki: certificates and keys for unit tests, made on the spot: small, signed by themselves. The
 * texts are the caller's (mem_free). */
#pragma once

#include "common/base.h"

enum pki_kind { PKI_P256 = 0, PKI_P384, PKI_RSA2048, PKI_ED25519 };

struct pki_pair {
    char *cert; /* PEM */
    char *key;
};

/* name: the subject and, as DNS, the only other name. */
struct pki_pair pki_pair_new(enum pki_kind kind, const char *name);
void pki_pair_deinit(struct pki_pair *pair);
/* The key under a passphrase. */
char *pki_sealed_key(const char *key_pem, const char *passphrase);
