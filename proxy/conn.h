/* proxy_conn: a client's connection: the PROXY header where one is due, TLS, then HTTP/1.1 heads one
 * after the other (a pipelined request waits in the window) or HTTP/2 (proxy/h2.h), and the end.
 * What a request becomes is its exchange's business. Who costs more than its share of a turn (a burst of
 * frames or of pipelined requests), and who costs much before we know anything of it (a handshake), goes
 * on when nobody else waits, one connection a turn (worker->late). Owned by one worker.
 *
 *   PROXY_HEADER ──▶ HANDSHAKE ──▶ IDLE ──first byte──▶ BUSY ──answer out──▶ IDLE
 *                        │          │                    └──close──▶ LINGER ──▶ (closed)
 *                        └──ALPN h2─┴─preface──▶ H2 ──GOAWAY, last stream──▶ (closed)
 */
#pragma once

#include "common/base.h"
#include "common/list.h"
#include "proxy/crowd.h"
#include "proxy/peer.h"
#include "proxy/pipe.h"
#include "proxy/snapshot.h"

struct proxy_client_cert;
struct proxy_exchange;
struct proxy_h2;
struct proxy_worker;

enum proxy_conn_phase {
    PROXY_CONN_CLOSED = 0,
    PROXY_CONN_PROXY_HEADER, /* of the PROXY protocol */
    PROXY_CONN_HANDSHAKE,
    PROXY_CONN_IDLE,
    PROXY_CONN_BUSY,
    PROXY_CONN_H2,
    PROXY_CONN_LINGER
};

enum { PROXY_REQUEST_HEAD_MAX = 65536 };

struct proxy_conn {
    struct list in_worker;
    struct list in_late; /* worker->late */
    struct proxy_worker *worker;
    struct proxy_io io;
    struct event *rd;
    struct event *wr; /* NULL until it has to wait for room */
    bool rd_on;
    bool wr_on;
    bool rd_held;       /* not read before its turn comes */
    unsigned pipelined; /* HTTP/1: requests that did not wait for a turn */
    enum proxy_conn_phase phase;
    bool eof;      /* the client says no more */
    bool draining; /* the worker stops: the exchange under way is the last */
    bool to_https; /* it came in at http_redirect_addr: whatever it asks for is at https */
    bool old;      /* and the connection was there before it did */
    struct proxy_peer peer;
    struct proxy_place place; /* of its address */
    int64_t deadline_ms;      /* while no exchange runs */
    struct proxy_window in;
    struct proxy_out out;
    struct proxy_snapshot *snapshot;       /* while a handshake runs */
    struct proxy_client_cert *client_cert; /* NULL: none was shown */
    struct proxy_exchange *x;              /* while BUSY */
    struct proxy_h2 *h2;                   /* while H2 */
    bool spoke;                            /* HTTP/1: its first head began */
};

/* Takes fd; address is the peer's; to_https: of the listener that only sends there. */
void proxy_conn_open(struct proxy_worker *worker, int fd, const struct sockaddr *address,
                     bool to_https);
/* At once, without another word; its exchange ends. */
void proxy_conn_close(struct proxy_conn *conn);
void proxy_conn_want(struct proxy_conn *conn, bool read, bool write);
/* It has waited for its turn: first in worker->late. */
void proxy_conn_go_on(struct proxy_conn *conn);
void proxy_conn_tick(struct proxy_conn *conn, int64_t now_ms);
/* The answer of x is out: next request, or the end. */
void proxy_conn_finish(struct proxy_conn *conn, struct proxy_exchange *x);
/* Sends what out holds, then finishes x. */
void proxy_conn_send(struct proxy_conn *conn, struct proxy_exchange *x);
/* HTTP/1, while something else is waited for: takes what comes as far as there is room, which is how
 * we hear that the client has left: its exchange ends at once then, and what was under way for it. */
void proxy_conn_read_ahead(struct proxy_conn *conn);
/* HTTP/2: no stream is open any more. */
void proxy_conn_quiet(struct proxy_conn *conn);
/* The worker stops: the next answer is the last one, and who asks nothing for a moment is closed
 * (closing at once would lose the request that is on its way). */
void proxy_conn_drain(struct proxy_conn *conn);
