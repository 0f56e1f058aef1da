/* ID tokens: any bytes under a fixed key set; nothing may verify that we did not sign. */
#include <string.h>

#include "common/crypto/jose.h"

static const char key_set[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"kid-ec-sign\",\"alg\":\"ES256\",\"use\":\"sig\","
    "\"x\":\"04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY\","
    "\"y\":\"UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw\"}]}";

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void kid_is_bounded(struct sv token)
{
    char kid[JOSE_KID_MAX + 1];

    CHECK(jose_token_kid(token, kid) != ERR_OK || strlen(kid) <= JOSE_KID_MAX);
}

static void issuer_is_bounded(struct sv token)
{
    struct buf issuer;

    buf_init(&issuer, 64);
    CHECK(jose_token_issuer(token, &issuer) != ERR_OK || issuer.n <= 64);
    buf_deinit(&issuer);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jose_keys *keys;
    struct diag d = { .line = 0 };
    json_t *header = NULL;
    struct buf payload;

    if (keys == NULL) {
        CHECK(jose_keys_parse(sv_from(key_set), &keys, NULL) == ERR_OK);
    }
    buf_init(&payload, JOSE_TOKEN_MAX);
    if (jose_verify(keys, sv_of(data, size), &payload, &header, &d) == ERR_OK) {
        /* The published example is the only token of this key. */
        CHECK(payload.n == 3 && memcmp(payload.p, "foo", 3) == 0);
    } else {
        CHECK(d.text[0] != '\0' && payload.n == 0);
    }
    kid_is_bounded(sv_of(data, size));
    issuer_is_bounded(sv_of(data, size));
    json_decref(header);
    buf_deinit(&payload);
    return 0;
}
