#include "authorize/blocks.h"

#include "common/mem.h"

enum { INDEX = 2 * AUTHZ_BLOCK_SLOTS };

struct authz_blocks {
    uint64_t serial[AUTHZ_BLOCK_SLOTS]; /* of the identity in the slot; 0: empty */
    uint64_t number[INDEX];             /* by serial % INDEX: a hint that the slot confirms */
    uint64_t last;
};

struct authz_blocks *authz_blocks_new(void)
{
    return MEM_NEW(struct authz_blocks);
}

void authz_blocks_free(struct authz_blocks **blocks)
{
    mem_free(blocks);
}

uint64_t authz_blocks_find(const struct authz_blocks *blocks, uint64_t serial)
{
    uint64_t number = blocks->number[serial % INDEX];

    /* The slot holds the newest number of its class, so an older number never finds its serial. */
    return number != 0 && blocks->serial[authz_block_slot(number)] == serial ? number : 0;
}

uint64_t authz_blocks_add(struct authz_blocks *blocks, uint64_t serial)
{
    uint64_t number = ++blocks->last;

    blocks->serial[authz_block_slot(number)] = serial;
    blocks->number[serial % INDEX] = number;
    return number;
}
