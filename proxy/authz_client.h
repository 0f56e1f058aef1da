/* proxy_authz_client: a worker's way to a verdict: one CheckStream to each authorize, spoken with
 * nghttp2 on the worker's own loop (proto/authorize.proto). Checks gather while a message is on its
 * way and leave together (proxy_authz_flush, once a loop turn); no timer makes a batch.
 *
 *   check: WAITING (no stream) --> SENT (on a stream) --> done, exactly once, never from submit
 *             ^------ the stream broke, another try ------'
 *
 * Every way that is not a well-formed reply ends in UNAVAILABLE. One thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/crypto/keys.h"
#include "common/list.h"
#include "common/loop.h"
#include "common/sv.h"
#include "proxy/timer.h"

enum proxy_decision { PROXY_DENY = 0, PROXY_ALLOW, PROXY_LOGIN, PROXY_UNAVAILABLE };

/* Identity headers as they go upstream: "Name: value\r\n" again and again, checked when received. */
struct proxy_block {
    uint64_t number;
    uint32_t refs; /* the stream's table and the requests that use it */
    uint32_t n;
    char text[];
};

struct proxy_block *proxy_block_ref(struct proxy_block *block);
void proxy_block_unref(struct proxy_block **block);

/* The zero value denies. */
struct proxy_verdict {
    enum proxy_decision decision;
    unsigned status; /* 0: the decision's own */
    uint64_t reasons;
    struct proxy_block *block; /* ALLOW: borrowed until done returns; NULL: none */
    int64_t valid_until_s;
    struct sv user; /* valid until done returns */
    struct sv email;
};

struct proxy_check;
typedef void (*proxy_check_fn)(struct proxy_check *check, const struct proxy_verdict *verdict);

/* Embedded in what asks. All texts stay valid until done or cancel. */
struct proxy_check {
    uint64_t route;
    struct sv request_id;
    const char *session; /* "": anonymous */
    uint64_t record_version;
    const char *idp_id;
    struct sv method;
    struct sv host;
    struct sv path;
    struct sv query;
    struct sv client_ip; /* 4 or 16 bytes */
    bool cors_preflight;
    bool recheck;
    bool internal;
    proxy_check_fn done;

    /* the client's own */
    struct list node;
    struct proxy_timer timer;
    struct proxy_authz *authz;
    uint64_t id; /* 0: not open */
    uint32_t tries;
};

struct proxy_authz;
struct rpc_identity;

struct proxy_authz_opts {
    struct loop *loop;
    const struct rpc_identity *identity;
    const char *target; /* "unix:/path" or "host:port" with a numeric host */
    int64_t timeout_ms;
    /* These sessions, or all open connections, must be checked again. */
    void (*on_changed)(void *arg, const struct sv *sessions, size_t n, bool all);
    void (*on_link)(void *arg, bool up); /* the stream came up, or was lost */
    void *arg;
};

struct proxy_authz *proxy_authz_new(const struct proxy_authz_opts *opts);
void proxy_authz_free(struct proxy_authz **authz); /* open checks are cancelled */
/* May not be open already. done comes later, from the loop. */
void proxy_authz_submit(struct proxy_authz *authz, struct proxy_check *check);
/* done will not be called; harmless on one that is not open. */
void proxy_authz_cancel(struct proxy_check *check);
/* Sends what has gathered. The worker calls it before it waits. */
void proxy_authz_flush(struct proxy_authz *authz);
