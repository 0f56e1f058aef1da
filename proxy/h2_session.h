/* proxy_h2_session: what h2.c (sending, life) and h2_receive.c (nghttp2's callbacks for what comes in)
 * share; for nobody else. */
#pragma once

#include "proxy/h2.h"
#include "proxy/ration.h"

struct proxy_h2 {
    struct proxy_worker *worker;
    struct proxy_io *io;
    const struct proxy_h2_hooks *hooks;
    void *owner;
    nghttp2_session *ng;
    bool server;
    struct list in_dirty; /* worker->h2_dirty */
    struct list streams;
    struct proxy_h2_stream *reading; /* the one whose head comes in; NULL: to be looked up */
    size_t n_streams;
    struct list due;
    struct buf wire; /* what the socket did not take */
    size_t wire_at;
    struct proxy_ration ration;
    unsigned faults;
    int32_t newest; /* server: the highest stream that was opened */
    bool settled;   /* client: the server's SETTINGS came */
    bool told;      /* and the hook was called */
    bool shut;      /* GOAWAY is on its way, or came */
    bool broken;    /* the protocol was broken: what waits is still sent */
};

/* It has something to send: the flush of this turn will do it. */
void proxy_h2_mark_dirty(struct proxy_h2 *h2);
/* Something happened on the stream: its owner is told when the callbacks are over. */
void proxy_h2_note(struct proxy_h2_stream *stream, unsigned what);
struct proxy_h2_stream *proxy_h2_stream_new(struct proxy_h2 *h2, int32_t id);
/* Sets the callbacks of what comes in. */
void proxy_h2_receive_with(nghttp2_session_callbacks *callbacks);
