/* data_set: rows become what is in force of a type of external data, all of them or none: in one
 * transaction where the changes fit in one, else beside what is in force and then in force at once
 * (form.h says how that looks). What did not change is not written, what rows do not have any more
 * ends. Blocks as long as the store does; one thread. */
#pragma once

#include "common/base.h"
#include "common/data/rows.h"
#include "common/diag.h"
#include "common/sv.h"

enum { DATA_SET_BATCH = 501 }; /* records of one put, at most */

struct data_record {
    struct sv id;
    struct sv data; /* a Struct; {NULL, 0}: the record's end */
};

typedef void (*data_record_fn)(struct sv id, struct sv data, void *arg);

/* Where sets stand: the databroker, from outside or from inside. The caller holds the lease of the type
 * (DATA_LEASE) and keeps it. Errors: whatever it is, nothing more is done; d may stay as it is where the
 * store has said it itself. */
struct data_store {
    /* Calls each for every record of the type, in any order. */
    enum err (*read)(void *arg, const char *type, data_record_fn each, void *each_arg,
                     struct diag *d);
    /* One transaction. */
    enum err (*put)(void *arg, const char *type, const struct data_record *records, size_t n,
                    struct diag *d);
    void *arg;
};

struct data_change {
    const char *type;
    enum data_key key;
    const struct data_rows *rows;
    bool may_be_empty; /* no rows end those in force */
    bool may_shrink;   /* much fewer rows, or much less weight, may follow more */
    bool is_dry;       /* only look what would change */
};

struct data_counts {
    size_t added;
    size_t changed;
    size_t removed;
    size_t same;
    size_t weight_before; /* of the rows in force */
    bool is_littered; /* rows that are in force no more could not be cleared away; the next does */
};

/* Whether of so many so many less may be a mistake of who made the rows: more than a fifth, and not just a
 * few. */
bool data_set_is_loss(size_t before, size_t lost);

/* ERR_DENIED: there are no rows, and counts_out->removed are in force; or it would be a loss of rows or of
 * weight that the change may not have. ERR_LIMIT: the type has more
 * records than external data can have. Else what the store says. On every error but a lost last answer
 * what was in force is. */
MUST_CHECK enum err data_set_apply(const struct data_store *store, const struct data_change *change,
                                   struct data_counts *counts_out, struct diag *d);
