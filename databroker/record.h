/* broker_record: one record of the databroker and bounded lists of them, free of any wire format.
 * Text and data of a list live in the list's arena. A list belongs to one thread at a time. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

enum {
    BROKER_DATA_MAX = 1 << 20,        /* bytes of one record's data */
    BROKER_NAME_MAX = 512,            /* bytes of a type, an id, a lease's name */
    BROKER_BATCH_RECORDS = 1000,      /* records of one Put, and of one page read */
    BROKER_BATCH_BYTES = 3584 * 1024, /* their bytes: a reply stays under gRPC's usual 4 MiB */
    BROKER_OPTIONS_MAX = 16 * 1024,   /* bytes of a type's options */
    BROKER_LEASE_S_MAX = 31 * 86400   /* longest lease: that of a token of 30 days, and more */
};

/* Records of the store itself: nobody reads or writes them from outside, and Clear leaves them. */
#define BROKER_TYPE_KEY "postern.io/DataKey"

/* Tokens with a role, by their ids; data is a postern.TokenState. */
#define BROKER_TYPE_TOKEN_REVOKED "postern.io/TokenRevoked"
#define BROKER_TYPE_TOKEN_USED    "postern.io/TokenUsed"
#define BROKER_DATA_TOKEN_STATE   "type.googleapis.com/postern.TokenState"

struct broker_record {
    uint64_t version;
    struct sv type;
    struct sv id;
    struct sv data_type; /* the Any's type_url */
    struct sv data;      /* the Any's value; empty in a tombstone */
    int64_t modified_us; /* since 1970 */
    int64_t deleted_us;  /* since 1970; 0: alive */
    int64_t ends_us;     /* since 1970: deleted some time after it; 0: never. In a Put only */
    uint64_t place;      /* page only: where the store goes on behind it, if it needs that */
    uint64_t if_version; /* Put only: write if the stored version is this one; 0: always */
};

struct broker_records {
    struct arena arena;
    struct broker_record *items;
    size_t count;
    size_t room;
    size_t bytes; /* of texts and data, for bounds */
    /* The state of the store at which the list was read. */
    uint64_t server_version;
    uint64_t latest_version;
    uint64_t total;    /* query: how many matched, before offset and limit */
    uint64_t position; /* changes: how far was read, whether or not a change fitted the type */
    bool more;         /* the page ended early: there is more behind it */
};

void broker_records_init(struct broker_records *list);
void broker_records_deinit(struct broker_records *list); /* usable as CLEANUP */
/* Copies record and its bytes to the end of list. */
void broker_records_add(struct broker_records *list, const struct broker_record *record);
/* Whether record still fits a page of limit records; an empty page takes any record. */
bool broker_records_fit(const struct broker_records *list, const struct broker_record *record,
                        size_t limit);

/* One more record matches a query: counts it in total, and adds it if it is in the window. */
void broker_records_match(struct broker_records *list, const struct broker_record *record,
                          uint64_t offset, size_t limit);

/* 1..BROKER_NAME_MAX bytes of UTF-8 without control characters. what names it in d.
 * ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err broker_name_check(struct sv name, const char *what, struct diag *d);
/* Whether a client may Put this. ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err broker_record_check(const struct broker_record *record, struct diag *d);
/* When what the data tells about is over: the expires_at of a session, a service
 * account, a token or of the note when a session was used; 0: it has none. */
int64_t broker_record_end_us(const struct broker_record *record);
