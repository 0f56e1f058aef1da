/* proxy_conn: a client's connection, HTTP/1.1, and the exchange that runs on it. One at a time; a
 * pipelined request waits in the window. Owned by one worker.
 *
 *   HANDSHAKE ──▶ IDLE ──head──▶ CHECK ──allow──▶ CONNECT ──▶ FORWARD ──▶ IDLE
 *                  │ ▲             │ deny, login,    │ failed     │ 101
 *                  │ └─── REPLY ◀──┴── own answers ──┘            ▼
 *                  └─bad──▲  └──close──▶ LINGER ──▶ (closed)    TUNNEL ──▶ (closed)
 */
#pragma once

#include <netinet/in.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/crypto/handle.h"
#include "common/http/canon.h"
#include "common/http/head.h"
#include "common/list.h"
#include "common/rand.h"
#include "proxy/authz_client.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"

enum proxy_phase {
    PROXY_CLOSED = 0,
    PROXY_HANDSHAKE,
    PROXY_IDLE,
    PROXY_CHECK,
    PROXY_CONNECT,
    PROXY_FORWARD,
    PROXY_TUNNEL,
    PROXY_REPLY,
    PROXY_LINGER
};

enum proxy_service { /* what an exchange is for */
                     PROXY_FOR_NONE = 0,
                     PROXY_FOR_ROUTE,
                     PROXY_FOR_PAGES, /* our pages on a route's host: authenticate renders them */
                     PROXY_FOR_AUTHENTICATE /* the login host itself */
};

enum { PROXY_REASONS_MAX = 16, PROXY_REQUEST_HEAD_MAX = 65536 };

struct proxy_redeem;

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): by meaning, not by size */
struct proxy_conn {
    struct list in_worker;
    struct proxy_worker *worker;
    struct proxy_io io;
    struct event *rd;
    struct event *wr;
    bool rd_on;
    bool wr_on;
    enum proxy_phase phase;
    bool eof; /* the client says no more */
    char peer[INET6_ADDRSTRLEN];
    unsigned char peer_address[16];
    size_t peer_address_n;
    int64_t deadline_ms; /* of the phase, moved by progress */
    int64_t total_ms;    /* of the whole exchange; INT64_MAX: none */
    int64_t idle_ms;     /* what progress moves the deadline by; 0: none */
    struct proxy_window in;
    struct proxy_out out;
    struct arena arena;

    /* the exchange */
    struct proxy_snapshot *snapshot; /* also while a handshake runs */
    struct http_field *fields;
    struct http_head head;
    bool head_begun;
    struct http_request req;
    char request_id[RAND_UUID_SIZE];
    enum proxy_service service;
    struct proxy_route *route;
    struct handle handle; /* session "" : none */
    bool handle_valid;
    uint64_t check;             /* open, or 0 */
    uint64_t recheck;           /* open, or 0 */
    bool again;                 /* something changed while a check was under way */
    int64_t undecided_since_ms; /* rechecks give no verdict since then; 0: they do */
    int64_t recheck_at_ms;      /* session's end on the monotonic clock; INT64_MAX: none */
    enum proxy_verdict verdict;
    uint32_t reasons[PROXY_REASONS_MAX];
    size_t n_reasons;
    struct proxy_identity *identity;
    struct sv user;
    struct sv email;
    struct proxy_redeem *redeem;
    struct proxy_body body;
    bool close_after; /* no further request on this connection */
    bool upgrade;     /* the request asks for it and the route allows it */

    struct proxy_upstream *up;
    struct proxy_target *target; /* the one chosen; the snapshot holds it */
    bool retried;
    struct proxy_pipe up_pipe;
    bool request_done;
    bool up_lost; /* it takes no more, but may have answered */
    struct http_head answer;
    struct http_field *answer_fields;
    bool answer_begun; /* its head went to the client */
    bool up_eof;
    bool up_broke; /* and not in order */
    unsigned informational;
    struct proxy_body answer_body;
    struct proxy_pipe down_pipe;

    /* for the access line */
    int64_t began_us;
    int64_t upstream_us; /* until the answer's head; 0: none */
    unsigned status;
    const char *fault; /* constant; NULL: none */
};

/* Takes fd; address is the peer's. */
void proxy_conn_open(struct proxy_worker *worker, int fd, const struct sockaddr *address);
/* At once, without another word. */
void proxy_conn_close(struct proxy_conn *conn);
void proxy_conn_want(struct proxy_conn *conn, bool read, bool write);
/* Moves the deadline: something was read or written. */
void proxy_conn_progress(struct proxy_conn *conn);
void proxy_conn_tick(struct proxy_conn *conn, int64_t now_ms);
/* The exchange is over and its answer is out: next request, or the end. */
void proxy_conn_finish(struct proxy_conn *conn);
/* The worker stops: closes what idles, lets the rest end. */
void proxy_conn_drain(struct proxy_conn *conn);
/* Sends what out holds, then finishes. */
void proxy_conn_send(struct proxy_conn *conn);
/* request.c: a head is complete. */
void proxy_request_start(struct proxy_conn *conn);
void proxy_request_recheck(struct proxy_conn *conn);
