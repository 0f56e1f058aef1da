/* proxy_forward: the allowed request on its way to the upstream and the answer on its way back. */
#pragma once

#include "proxy/emit.h"
#include "proxy/exchange.h"

/* Begins: a connection to target, then the head, then both directions at once. */
void proxy_forward_start(struct proxy_exchange *x, struct proxy_cluster *cluster);
/* The client's socket or stream can be read or written. */
void proxy_forward_client(struct proxy_exchange *x, short what);
void proxy_forward_timeout(struct proxy_exchange *x);
/* Lets go of the upstream if the client has heard nothing yet: x then wants an answer of ours. False:
 * it has heard something, nothing is changed. */
MUST_CHECK bool proxy_forward_stop(struct proxy_exchange *x);
/* head.c: writes the request's head for the upstream. False: it cannot be sent. */
MUST_CHECK bool proxy_head_request(struct proxy_exchange *x, const struct proxy_target *target,
                                   struct proxy_emit *e);
/* Writes the answer's head for the client; *chunk_out: the body goes in chunks of ours. */
void proxy_head_answer(struct proxy_exchange *x, struct proxy_emit *e, bool *chunk_out);
/* Names of the client's, and of the upstream's, that the route speaks for; NULL: none. */
const struct http_name_set *proxy_head_dropped(const struct proxy_exchange *x);
const struct http_name_set *proxy_head_dropped_answer(const struct proxy_exchange *x);
void proxy_head_interim(struct proxy_exchange *x, struct proxy_emit *e);
