/* rpc_duplex: one gRPC stream on a connection of HTTP/2 that is its alone, spoken with nghttp2, either
 * end: bytes of the connection in and out, messages between. No socket, no thread, no callback:
 *
 *   got bytes   rpc_duplex_feed, then rpc_duplex_next until there is no message left
 *   to write    rpc_duplex_out, then rpc_duplex_wrote with what the socket took
 *
 * Server: rpc_duplex_asked tells who asks for what; nothing of the stream is read before it is accepted.
 * gRPC framing: 5 bytes in front of a message; compressed ones are refused. Bounds: one stream, heads of
 * RPC_DUPLEX_HEAD_MAX, messages of max_bytes. Sources: RFC 9113; gRPC's "gRPC over HTTP2". One thread. */
#pragma once

#include "common/base.h"
#include "common/rpc/rpc.h"
#include "common/sv.h"

enum { RPC_DUPLEX_HEAD_MAX = 8192, RPC_DUPLEX_OUT = 16384 };

struct rpc_duplex;

/* shown: the value of `authorization`, "" for none. All texts are copied. */
struct rpc_duplex *rpc_duplex_client_new(size_t max_bytes, const char *path, const char *authority,
                                         struct sv shown);
struct rpc_duplex *rpc_duplex_server_new(size_t max_bytes);
void rpc_duplex_free(struct rpc_duplex **duplex);

/* Bytes of the peer. An error: the connection makes no sense any more and is to be closed, when
 * rpc_duplex_out has been written as far as possible. */
MUST_CHECK enum err rpc_duplex_feed(struct rpc_duplex *duplex, struct sv bytes);
/* Takes one message that came whole, valid until the next call of feed. ERR_AGAIN: none; ERR_LIMIT,
 * ERR_UNSUPPORTED: it is too large, or compressed: nothing more can be read. */
MUST_CHECK enum err rpc_duplex_next(struct rpc_duplex *duplex, struct sv *message_out);
/* The other end said its last message. */
bool rpc_duplex_is_drained(const struct rpc_duplex *duplex);
/* The stream is no more, or the peer ends the connection. */
bool rpc_duplex_is_over(const struct rpc_duplex *duplex);

/* One message; it can_send: the last one has left. */
void rpc_duplex_send(struct rpc_duplex *duplex, struct sv message);
bool rpc_duplex_can_send(const struct rpc_duplex *duplex);
/* What the socket should get next, at least RPC_DUPLEX_OUT bytes if there are so many; empty: nothing
 * now. With an error it is empty for good: ERR_ABORTED after GOAWAY of either side. */
MUST_CHECK enum err rpc_duplex_out(struct rpc_duplex *duplex, struct sv *bytes_out);
void rpc_duplex_wrote(struct rpc_duplex *duplex, size_t n);

/* Asks the other end for a sign of life: bytes come back. */
void rpc_duplex_ping(struct rpc_duplex *duplex);

/* Client: what the server ended the stream with; RPC_UNKNOWN until then. */
enum rpc_status rpc_duplex_status(const struct rpc_duplex *duplex);

/* Server: whether the head of the request is here; path and shown are valid until it is accepted or
 * ended. Two `authorization` are none: they would be two callers. */
bool rpc_duplex_asked(const struct rpc_duplex *duplex, struct sv *path_out, struct sv *shown_out);
void rpc_duplex_accept(struct rpc_duplex *duplex);
/* Ends the stream, after what was sent, and the connection behind it (GOAWAY). Before a stream came:
 * the connection. */
void rpc_duplex_end(struct rpc_duplex *duplex, enum rpc_status status, const char *text);
