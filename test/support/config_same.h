/* config_same: whether two configurations say the same, for tests of the ways to read one. */
#pragma once

#include "common/buf.h"
#include "common/config/config.h"

/* Both came out as configurations that say the same, or as the same errors (then both are NULL). */
bool config_outcome_same(const struct config *a, const struct config_errors *a_errors,
                         const struct config *b, const struct config_errors *b_errors);
