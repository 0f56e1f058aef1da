/* authz_blocks: which identities the other end of one stream holds, and under which number: the
 * sender's side of the table in common/authz_block.h. One thread. */
#pragma once

#include "common/authz_block.h"
#include "common/base.h"

struct authz_blocks;

struct authz_blocks *authz_blocks_new(void);
void authz_blocks_free(struct authz_blocks **blocks);
/* The number of the identity with that serial, 0: the other end does not hold it (any more), or it
 * was forgotten here, which only costs sending it again. */
uint64_t authz_blocks_find(const struct authz_blocks *blocks, uint64_t serial);
/* Gives it the next number; what lay in that slot is gone. The caller sends the block now. */
uint64_t authz_blocks_add(struct authz_blocks *blocks, uint64_t serial);
