/* ID tokens: any bytes under a fixed key set; nothing may verify that we did not sign. */
#include <string.h>

#include "common/crypto/jose.h"

static const char KEYS[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"kid-ec-sign\",\"alg\":\"ES256\",\"use\":\"sig\","
    "\"x\":\"04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY\","
    "\"y\":\"UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw\"}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jose_keys *keys;
    struct diag d = { .line = 0 };
    char kid[JOSE_KID_MAX + 1];
    json_t *header = NULL;
    struct buf payload;

    if (keys == NULL) {
        CHECK(jose_keys_parse(sv_from(KEYS), &keys, NULL) == ERR_OK);
    }
    buf_init(&payload, JOSE_TOKEN_MAX);
    if (jose_verify(keys, sv_of(data, size), &payload, &header, &d) == ERR_OK) {
        /* The published example is the only token of this key. */
        CHECK(payload.n == 3 && memcmp(payload.p, "foo", 3) == 0);
    } else {
        CHECK(d.text[0] != '\0' && payload.n == 0);
    }
    if (jose_token_kid(sv_of(data, size), kid) == ERR_OK) {
        CHECK(strlen(kid) <= JOSE_KID_MAX);
    }
    json_decref(header);
    buf_deinit(&payload);
    return 0;
}
