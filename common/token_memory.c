#include "common/token_memory.h"

#include <string.h>

#include <openssl/evp.h>

#include "common/clock.h"
#include "common/map.h"
#include "common/mem.h"

enum {
    SLOTS = 1024,
    KEEP_MS = 60000,    /* how long an issuer's word counts after it took a key back */
    KEEP_BAD_MS = 2000, /* a hammering client costs authenticate one question in that time */
    MISSERS = 256,
    MISSES_MAX = 100,  /* bad tokens of one address … */
    MISSES_MS = 10000, /* … in so long */
    V6_NETWORK = 8
};

struct slot {
    struct token_key key;
    int64_t until_ms; /* 0: empty */
    struct token_known known;
};

/* Several addresses share a place, and the last one has it. */
struct misser {
    uint64_t who;
    int64_t since_ms;
    unsigned n;
};

struct token_memory {
    EVP_MD_CTX *md; /* kept: the way of a request allocates nothing */
    struct slot slots[SLOTS];
    struct misser missers[MISSERS];
};

struct token_memory *token_memory_new(void)
{
    struct token_memory *m = MEM_NEW(struct token_memory);

    m->md = EVP_MD_CTX_new();
    CHECK(m->md != NULL);
    return m;
}

void token_memory_free(struct token_memory **memory)
{
    if (*memory != NULL) {
        EVP_MD_CTX_free((*memory)->md);
    }
    mem_free(memory);
}

struct token_key token_memory_key(struct token_memory *m, struct sv token,
                                  const struct config_route *route)
{
    const uint64_t about[] = { route == NULL ? 0 : route->id, route == NULL ? 0 : route->edition };
    struct token_key key;
    unsigned n = 0;

    CHECK(EVP_DigestInit_ex(m->md, EVP_sha256(), NULL) == 1 &&
          EVP_DigestUpdate(m->md, about, sizeof(about)) == 1 &&
          EVP_DigestUpdate(m->md, token.p, token.n) == 1 &&
          EVP_DigestFinal_ex(m->md, key.sum, &n) == 1 && n == sizeof(key.sum));
    return key;
}

static struct slot *slot_of(struct token_memory *m, const struct token_key *key)
{
    uint32_t n = 0;

    memcpy(&n, key->sum, sizeof(n));
    return &m->slots[n % SLOTS];
}

const struct token_known *token_memory_recall(struct token_memory *m, const struct token_key *key)
{
    const struct slot *slot = slot_of(m, key);

    return slot->until_ms > clock_coarse_ms() && memcmp(&slot->key, key, sizeof(*key)) == 0
               ? &slot->known
               : NULL;
}

void token_memory_keep(struct token_memory *m, const struct token_key *key,
                       const struct handle *handle, int64_t expires_at_s)
{
    int64_t left_ms = (expires_at_s - clock_wall_s()) * 1000;

    *slot_of(m, key) = (struct slot){ .key = *key,
                                      .until_ms = clock_coarse_ms() + MIN(left_ms, KEEP_MS),
                                      .known = { .handle = *handle } };
}

void token_memory_keep_bad(struct token_memory *m, const struct token_key *key, const char *code)
{
    struct slot *slot = slot_of(m, key);
    int64_t now_ms = clock_coarse_ms();

    if (slot->known.code != NULL || slot->until_ms <= now_ms) {
        *slot = (struct slot){ .key = *key,
                               .until_ms = now_ms + KEEP_BAD_MS,
                               .known = { .code = code } };
    }
}

static uint64_t who_of(struct sv ip)
{
    return map_hash(sv_head(ip, MIN(ip.n, (size_t)V6_NETWORK)));
}

bool token_memory_misses_too_often(const struct token_memory *m, struct sv ip)
{
    uint64_t who = who_of(ip);
    const struct misser *one = &m->missers[who % MISSERS];

    return one->who == who && one->n >= MISSES_MAX && clock_coarse_ms() - one->since_ms < MISSES_MS;
}

void token_memory_note_miss(struct token_memory *m, struct sv ip)
{
    uint64_t who = who_of(ip);
    struct misser *one = &m->missers[who % MISSERS];

    if (one->who != who || clock_coarse_ms() - one->since_ms >= MISSES_MS) {
        *one = (struct misser){ .who = who, .since_ms = clock_coarse_ms() };
    }
    one->n++;
}
