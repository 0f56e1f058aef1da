/* audit_chain: what makes it visible that lines of an audit were changed, taken out or put in. Each
 * line gets, at its end,
 *
 *     ,"chain":"8 bytes hex","seq":N,"mac":"32 bytes hex"}
 *
 * where mac is over the 32 bytes of the line before (zero for the first) and the text of the line up
 * to ,"mac". With HMAC-SHA-256 and a key derived from shared_secret nobody can make lines without that
 * secret: not who may write the file, nor who has a backup of it. The plain SHA-256 ("hash" in place
 * of "mac") anybody can check without a secret, and anybody who may write can make anew: it shows
 * accidents, and fraud only where its newest value is noted down elsewhere.
 * Neither shows that lines are missing at the end: see verify.h. One thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/crypto/keys.h"
#include "common/sv.h"

enum {
    AUDIT_SUM_BYTES = 32,
    AUDIT_SUM_TEXT = 2 * AUDIT_SUM_BYTES,
    AUDIT_ID_TEXT = 16 /* of a chain */
};

struct audit_chain {
    enum config_audit_chain kind; /* OFF: lines stay as they are */
    char id[AUDIT_ID_TEXT + 1];
    uint64_t seq; /* of the last line; 0: none yet */
    uint8_t sum[AUDIT_SUM_BYTES];
    struct audit_summer *summer;
};

/* Begins a new chain, with a random id. keys: for HMAC, else NULL. */
void audit_chain_init(struct audit_chain *chain, enum config_audit_chain kind,
                      const struct keys *keys);
void audit_chain_deinit(struct audit_chain *chain);
/* Goes on after line, the last of a file. False: it is of no chain, or of one of another kind. */
bool audit_chain_resume(struct audit_chain *chain, struct sv line);
/* Appends line, which ends with "}" or "}\n", as the next one of the chain, with its line break. */
void audit_chain_add(struct audit_chain *chain, struct sv line, struct buf *out);
/* Appends the line that begins a file or a connection: it holds the sum of the line before, so that
 * what follows can be checked without that. */
void audit_chain_open(struct audit_chain *chain, int64_t wall_ms, struct buf *out);
/* Appends the line of an orderly end. */
void audit_chain_end(struct audit_chain *chain, int64_t wall_ms, struct buf *out);

/* The chain's fields of a line. */
struct audit_link {
    enum config_audit_chain kind;
    char id[AUDIT_ID_TEXT + 1];
    uint64_t seq;
    struct sv covered; /* the text that sum is over, besides the sum before; borrowed */
    uint8_t sum[AUDIT_SUM_BYTES];
    bool opens; /* prev is set */
    bool ends;  /* an orderly end */
    uint8_t prev[AUDIT_SUM_BYTES];
};

/* line: without its line break. False: it is no line of a chain. */
bool audit_link_read(struct sv line, struct audit_link *link_out);

/* Computes sums with one key, many times. */
struct audit_summer;
struct audit_summer *audit_summer_new(enum config_audit_chain kind, const struct keys *keys,
                                      size_t slot);
void audit_summer_free(struct audit_summer **summer);
void audit_summer_sum(struct audit_summer *summer, const uint8_t prev[AUDIT_SUM_BYTES],
                      struct sv covered, uint8_t sum_out[AUDIT_SUM_BYTES]);
