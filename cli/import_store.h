/* import_store: the databroker as a place for sets of external data, from outside. Says itself what
 * fails. */
#pragma once

#include "cli/broker.h"
#include "common/data/set.h"

struct import_store {
    const struct cli_broker *broker;
    const char *lease; /* the id of the lease of the type, kept with every put; NULL: only reads */
};

/* For data_set_apply; borrows store. */
struct data_store import_store_of(struct import_store *store);
