/* stand_in: a certificate that nobody trusts, signed by itself, for a listener whose real ones are still
 * to come. Any thread. */
#pragma once

#include "common/crypto/keypair.h"

/* A new key each time, P-256; good for a year. One reference for the caller. */
struct keypair *stand_in_new(void);
