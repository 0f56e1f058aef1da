/* broker_filter: the filter of a Query, read once and then asked of each record. The grammar is that of
 * Pomerium's clients; docs/databroker.md has it. Both sides are foreign: a filter is bounded in nodes,
 * depth and bytes when it is read, and every look at a record counts against a deadline. */
#pragma once

#include "google/protobuf/struct.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "databroker/record.h"

enum {
    BROKER_FILTER_NODES = 1024, /* tests, operands, $and, $or, $not */
    BROKER_FILTER_DEPTH = 16,   /* of objects and lists; and names in a path */
    BROKER_FILTER_BYTES = 64 * 1024
};

struct broker_filter;

/* What looking takes; on one thread at a time. */
struct broker_filter_run {
    struct arena arena; /* the record that is looked at, unpacked */
    int64_t deadline_ms;
    uint64_t steps; /* since the clock was looked at */
    struct diag *d;
};

void broker_filter_run_init(struct broker_filter_run *run, int64_t deadline_ms, struct diag *d);
void broker_filter_run_deinit(struct broker_filter_run *run); /* usable as CLEANUP */

/* Copies what it needs into arena. ERR_UNSUPPORTED: an operator that is not known here.
 * ERR_INVALID: it makes no sense. ERR_LIMIT. */
MUST_CHECK enum err broker_filter_read(const Google__Protobuf__Struct *message, struct arena *arena,
                                       const struct broker_filter **filter_out, struct diag *d);
/* Whether only records of certain ids can match; then those, in order, each once, in arena. */
bool broker_filter_ids(const struct broker_filter *filter, struct arena *arena,
                       const struct sv **ids_out, size_t *n_out);
/* A record does not match where its data is needed and damaged. ERR_TIMEOUT: the deadline is over. ERR_UNSUPPORTED:
 * the filter names a field that this record's data does not have, or whose type is not known here. */
MUST_CHECK enum err broker_filter_match(const struct broker_filter *filter,
                                        const struct broker_record *record,
                                        struct broker_filter_run *run, bool *match_out);
