#include "common/rand.h"

#include <string.h>

#include <openssl/rand.h>

void rand_bytes(void *p, size_t n)
{
    CHECK(n <= INT32_MAX);
    CHECK(RAND_bytes(p, (int)n) == 1);
}

uint64_t rand_u64(void)
{
    uint64_t v = 0;

    rand_bytes(&v, sizeof(v));
    return v;
}

uint64_t rand_below(uint64_t bound)
{
    CHECK(bound > 0);
    return rand_u64() % bound;
}

enum { POOL = 2048 };

/* n bytes from a pool of this thread: one call into the DRBG, with its lock and its look at the
 * process id, serves many ids. Bytes are wiped as they are handed out. */
static void pooled_bytes(unsigned char *p, size_t n)
{
    static _Thread_local unsigned char pool[POOL];
    static _Thread_local size_t left;

    if (left < n) {
        rand_bytes(pool, sizeof(pool));
        left = sizeof(pool);
    }
    left -= n;
    memcpy(p, pool + left, n);
    memset(pool + left, 0, n);
}

void rand_uuid(char text[RAND_UUID_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    static const unsigned char at[16] = {
        0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34
    };
    unsigned char b[16];
    size_t i = 0;

    pooled_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0fU) | 0x40U);
    b[8] = (unsigned char)((b[8] & 0x3fU) | 0x80U);
    memcpy(text, "........-....-....-....-............", RAND_UUID_SIZE);
    for (i = 0; i < sizeof(b); i++) {
        text[at[i]] = hex[b[i] >> 4U];
        text[at[i] + 1] = hex[b[i] & 15U];
    }
}
