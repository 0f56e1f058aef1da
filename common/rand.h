/* rand: randomness from the kernel, by way of OpenSSL's DRBG. A failure stops the process:
 * predictable secrets are worse than none. Any thread. */
#pragma once

#include "common/base.h"

void rand_bytes(void *p, size_t n);
uint64_t rand_u64(void);
/* 0 <= result < bound; bound > 0. Not for secrets (modulo bias is accepted): jitter, choices. */
uint64_t rand_below(uint64_t bound);

enum { RAND_UUID_SIZE = 37 };

/* A version 4 UUID (RFC 9562 §5.4) with its NUL. */
void rand_uuid(char text[RAND_UUID_SIZE]);
