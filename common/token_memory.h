/* token_memory: what was found out about tokens that programs showed. What holds is remembered for a
 * minute by its SHA-256, with what it was opened for; what does not, for two seconds, and it drives out
 * none that holds. An address that shows a hundred bad ones in ten seconds is one that makes them up:
 * no more of its new ones are to be looked at until then. Bounded; one thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/handle.h"
#include "common/sv.h"

struct token_memory;

/* Nobody finds another text for it, so that comparing it tells nothing. */
struct token_key {
    unsigned char sum[32];
};

struct token_known {
    const char *code; /* why it does not hold; NULL: it does */
    struct handle handle;
};

struct token_memory *token_memory_new(void);
void token_memory_free(struct token_memory **memory);
/* route NULL: the token is worth the same on each. Whatever a route's configuration says about tokens is in
 * its edition. */
struct token_key token_memory_key(struct token_memory *memory, struct sv token,
                                  const struct config_route *route);
/* NULL: nothing is known of it. Valid until the next call. */
const struct token_known *token_memory_recall(struct token_memory *memory,
                                              const struct token_key *key);
void token_memory_keep(struct token_memory *memory, const struct token_key *key,
                       const struct handle *handle, int64_t expires_at_s);
/* code: constant. */
void token_memory_keep_bad(struct token_memory *memory, const struct token_key *key,
                           const char *code);
/* ip: the bytes of an address, of which an IPv6 network counts; "": none is known. */
bool token_memory_misses_too_often(const struct token_memory *memory, struct sv ip);
void token_memory_note_miss(struct token_memory *memory, struct sv ip);
