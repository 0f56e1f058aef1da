#include "common/rand.h"

#include <stdio.h>

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

void rand_uuid(char text[RAND_UUID_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char b[16];
    size_t i = 0;
    size_t at = 0;

    rand_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0fU) | 0x40U);
    b[8] = (unsigned char)((b[8] & 0x3fU) | 0x80U);
    for (i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            text[at++] = '-';
        }
        text[at++] = hex[b[i] >> 4U];
        text[at++] = hex[b[i] & 15U];
    }
    text[at] = '\0';
}
