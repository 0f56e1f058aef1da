/* proxy_h2: HTTP/2 on one connection, as server (clients) or as client (upstreams), by nghttp2. Many
 * exchanges share it, each with a stream of its own. What a stream receives waits in its window, which
 * is as large as the flow-control window, so a slow reader stops its own sender and nobody else; what
 * it sends is pulled from a piece that its owner offers, so no body is gathered.
 *
 * nghttp2's callbacks only take notes. After a read, and after a flush, the notes become calls of the
 * hooks: an owner may answer, reset or let go of streams there, never free the connection. Frames leave
 * in proxy_h2_flush, once a turn of the loop for all that gathered.
 *
 * Bounds: PROXY_H2_STREAMS_MAX streams at once, heads of PROXY_REQUEST_HEAD_MAX bytes, resets and
 * CONTINUATIONs by nghttp2's limits and PROXY_H2_FAULTS_MAX, frames without a purpose and the cost of a
 * turn by proxy/ration.h. Owned by one worker.
 * Sources: RFC 9113, RFC 8441, RFC 9218 (ignored). */
#pragma once

#include <nghttp2/nghttp2.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/http/chunked.h"
#include "common/http/head.h"
#include "common/list.h"
#include "proxy/emit.h"
#include "proxy/io.h"
#include "proxy/pipe.h"

struct proxy_worker;
struct proxy_h2;

enum {
    PROXY_H2_STREAMS_MAX = 100,
    PROXY_H2_WINDOW = 65535,
    PROXY_H2_FAULTS_MAX = 100 /* streams we had to reset for what the peer did on them */
};

/* What happened on a stream and its owner was not told yet. */
enum { PROXY_H2_HEAD = 1, PROXY_H2_READABLE = 2, PROXY_H2_WRITABLE = 4, PROXY_H2_LOST = 8 };

struct proxy_h2_stream {
    struct list in_h2;
    struct list in_due;
    struct proxy_h2 *h2; /* NULL: the connection is gone */
    int32_t id;
    void *owner;    /* NULL: nobody is interested any more */
    unsigned due;   /* PROXY_H2_* */
    bool closed;    /* nghttp2 knows it no more */
    uint32_t error; /* why it was closed */
    bool refused;   /* the peer has not looked at it: it may be sent again */

    /* in: the head goes where the owner says, the body into the window */
    struct http_head *head;
    struct arena *arena;
    const struct http_name_set *refuse; /* names that no trailer may have */
    size_t head_bytes;
    struct sv protocol; /* :protocol of an extended CONNECT */
    enum http_fault fault;
    bool head_done;
    bool in_ended;
    struct proxy_window in;
    struct http_head trailer;
    struct http_field trailer_fields[HTTP_TRAILERS_MAX];

    /* out */
    struct sv piece;
    bool out_ended;
    bool end_sent;
    const struct http_head *out_trailer;
};

struct proxy_h2_hooks {
    /* Server: a request begins. Sets owner, head, arena and refuse of the stream. */
    void (*open)(void *h2_owner, struct proxy_h2_stream *stream);
    /* The head is whole, or stream->fault says why it is none. */
    void (*head)(void *owner);
    /* Client: an interim answer stands in the head; the next one will take its place. */
    void (*interim)(void *owner);
    void (*readable)(void *owner); /* more in the window, or its end */
    void (*writable)(void *owner); /* the piece is gone, or the end was sent */
    void (*lost)(void *owner);     /* reset, or the connection ended; release it */
    void (*want)(void *h2_owner, bool write);
    void (*settled)(void *h2_owner); /* client: its first SETTINGS came; NULL: of no interest */
    void (*quiet)(void *h2_owner);   /* no stream is open */
    void (*freed)(void *h2_owner);   /* client: there is room for one more; NULL: of no interest */
    void (*broken)(void *h2_owner);  /* the connection is over: free it */
};

/* io belongs to the caller. */
struct proxy_h2 *proxy_h2_server_new(struct proxy_worker *worker, struct proxy_io *io,
                                     const struct proxy_h2_hooks *hooks, void *owner);
struct proxy_h2 *proxy_h2_client_new(struct proxy_worker *worker, struct proxy_io *io,
                                     const struct proxy_h2_hooks *hooks, void *owner);
/* Tells the owners of its streams that they are lost. Not from within a hook. */
void proxy_h2_free(struct proxy_h2 **h2);
/* Reads what is there, as much as a turn may cost (proxy/ration.h), and tells the hooks. False: the
 * connection is over. */
MUST_CHECK bool proxy_h2_read(struct proxy_h2 *h2);
/* The last read ended because it had cost enough: the rest may wait for others. */
bool proxy_h2_had_its_share(const struct proxy_h2 *h2);
/* The same for bytes that were read elsewhere; what is left of them is for another turn. */
MUST_CHECK bool proxy_h2_feed(struct proxy_h2 *h2, struct sv *bytes);
/* Writes what waits. False: the connection is over. */
MUST_CHECK bool proxy_h2_flush(struct proxy_h2 *h2);
/* Flushes every connection of the worker that has something to send; once a turn. */
void proxy_h2_flush_all(struct proxy_worker *worker);
/* Says that no further stream is taken (GOAWAY); those under way end as ever. */
void proxy_h2_shutdown(struct proxy_h2 *h2);
size_t proxy_h2_streams(const struct proxy_h2 *h2);
/* Client: whether one more stream can be opened; until the server has said how many, one in all. */
bool proxy_h2_has_room(const struct proxy_h2 *h2);

/* Client: sends a request; its body comes by offers if body is set. NULL: it cannot be. */
struct proxy_h2_stream *proxy_h2_request(struct proxy_h2 *h2, const struct proxy_emit *head,
                                         bool body, void *owner);
/* Server: the final answer's head; body as above. False: the stream is gone. */
MUST_CHECK bool proxy_h2_answer(struct proxy_h2_stream *stream, const struct proxy_emit *head,
                                bool body);
void proxy_h2_interim(struct proxy_h2_stream *stream, const struct proxy_emit *head);
/* data stays with the owner until the writable hook. Not while an earlier piece waits. */
void proxy_h2_offer(struct proxy_h2_stream *stream, struct sv data);
/* No more pieces; trailer: NULL or with fields that may pass, kept until the end was sent. */
void proxy_h2_offer_end(struct proxy_h2_stream *stream, const struct http_head *trailer);
/* Takes n bytes out of the window and lets the peer send as many more. */
void proxy_h2_drop(struct proxy_h2_stream *stream, size_t n);
/* Lets go of the stream. What is not over yet is reset with code; NULL is accepted. */
void proxy_h2_release(struct proxy_h2_stream **stream, uint32_t code);
