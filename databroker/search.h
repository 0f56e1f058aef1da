/* broker_search: the records of a type that match, by looking at each, or at each of certain ids. Works
 * over any store, and above the seal: a store sees no data. It reads page by page, so what is written
 * meanwhile may or may not be found; versions are those of the first page, so a Sync from there misses
 * nothing. Blocks: a job. */
#pragma once

#include "common/base.h"
#include "databroker/store.h"

struct broker_search {
    struct sv type;       /* "": all, in the store's own order */
    const struct sv *ids; /* NULL: any; else only these, in order, each once; not with type "" */
    size_t id_count;
    /* An error ends the search. */
    enum err (*match)(const struct broker_record *record, void *arg, bool *match_out);
    void *arg;
    uint64_t offset;
    size_t limit; /* <= BROKER_BATCH_RECORDS */
    int64_t deadline_ms;
};

/* total of out counts all that match. ERR_ABORTED: the store was cleared meanwhile; else as page. */
MUST_CHECK enum err broker_search(const struct broker_store_ops *ops, struct broker_store *store,
                                  const struct broker_search *search, struct broker_records *out);

/* Whether text (<= BROKER_NAME_MAX bytes) is part of the id or the data, ASCII letters of either case. */
bool broker_search_has_text(const struct broker_record *record, struct sv text);
