/* broker_store: where records are kept, as an interface. What an implementation promises:
 *  - versions grow by one over the whole store and are never given twice, not even after a restart;
 *  - a write is applied whole or not at all, and its done runs after it is on disk;
 *  - what was acknowledged is seen by every read that begins later;
 *  - a read sees one state of the store, and no read waits for a write or the other way round;
 *  - no transaction is open while anything but the store itself runs.
 * Writes are queued to one writer, which commits many in one transaction. Reads block the calling
 * thread: call them from a job. Every wait has a deadline in clock_mono_ms time. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/rand.h"
#include "common/secret.h"
#include "common/sv.h"
#include "databroker/keyring.h"
#include "databroker/record.h"

struct broker_store;

enum {
    BROKER_RETENTION_MS = 3600000, /* how long a change stays in the log, at least */
    BROKER_END_KEEP_MS = 60000,    /* and a record after its end */
    BROKER_QUERY_IDS = 100,        /* of one query of the store */
    BROKER_PEER_GONE_MS = 10000    /* a databroker that has not written for so long does not live */
};

struct broker_store_ops;

struct broker_store_opts {
    /* SQLite: a file; NULL: memory, gone when the process ends. PostgreSQL: a connection string. */
    const char *target;
    unsigned readers;     /* reads at once, 1..16; 0: 2 */
    size_t queue_max;     /* writes that may wait; 0: 4096 */
    int64_t retention_ms; /* 0: BROKER_RETENTION_MS */
    int64_t sweep_ms;     /* time between two sweeps; 0: one minute */
    int64_t hold_ms; /* nothing expires for so long after a jump of the clock; 0: BROKER_HOLD_MS */
    uint32_t max_pages; /* SQLite: bound of the file's size; 0: none */
    int64_t check_ms;   /* SQLite: for a look through the file at open; 0: a minute */
    /* After every commit that changed records or options, another databroker's, too; on the writer's
     * thread or one that watches; must not block. */
    void (*on_commit)(void *arg);
    /* Before that, when another databroker changed a type's options; on some thread; likewise. */
    void (*on_options)(void *arg);
    /* Before that, when another databroker waits for the replicas to have a version; likewise. */
    void (*on_wanted)(void *arg, uint64_t version);
    void *arg;

    /* broker_store_sealed only: the store beneath, and the secrets that wrap its keys (keyring.h). */
    const struct broker_store_ops *beneath;
    const struct secret *secrets[BROKER_SECRETS_MAX]; /* copied */
    size_t n_secrets;
    int64_t keep_ms;  /* between two looks at the keys; 0: a minute */
    int64_t grace_ms; /* from a new key to dropping the one before; 0: ten minutes */
};

/* A type's options: what the client gave, unread, and what the store acts on. */
struct broker_options {
    struct sv type;
    struct sv bytes;   /* databroker.Options on the wire */
    uint64_t capacity; /* 0: none. The oldest records beyond it are deleted. */
    int64_t ttl_ms;    /* 0: none. Records not written for that long are deleted. */
};

enum broker_write_kind {
    BROKER_WRITE_NONE = 0,
    BROKER_WRITE_PUT,
    BROKER_WRITE_REPLACE, /* new bytes of data for records that are still of this version, in the
                             record and in the change log; nothing else changes, no one is told */
    BROKER_WRITE_OPTIONS,
    BROKER_WRITE_CLEAR,
    BROKER_WRITE_LEASE_ACQUIRE,
    BROKER_WRITE_LEASE_RENEW,
    BROKER_WRITE_LEASE_RELEASE,
    BROKER_WRITE_CONFIRMED, /* tells other databrokers of this store how far replicas are here */
    BROKER_WRITE_PROBE,     /* writes and reads back one row: is the writer alive, is there room? */
    BROKER_WRITE_SWEEP /* what the writer does each minute: prune, expire, trim; one small batch */
};

/* One write. The caller owns it and all it points to; both stay until done has run. */
struct broker_write {
    enum broker_write_kind kind;
    /* ERR_OK: it is on disk.  ERR_EXISTS: somebody else holds the lease.  ERR_ABORTED: if_version
     * did not fit.  ERR_LIMIT: disk full.  ERR_TIMEOUT, ERR_UNAVAILABLE, ERR_IO: not written; or a
     * server went away in COMMIT and did not come back in time to say whether it is. */
    enum err err;
    int64_t deadline_ms; /* not begun by then: ERR_TIMEOUT, nothing was written */
    /* PUT: in; versions and times out. deleted_us > 0: delete.  REPLACE: in. */
    struct broker_records *records;
    struct broker_options options; /* OPTIONS */
    struct sv lease_name;
    struct sv lease_id; /* RENEW, RELEASE */
    int64_t lease_ms;   /* ACQUIRE, RENEW */
    uint64_t confirmed; /* CONFIRMED: the version that all have; UINT64_MAX: there is none */
    uint64_t wanted;    /* CONFIRMED: the version that somebody here waits for; 0: none */

    char lease_id_out[RAND_UUID_SIZE]; /* ACQUIRE */
    uint64_t server_version_out;
    uint64_t old_server_version_out; /* CLEAR */
    uint64_t swept_out;              /* SWEEP: rows; 0: nothing was left to do */

    void (*done)(struct broker_write *w); /* on the writer's thread; must not block */
    void *arg;
    struct broker_write *next; /* the store's */
};

struct broker_query {
    struct sv type;
    const struct sv *ids; /* NULL: any; else only these */
    size_t id_count;      /* <= BROKER_QUERY_IDS */
    uint64_t offset;
    size_t limit; /* <= BROKER_BATCH_RECORDS */
};

struct broker_info {
    uint64_t server_version;
    uint64_t earliest_version; /* the oldest change that is still in the log */
    uint64_t latest_version;
};

/* Other databrokers that live: that wrote, if only a probe, within BROKER_PEER_GONE_MS. */
struct broker_peers {
    size_t count;
    uint64_t
        confirmed; /* the version that all replicas of all of them have; UINT64_MAX: no replica */
    char last[RAND_UUID_SIZE]; /* whose have come least far; "": there is none */
};

/* What reads do; any thread but the writer's; lists come initialised and are added to.
 * All: ERR_TIMEOUT, ERR_UNAVAILABLE, ERR_IO. */

/* ERR_NOT_FOUND: absent or deleted. */
typedef enum err broker_get_fn(struct broker_store *store, struct sv type, struct sv id,
                               int64_t deadline_ms, struct broker_records *out);
/* Records that live, in order of id. more: the page ended before limit. */
typedef enum err broker_query_fn(struct broker_store *store, const struct broker_query *query,
                                 int64_t deadline_ms, struct broker_records *out);
/* The next page of the records that live, behind *after, which is the last one of the page before
 * (its type, id and place; {0}: from the start). Of a type in order of id; type "": all, in an order
 * of the store's own, where a record that is new meanwhile may be missing. */
typedef enum err broker_page_fn(struct broker_store *store, struct sv type,
                                const struct broker_record *after, int64_t deadline_ms,
                                struct broker_records *out);
/* Changes in order with version > after. ERR_ABORTED: other server version, or the log no
 * longer (or not yet) reaches after. type "": all. latest_version of out is how far the page
 * has read: the next call goes on behind it, whether or not a change fitted type. */
typedef enum err broker_changes_fn(struct broker_store *store, uint64_t server_version,
                                   uint64_t after, struct sv type, int64_t deadline_ms,
                                   struct broker_records *out);
/* Adds a record that has only a type for each type with records that live. */
typedef enum err broker_types_fn(struct broker_store *store, int64_t deadline_ms,
                                 struct broker_records *out);
/* Adds a record with type and data (the options' bytes). type "": every type that has any. */
typedef enum err broker_options_fn(struct broker_store *store, struct sv type, int64_t deadline_ms,
                                   struct broker_records *out);
typedef enum err broker_info_fn(struct broker_store *store, int64_t deadline_ms,
                                struct broker_info *info_out);
/* Other databrokers of the store. */
typedef enum err broker_peers_fn(struct broker_store *store, int64_t deadline_ms,
                                 struct broker_peers *peers_out);

struct broker_store_ops {
    const char *name;
    /* ERR_UNSUPPORTED: made by a newer version. ERR_EXISTS: another databroker has it open.
     * ERR_IO, ERR_INVALID (no database, damaged): d says what to do. */
    enum err (*open)(const struct broker_store_opts *opts, struct broker_store **store_out,
                     struct diag *d);
    /* Ends the writer after what is queued; no call may be under way. */
    void (*close)(struct broker_store **store);

    /* Any thread. ERR_LIMIT: the queue is full; then done does not run. */
    enum err (*submit)(struct broker_store *store, struct broker_write *w);

    /* Reads, as above. */
    broker_get_fn *get;
    broker_query_fn *query;
    broker_page_fn *page;
    broker_changes_fn *changes;
    broker_types_fn *types;
    broker_options_fn *options;
    broker_info_fn *info;
    /* NULL: nobody else can write to the store, and CONFIRMED is none of its writes. */
    broker_peers_fn *peers;
    /* Makes a new data key, seals with it from now on, and re-seals what is there by and by; waits for
     * the key to be on disk. A job's thread. NULL: the store seals nothing. */
    enum err (*rotate)(struct broker_store *store, char key_out[BROKER_KEY_ID_SIZE]);
};

extern const struct broker_store_ops broker_store_sqlite;
extern const struct broker_store_ops broker_store_pg;
extern const struct broker_store_ops broker_store_sealed; /* over another one: store_sealed.c */

/* Submits w and waits for it; for tests and start-up, never on a loop. Returns w->err. */
MUST_CHECK enum err broker_store_write(const struct broker_store_ops *ops,
                                       struct broker_store *store, struct broker_write *w);
