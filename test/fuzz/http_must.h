/* must: a property of a fuzz target. A broken one stops the process; the stack shows which. */
#pragma once

#include "common/base.h"
#include "common/http/head.h"

static inline void must(bool holds)
{
    CHECK(holds);
}

/* The same name, value and flags; whether it stands in a line as we write it may differ. What is
 * marked so is such a line. */
static inline void must_be_same_field(const struct http_field *a, const struct http_field *b)
{
    must(sv_eq(a->name, b->name) && sv_eq(a->value, b->value) && a->id == b->id);
    must((a->flags & ~HTTP_F_LINE) == (b->flags & ~HTTP_F_LINE));
    if ((a->flags & HTTP_F_LINE) != 0) {
        struct sv line = http_field_line(a);

        must(a->value.p == a->name.p + a->name.n + 2);
        must(sv_eq(sv_of(line.p + a->name.n, 2), SV(": ")) && sv_ends(line, SV("\r\n")));
        must(sv_eq(a->value, sv_trim(a->value)));
    }
}
