/* authz_block: what both ends of CheckStream agree on about identity blocks (proto/authorize.proto)
 * and about the size of a message and its parts.
 *
 * Each stream has a table of AUTHZ_BLOCK_SLOTS slots on both sides. Authorize numbers the blocks of
 * a stream 1, 2, 3, …; block n lies in slot n % AUTHZ_BLOCK_SLOTS and replaces what lay there. A
 * reply names only a block whose number is the one in its slot; the block always came before the
 * reply on the same stream, in the same message or an earlier one. The proxy treats a number that
 * does not match its slot as a broken stream. Constants; any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    AUTHZ_BLOCK_SLOTS = 4096,
    /* All header names and values of one block together. A bigger identity is an error with a
     * reason (identity-too-large), never a shorter identity. */
    AUTHZ_BLOCK_MAX = 16 * 1024,
    AUTHZ_BLOCK_HEADERS_MAX = 128,
    AUTHZ_BLOCK_FACTS_MAX = 1024, /* of the same bytes */
    /* Checks of one CheckBatch; a bigger one ends the stream. */
    AUTHZ_BATCH_MAX = 4096,
    /* Bytes of one message either way; authorize splits its answers, the proxy its questions. */
    AUTHZ_MESSAGE_MAX = 1024 * 1024,
    /* Names of a client certificate in a check, and their bytes together. */
    AUTHZ_CERT_NAMES_MAX = 64,
    AUTHZ_CERT_BYTES_MAX = 8 * 1024,
    /* Headers of the request in a check: those of the route's own policy and of central ones. */
    AUTHZ_HEADERS_MAX = 80
};

static inline size_t authz_block_slot(uint64_t number)
{
    return (size_t)(number % AUTHZ_BLOCK_SLOTS);
}
