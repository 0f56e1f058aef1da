/* broker_work: one look at a source of external data: from an answer or a file to what is in force of
 * its type. Blocks; on a thread of its own, but what is written goes by the service's loop, so that it
 * is audited as other writes are. */
#pragma once

#include <sys/types.h>
#include <time.h>

#include "common/buf.h"
#include "common/config/config.h"
#include "common/data/set.h"
#include "common/diag.h"

enum { BROKER_STATUS_S = 60 }; /* the record "source" says no more often that nothing changed */

/* A file as it was when it was read. */
struct broker_file_mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct broker_work {
    struct broker_service *service;
    const struct config_source *source;

    /* What to do: err with d, that there is no answer; is_same, that it is the last one's. Else of a
     * url the answer. */
    bool is_same;
    struct buf body;
    enum data_format format;

    /* What is kept from one look to the next. */
    struct broker_file_mark mark; /* of a file; size -1: of none */
    uint64_t server_version;      /* the state of the store in which the type was as found */
    uint64_t version;             /* 0: it never was */
    int64_t checked_s;            /* when it last was; 0: never */
    int64_t told_s;               /* when the record "source" was written */
    char told[DATA_ERROR_MAX + 1];

    unsigned tries; /* that were ERR_AGAIN */

    /* What came of it. ERR_AGAIN: look again at once, at all of it: a file is being written, or
     * somebody else has written the type. */
    enum err err;
    struct diag d;
    struct data_counts counts;
};

void broker_work_run(struct broker_work *w);
