/* proxy_client: the client's side of an exchange, a connection of HTTP/1 or a stream of HTTP/2: what
 * the rest needs to answer without knowing which. Owned by one worker. */
#pragma once

#include "proxy/emit.h"
#include "proxy/exchange.h"
#include "proxy/h2.h"

/* Begins a head for the client. */
void proxy_client_emit(struct proxy_exchange *x, struct proxy_emit *e);
/* The final answer's head is whole; body: something comes behind it. False: it cannot be sent. */
MUST_CHECK bool proxy_client_head(struct proxy_exchange *x, struct proxy_emit *e, bool body);
/* An interim head is whole: it leaves soon. */
void proxy_client_interim(struct proxy_exchange *x, struct proxy_emit *e);
/* Head and whole body of an answer of ours, then the exchange is over. */
void proxy_client_reply(struct proxy_exchange *x, struct proxy_emit *e, struct sv body);
/* The pipe's end at the client. */
void proxy_client_sink(struct proxy_exchange *x, struct proxy_pipe *pipe);
void proxy_client_source(struct proxy_exchange *x, struct proxy_pipe *pipe);
/* HTTP/1: which events of the socket are wanted; streams need none. */
void proxy_client_read(struct proxy_exchange *x, bool on);
void proxy_client_write(struct proxy_exchange *x, bool on);
/* The client says no more and the window is all there is. HTTP/2 tells that by the body. */
bool proxy_client_eof(const struct proxy_exchange *x);
/* What proxy_exchange_finish and _abort mean here. */
void proxy_client_finish(struct proxy_exchange *x);
void proxy_client_abort(struct proxy_exchange *x);
/* Goes on with an answer of ours that the socket did not take at once. */
void proxy_client_send(struct proxy_exchange *x);

/* The server side of HTTP/2: exchanges for its streams. */
extern const struct proxy_h2_hooks proxy_client_h2_hooks;
