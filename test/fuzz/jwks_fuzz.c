/* Key sets of a provider: whatever is taken from one must bear being tried. */
#include "common/crypto/jose.h"

static const char *const tokens[] = {
    "eyJhbGciOiJSUzI1NiJ9.e30.AAAA",
    "eyJhbGciOiJQUzM4NCJ9.e30.AAAA",
    "eyJhbGciOiJFUzI1NiJ9.e30.AAAA",
    "eyJhbGciOiJFUzUxMiJ9.e30.AAAA",
};

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jose_keys *keys = NULL;

    if (jose_keys_parse(sv_of(data, size), &keys, NULL) != ERR_OK) {
        CHECK(keys == NULL);
        return 0;
    }
    CHECK(jose_keys_count(keys) > 0 && jose_keys_count(keys) <= JOSE_KEYS_MAX);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        struct buf payload;

        buf_init(&payload, JOSE_TOKEN_MAX);
        CHECK(jose_verify(keys, sv_from(tokens[i]), &payload, NULL, NULL) != ERR_OK);
        buf_deinit(&payload);
    }
    jose_keys_free(&keys);
    return 0;
}
