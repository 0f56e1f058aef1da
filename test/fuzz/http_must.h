/* must: a property of a fuzz target. A broken one stops the process; the stack shows which. */
#pragma once

#include "common/base.h"

static inline void must(bool holds)
{
    CHECK(holds);
}
