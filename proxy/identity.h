/* proxy_identity: the headers that tell an upstream who its visitor is, as authorize made them: one
 * block for many answers. Refcounted, owned by one worker. */
#pragma once

#include "authorize.pb-c.h"

#include "common/authz_block.h"
#include "common/base.h"
#include "common/sv.h"

/* A header of an identity block. */
struct proxy_identity_header {
    struct sv name;
    struct sv value;
};

/* Refcounted; one worker. */
struct proxy_identity {
    unsigned refs;
    size_t n;
    struct proxy_identity_header *headers;
    size_t n_facts;
    struct proxy_identity_header *facts; /* behind the headers */
    struct sv user;                      /* whose it is; "" where replies say it */
    struct sv email;
};

/* The i-th fact of that name (proto/authorize.proto); {NULL, 0}: there is none. identity may be
 * NULL. */
struct sv proxy_identity_fact(const struct proxy_identity *identity, struct sv name, size_t i);

void proxy_identity_unref(struct proxy_identity **identity);

/* The blocks of a stream, by number (common/authz_block.h). */
struct proxy_identity_table {
    struct {
        uint64_t number;
        struct proxy_identity *identity;
    } slots[AUTHZ_BLOCK_SLOTS];
};

/* Takes a copy into its slot. False: number 0, more headers or text than a block may have, or a
 * value that could end its line in an HTTP/1 head. */
MUST_CHECK bool proxy_identity_put(struct proxy_identity_table *table,
                                   const Postern__IdentityBlock *block);
/* One reference for the caller; NULL: the slot does not hold that number. */
struct proxy_identity *proxy_identity_get(struct proxy_identity_table *table, uint64_t number);
void proxy_identity_clear(struct proxy_identity_table *table);
