/* import_set: what is in force of a type of external data, what rows would change, and the change.
 * See common/data/form.h for the form. Prints what fails. */
#pragma once

#include "cli/broker.h"
#include "common/data/rows.h"

struct import_set; /* the records of one type, as they were read */

struct import_counts {
    size_t added;
    size_t changed;
    size_t removed;
    size_t same;
    size_t leftovers; /* of an import that was cut off: not in force */
};

/* NULL: it failed and was said. */
struct import_set *import_set_read(const struct cli_broker *b, const char *type);
void import_set_free(struct import_set **set);

/* Whether a set with that key is in force, if only one without rows. */
bool import_set_is(const struct import_set *set, enum data_key key);
/* How many rows are in force. */
size_t import_set_rows(const struct import_set *set);
struct import_counts import_set_compare(struct import_set *set, enum data_key key,
                                        const struct data_rows *rows);
/* Makes rows the set: in one transaction where the changes fit in one, else beside what is in force
 * and then in force at once. lease: held by the caller; kept on the way. False: it failed and was
 * said; the old set is in force. */
bool import_set_write(struct import_set *set, enum data_key key, const struct data_rows *rows,
                      const char *lease);
