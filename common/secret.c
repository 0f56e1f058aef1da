#include "common/secret.h"

#include <string.h>
#include <sys/mman.h>

#include <openssl/crypto.h>

#include "common/b64.h"
#include "common/mem.h"

/* A mapping of its own, so that MADV_DONTDUMP covers nothing else. */
struct secret {
    size_t mapped;
    size_t n;
    char bytes[];
};

enum { SECRET_MAX = 65536 };

struct secret *secret_new(struct sv bytes)
{
    size_t mapped = sizeof(struct secret) + bytes.n;
    struct secret *s = NULL;

    CHECK(bytes.n <= SECRET_MAX);
    s = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(s != MAP_FAILED);
    (void)madvise(s, mapped, MADV_DONTDUMP);
    s->mapped = mapped;
    s->n = bytes.n;
    if (bytes.n != 0) {
        memcpy(s->bytes, bytes.p, bytes.n);
    }
    return s;
}

enum err secret_from_b64(struct sv text, struct secret **secret_out)
{
    size_t room = b64_decoded_max(text.n);
    char *bytes = NULL;
    size_t n = 0;
    enum err err = ERR_OK;

    if (room > SECRET_MAX) {
        return ERR_LIMIT;
    }
    bytes = mem_alloc(room);
    err = b64_decode(text, bytes, room, &n);
    if (err == ERR_OK) {
        *secret_out = secret_new(sv_of(bytes, n));
    }
    secret_wipe(bytes, room);
    mem_free(&bytes);
    return err;
}

void secret_free(struct secret **secret)
{
    struct secret *s = TAKE(*secret);

    if (s != NULL) {
        size_t mapped = s->mapped;

        secret_wipe(s, mapped);
        (void)munmap(s, mapped);
    }
}

struct sv secret_bytes(const struct secret *secret)
{
    return sv_of(secret->bytes, secret->n);
}

bool secret_eq(const struct secret *a, struct sv b)
{
    return secret_same(secret_bytes(a), b);
}

void secret_wipe(void *p, size_t n)
{
    OPENSSL_cleanse(p, n);
}

bool secret_same(struct sv a, struct sv b)
{
    return a.n == b.n && CRYPTO_memcmp(a.p, b.p, a.n) == 0;
}
