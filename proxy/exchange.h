/* proxy_exchange: one request and its answer, from the first byte of its head to the last byte of the
 * answer, with everything that was found out about it. Belongs to a client's connection, which tells
 * the HTTP version; request, verdict, upstream, own answers and the access line know only the
 * exchange. Taken from a pool of its worker and given back to it. Owned by one worker.
 *
 *   HEAD ──▶ CHECK ──allow──▶ CONNECT ──▶ FORWARD ──▶ (ended)
 *     │        │ deny, login,    │ failed     │ 101, CONNECT
 *     └─bad──▶ └── REPLY ◀───────┘            ▼
 *                    └──▶ (ended)           TUNNEL ──▶ (ended)
 */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/crypto/handle.h"
#include "common/http/canon.h"
#include "common/http/head.h"
#include "common/list.h"
#include "common/rand.h"
#include "proxy/authz_client.h"
#include "proxy/conn.h"
#include "proxy/outgoing.h"
#include "proxy/peer.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"

enum proxy_phase {
    PROXY_ENDED = 0,
    PROXY_HEAD,
    PROXY_CHECK,
    PROXY_CONNECT,
    PROXY_FORWARD,
    PROXY_TUNNEL,
    PROXY_REPLY
};

enum proxy_service { /* what an exchange is for */
                     PROXY_FOR_NONE = 0,
                     PROXY_FOR_ROUTE,
                     PROXY_FOR_PAGES,   /* our pages on a route's host, for whoever is logged in */
                     PROXY_FOR_VERDICT, /* another proxy wants to know, and forwards it itself */
                     PROXY_FOR_AUTHENTICATE /* the login host itself */
};

enum { PROXY_REASONS_MAX = 16 };

struct proxy_asking;
struct proxy_redeem;
struct proxy_h2_stream;

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): by meaning, not by size */
struct proxy_exchange {
    struct list in_worker; /* also in the pool */
    struct proxy_worker *worker;
    struct proxy_conn *conn;
    struct proxy_h2_stream *stream; /* of the client's HTTP/2; NULL: HTTP/1 */
    enum proxy_phase phase;
    int64_t deadline_ms; /* of the phase, moved by progress */
    int64_t total_ms;    /* of the whole exchange; INT64_MAX: none */
    int64_t idle_ms;     /* what progress moves the deadline by; 0: none */
    struct arena arena;

    struct proxy_snapshot *snapshot;
    struct http_field *fields; /* stay with it in the pool, as answer_fields do */
    struct http_head head;
    struct http_request req;
    struct proxy_visitor visitor;
    char request_id[RAND_UUID_SIZE];
    enum proxy_service service;
    struct proxy_route *route;
    struct handle handle; /* session "" : none */
    bool handle_valid;
    struct list in_asking;       /* while authenticate is asked about its token */
    struct proxy_asking *asking; /* NULL: it is not */
    bool by_token;               /* a program shows a token: no page of ours is for it */
    bool verdict_redirects;      /* PROXY_FOR_VERDICT: who asks passes a 302 on */
    uint64_t check;              /* open, or 0 */
    uint64_t recheck;            /* open, or 0 */
    bool again;                  /* something changed while a check was under way */
    int64_t undecided_since_ms;  /* no verdict can be had since then; 0: it can */
    int64_t recheck_at_ms; /* on the monotonic clock, as at the session's end; INT64_MAX: never */
    enum proxy_verdict verdict;
    bool wants_fresh; /* LOGIN: there is a session, but the login is too long ago */
    uint32_t reasons[PROXY_REASONS_MAX];
    size_t n_reasons;
    struct proxy_identity *identity;
    struct sv user;
    struct sv email;
    struct proxy_redeem *redeem;
    struct proxy_outgoing out; /* after an ALLOW */
    struct proxy_body body;
    bool close_after; /* HTTP/1: no further request on this connection */
    bool upgrade;     /* the request asks for it and the route allows it */

    struct proxy_upstream *up;      /* of HTTP/1, or not connected yet; NULL: none */
    struct proxy_h2_stream *server; /* of the upstream's HTTP/2; NULL: none */
    struct proxy_claim claim;       /* on the cluster, from the start of forwarding to its end */
    bool retried;
    struct proxy_pipe up_pipe;
    bool request_done;
    bool up_lost; /* it takes no more, but may have answered */
    struct http_head answer;
    struct http_field *answer_fields; /* NULL: it was never forwarded */
    bool answer_begun;                /* its head went to the client */
    bool answer_done; /* a tunnel's: the upstream said no more, and the client knows */
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

/* In phase HEAD, with the worker's snapshot and room for the head's fields. */
struct proxy_exchange *proxy_exchange_new(struct proxy_conn *conn);
/* Writes the access line of what was a request, lets go of everything and gives x back to the pool;
 * callers up the stack may look at it until the end of the turn. The connection is told nothing. */
void proxy_exchange_end(struct proxy_exchange *x);
/* At once, without another word: what the client has of the answer is cut off. */
void proxy_exchange_abort(struct proxy_exchange *x);
/* The answer is out: the connection goes on with the next request, or ends. */
void proxy_exchange_finish(struct proxy_exchange *x);
/* An answer of ours is on its way: finishes when it is out. */
void proxy_exchange_send(struct proxy_exchange *x);
/* Moves the deadline: something was read or written. */
void proxy_exchange_progress(struct proxy_exchange *x);
void proxy_exchange_tick(struct proxy_exchange *x, int64_t now_ms);
/* A tunnel by CONNECT: bytes whose end only the end of the connection tells. */
bool proxy_exchange_is_raw(const struct proxy_exchange *x);
/* True while a verdict about it is wanted or relied on. */
bool proxy_exchange_stands_on_verdict(const struct proxy_exchange *x);
/* The pool's memory, when the worker ends; worker: those that ended in this turn may be used again. */
void proxy_exchange_pool_free(struct proxy_worker *worker);
void proxy_exchange_pool_turn(struct proxy_worker *worker);

/* request.c: a head is complete. */
void proxy_request_start(struct proxy_exchange *x);
/* It is known who asks, by x->handle: the check is next. */
void proxy_request_identified(struct proxy_exchange *x);
/* OPTIONS by which a browser asks whether another origin may use the route. */
bool proxy_request_is_preflight(const struct proxy_exchange *x);
/* What it was allowed by may have changed: ask again. */
void proxy_request_recheck(struct proxy_exchange *x);
/* Nobody is there to ask, and nobody was heard since then: it stays for databroker_max_staleness. */
void proxy_request_unvouched(struct proxy_exchange *x, int64_t since_ms);
