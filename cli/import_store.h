/* import_store: the databroker as a place for sets of rows, from outside. Says itself what fails. */
#pragma once

#include "cli/broker.h"
#include "common/data/set.h"

struct import_store {
    const struct cli_broker *broker;
    const char *lease; /* the id of the lease of the type, kept with every put; NULL: only reads */
};

/* For data_set_apply; borrows store. */
struct data_store import_store_of(struct import_store *store);

/* Exit code of work, which runs under the lease of a type; of only looking, without one: lease NULL. */
typedef int (*import_work_fn)(const struct cli_broker *b, const char *lease, void *arg);
int import_with_lease(const struct cli_broker *b, const char *type, bool is_dry,
                      import_work_fn work, void *arg);
