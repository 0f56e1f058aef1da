/* The inside of the service, shared by service.c, methods.c, lease.c and sync.c.
 *
 * A call (struct broker_op) lives on the loop but while a job reads for it or the writer has its
 * write; then nobody else touches it:   handler --read--> job --post--> reply
 *                                       handler --write--> writer --post--> reply */
#pragma once

#include "databroker.pb-c.h"

#include "common/arena.h"
#include "common/audit/audit.h"
#include "common/job.h"
#include "common/list.h"
#include "databroker/service.h"
#include "databroker/store.h"
#include "databroker/wire.h"

enum {
    BROKER_READ_MS = 5000,    /* a read's deadline */
    BROKER_SEARCH_MS = 20000, /* that of a look at many records, from when it was asked for */
    BROKER_WRITE_MS = 5000,   /* a write that has not begun by then is not done */
    BROKER_CONFIRM_MS = 1000, /* an acknowledged deletion waits for replicas no longer */
    BROKER_ALONE_MS = 6000,   /* out of reach of the store for so long: others may have written */
    BROKER_REGISTRY_TTL_MS = 60000,
    BROKER_AUDIT_MS = 3000, /* a change waits for its audit line no longer */
    BROKER_FOLLOWERS_MAX = 256,
    BROKER_GUESTS_MAX = 192 /* of these, of whoever is no daemon: the others are for replicas */
};

struct broker_external;
struct broker_registry;

/* peers.c */
struct broker_peering {
    struct broker_peers read; /* the job's */
    enum err read_err;
    bool read_out;
    uint64_t round;           /* counts reads begun */
    struct broker_peers seen; /* by the last read */
    uint64_t seen_round;      /* its number */
    struct broker_write tell;
    bool tell_out;
    bool is_told;    /* told is what the others read */
    uint64_t told;   /* as broker_sync_confirmed */
    uint64_t wanted; /* atomic: by others; nobody asks about what is beyond */
    uint64_t own;    /* what is waited for here, and what of that the others know */
    uint64_t own_told;
};

struct broker_service {
    struct loop *loop;
    const struct broker_store_ops *ops;
    struct broker_store *store;
    struct job_pool *pool;
    struct job_pool *searches; /* one thread: looking through many records holds up no other read */
    size_t open_calls;         /* ops and followers */
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;

    struct list followers;
    size_t n_followers;
    size_t n_guests;             /* of these */
    uint64_t options_generation; /* grows when a type's options change */
    int options_news;            /* atomic: through another databroker */
    int wake_posted;             /* atomic: a wake of the followers is on its way */
    struct broker_tokens *tokens;
    bool shared; /* other databrokers may use the store */
    struct broker_peering peering;
    int64_t reached_ms;      /* when the store was last written to */
    struct list unconfirmed; /* ops whose deletions a replica has not taken in yet, oldest first */
    struct event *confirm_timer;

    struct audit *audit; /* NULL: none was set */
    enum config_audit_required audit_required;
    struct list unaudited; /* ops whose audit lines are not written yet */
    struct event *audit_timer;
    int audit_news; /* atomic: word from its thread is on its way */

    struct broker_external *external;
    struct broker_registry *registry;

    struct event *probe_timer;
    struct broker_write probe;
    bool probe_out;
    int64_t probe_began_ms;
    broker_health_fn on_health;
    void *health_arg;
};

struct broker_op {
    struct broker_service *service;
    struct rpc_call *call;              /* NULL: an op of our own */
    void (*over)(struct broker_op *op); /* then: what is done with it at its end */
    void *over_arg;
    enum rpc_role role;
    char who[64];
    struct arena arena;        /* what of the request is needed later, and the reply */
    struct broker_records in;  /* Put, Patch */
    struct broker_records out; /* what was read, or is to be written by a Patch */
    struct broker_write write;
    struct sv type;
    struct sv id;
    void *own; /* the handler's, in arena */
    struct broker_info info;
    const char *action; /* of a write, for the audit: "put" … */
    bool asked_for;     /* its line before the deed is written, or the deed is done */
    struct list in_unaudited;
    uint64_t audit_number;
    int64_t audit_until_ms;
    void (*audited)(struct broker_op *op);
    struct list in_unconfirmed;
    uint64_t confirm_version;
    uint64_t confirm_round; /* what other databrokers say counts from this read of it on */
    int64_t confirm_until_ms;
    bool confirmed; /* every replica has it; false: or did not say so in time */
    struct diag d;
    enum err err;
    void (*read)(struct broker_op *op);  /* on a job's thread; sets err */
    void (*reply)(struct broker_op *op); /* on the loop, whatever err is */
};

/* service.c. op_new answers the call and returns NULL while the service stops. */
struct broker_op *broker_op_new(struct broker_service *service, struct rpc_call *call);
/* An op of the databroker itself, called who in the audit; NULL while the service stops. Its reply is
 * broker_op_over, which calls over and frees. */
struct broker_op *broker_op_own(struct broker_service *service, const char *who,
                                void (*over)(struct broker_op *op), void *arg);
void broker_op_over(struct broker_op *op);
void broker_op_free(struct broker_op **op);
void broker_op_read(struct broker_op *op, void (*read)(struct broker_op *op),
                    void (*reply)(struct broker_op *op));
/* Likewise, of what may look at many records. */
void broker_op_search(struct broker_op *op, void (*read)(struct broker_op *op),
                      void (*reply)(struct broker_op *op));
/* Whether the caller may write the records of op->in; if not, sets op->err and writes the line of it. */
enum err broker_may_put(struct broker_op *op, const char *action);
/* action: what it is called in the audit. */
void broker_op_write(struct broker_op *op, enum broker_write_kind kind, const char *action,
                     void (*reply)(struct broker_op *op));
/* Answers and frees. */
void broker_op_reply(struct broker_op *op, const ProtobufCMessage *response);
void broker_op_fail(struct broker_op *op);
void broker_service_call_over(struct broker_service *service);
/* What a client is told about err, where nothing better is known. */
const char *broker_err_text(enum err err);

/* sync.c: wakes the followers; the loop's thread. */
void broker_sync_wake(struct broker_service *service);
void broker_sync_stop(struct broker_service *service);

/* Ends the streams of a token. */
void broker_sync_drop(struct broker_service *service, struct sv token_id);

/* tokens.c. Reads which tokens are revoked; an error: it cannot be known. */
MUST_CHECK enum err broker_tokens_init(struct broker_service *service, struct diag *d);
void broker_tokens_deinit(struct broker_service *service);
/* Records that were written just now: a token may be revoked by one of them. */
void broker_tokens_written(struct broker_service *service, const struct broker_records *records);
/* Now and then: reads what others revoked, writes what was used. */
void broker_tokens_tick(struct broker_service *service);

/* Up to which version all followers that confirm have every deletion; UINT64_MAX: none does. */
uint64_t broker_sync_confirmed(struct broker_service *service);
/* False: there is no such follower. */
bool broker_sync_confirm(struct broker_service *service, struct sv follower, uint64_t version);
/* Followers that confirm are sent nothing until then. */
void broker_sync_release(struct broker_service *service);
/* Ends the streams of those: what they have may be old. */
void broker_sync_cut(struct broker_service *service);

/* peers.c. All do nothing where the store is this databroker's alone. */
void broker_peers_init(struct broker_service *service);
/* Reads what others tell; from the returned round on seen tells of what they had done by now. */
uint64_t broker_peers_look(struct broker_service *service);
/* Tells the others how far the followers are, where one of them waits for it. */
void broker_peers_tell(struct broker_service *service);
/* Tells the others to say when theirs have version. */
void broker_peers_want(struct broker_service *service, uint64_t version);
/* Every BROKER_PROBE_MS. */
void broker_peers_tick(struct broker_service *service);

/* audit.c. Calls audited when the lines of op's write are written, now or later; where they cannot be,
 * op->err says so: before the deed, and after it. */
void broker_audit_asked(struct broker_op *op, void (*audited)(struct broker_op *op));
void broker_audit_done(struct broker_op *op, void (*audited)(struct broker_op *op));
/* The caller may not: nobody waits for these lines. */
void broker_audit_refused(struct broker_op *op, const char *action,
                          const struct broker_records *records);
void broker_audit_init(struct broker_service *service);
void broker_audit_deinit(struct broker_service *service);

/* confirm.c. Calls op->reply when the deletions of op->in are in every replica, now or later, or
 * BROKER_CONFIRM_MS are over; op->confirmed tells which. */
void broker_confirm_wait(struct broker_op *op);
/* The same for all deletions up to a version, whoever made them. */
void broker_confirm_wait_for(struct broker_op *op, uint64_t version);
/* A follower went or came further. */
void broker_confirm_check(struct broker_service *service);
void broker_confirm_init(struct broker_service *service);
void broker_confirm_deinit(struct broker_service *service);

/* registry.c. Who serves what, as they reported it: in memory. Whoever does not report for ttl_ms is gone. */
struct broker_registry *broker_registry_new(struct broker_service *service, int64_t ttl_ms);
void broker_registry_free(struct broker_registry **registry);
/* Now and then: forgets who reports no longer. */
void broker_registry_tick(struct broker_registry *registry);
/* Ends all who watch; or those of a token. */
void broker_registry_stop(struct broker_registry *registry);
void broker_registry_drop(struct broker_registry *registry, struct sv token_id);

/* The handlers. */
void broker_on_get(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_query(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_put(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_patch(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_list_types(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_get_options(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_set_options(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_server_info(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_get_checkpoint(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_report(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_list_services(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_watch_services(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_clear(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_acquire(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_renew(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_release(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_confirm(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_rotate_keys(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_list_sessions(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_get_session(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_revoke_sessions(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_watch_sessions(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_sync(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
void broker_on_sync_latest(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
