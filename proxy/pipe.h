/* proxy_pipe: bytes on their way from one connection to the other. A window holds what was read and
 * not passed on yet; a body tells where the message in it ends; an out holds what is to be written:
 * a head that we made, then a piece of a window, then a tail. Nothing is copied but heads; a reader
 * stops when its window is full, so a slow side slows only its peer. Owned by one worker. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/http/chunked.h"
#include "common/http/head.h"
#include "common/sv.h"
#include "proxy/io.h"

/* BULK: where all that comes is passed on at once, a system call for 16 KiB is the larger part of the
 * cost. Who reads slowly never gets it. */
enum { PROXY_WINDOW = 32768, PROXY_WINDOW_BULK = 65536, PROXY_HEAD_OUT_MAX = 262144 };

/* bytes[start..end) are here and not yet passed on. */
struct proxy_window {
    char *bytes;
    size_t cap;
    size_t start;
    size_t end;
    char
        *held; /* a block that was outgrown while a piece of it is under way; until the next drop */
    bool filled; /* the last read took all the room there was */
};

void proxy_window_init(struct proxy_window *w);
void proxy_window_deinit(struct proxy_window *w);
struct sv proxy_window_sv(const struct proxy_window *w);
void proxy_window_drop(struct proxy_window *w, size_t n);
/* Room for more: moves bytes to the front when nothing points at them (pinned false), grows up to
 * max; to PROXY_WINDOW_BULK where the last read filled it and nothing of that is left. False: the
 * window is full. */
bool proxy_window_room(struct proxy_window *w, size_t max, bool pinned);
/* Adds bytes that came by other ways than a read; what was taken as a piece stays where it is. False:
 * more than max would wait. */
bool proxy_window_append(struct proxy_window *w, struct sv bytes, size_t max);
/* One read into the room; PROXY_IO_AGAIN also after a read that emptied the socket (*drained). */
enum proxy_io_result proxy_window_fill(struct proxy_window *w, struct proxy_io *io, bool *drained);

struct proxy_body {
    enum http_framing framing;
    uint64_t left; /* HTTP_BODY_LENGTH */
    bool done;
    bool ended;                   /* HTTP_BODY_UNTIL_CLOSE: nothing comes behind what is here */
    struct http_head *trailer;    /* what stands behind it; NULL: nothing can */
    struct http_chunked *chunked; /* HTTP_BODY_CHUNKED */
};

/* arena: for what chunks need. */
void proxy_body_init(struct proxy_body *body, const struct http_head *head,
                     const struct http_name_set *refuse, struct arena *arena);
/* Everything until the peer closes: a tunnel. */
void proxy_body_init_raw(struct proxy_body *body);
/* As http_chunked_next, for every framing. */
enum http_step proxy_body_next(struct proxy_body *body, struct sv *in, struct sv *data_out);

/* Frames tell where it ends: the receiver of them sets ended. */
void proxy_body_init_frames(struct proxy_body *body, struct http_head *trailer);

struct proxy_out {
    struct buf head;
    size_t head_at;
    struct sv piece; /* points into a window */
    const char *tail;
    size_t tail_n;
};

void proxy_out_init(struct proxy_out *out);
void proxy_out_deinit(struct proxy_out *out);
bool proxy_out_empty(const struct proxy_out *out);
/* Writes until all is gone or the socket is full: DONE, AGAIN, FAILED. sent counts bytes. */
enum proxy_io_result proxy_out_flush(struct proxy_out *out, struct proxy_io *io, char *scratch,
                                     uint64_t *sent);

/* The memory of windows and outs whose connections idle, lent to those that do not: a connection
 * between two requests holds none. The last given is taken first, because it is still in a cache. */
enum { PROXY_SPARES_MAX = 256 };

struct proxy_spares {
    size_t n;

    struct {
        char *bytes;
        struct buf head;
    } v[PROXY_SPARES_MAX];
};

void proxy_spares_deinit(struct proxy_spares *spares);
/* Nothing happens when w or out still hold something. */
void proxy_spares_give(struct proxy_spares *spares, struct proxy_window *w, struct proxy_out *out);
/* Nothing happens when w has memory, or there is none to lend: it is allotted as always then. */
void proxy_spares_take(struct proxy_spares *spares, struct proxy_window *w, struct proxy_out *out);

enum proxy_pipe_result {
    PROXY_PIPE_BAD = 0, /* the source breaks its framing */
    PROXY_PIPE_HUNGRY,  /* needs more from the source */
    PROXY_PIPE_FULL,    /* the destination takes no more now */
    PROXY_PIPE_LOST,    /* the destination is gone */
    PROXY_PIPE_DONE     /* the message ended and all of it is written */
};

struct proxy_h2_stream;

/* Each side is a socket of HTTP/1 or a stream of HTTP/2. */
struct proxy_pipe {
    struct proxy_window *from;
    struct proxy_h2_stream *from_stream; /* whose window it is; NULL: HTTP/1 */
    struct proxy_body *body;
    struct proxy_out *to; /* with io; NULL: HTTP/2 */
    struct proxy_io *io;
    struct proxy_h2_stream *to_stream;
    const struct http_name_set *drop; /* trailers that do not pass; may be NULL */
    bool chunk;                       /* write chunks of our own */
    size_t taken;                     /* bytes of the window that the piece under way stands for */
    bool ended;                       /* the end is in out */
    uint64_t bytes;                   /* payload passed on */
    uint64_t wire;                    /* bytes written */
};

enum proxy_pipe_result proxy_pipe_pump(struct proxy_pipe *pipe, char *scratch);
