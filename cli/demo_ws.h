/* demo_ws: a WebSocket that echoes (RFC 6455). Pure functions over bytes. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/http/head.h"

enum { CLI_DEMO_FRAME_MAX = 1024 * 1024 };

/* Appends the 101 response. ERR_INVALID: no WebSocket opening of version 13. */
MUST_CHECK enum err cli_demo_ws_accept(struct buf *out, const struct http_head *head);
/* Answers the first frame of in: its echo, a pong or a closing frame goes to out; *used_out bytes are
 * done with. ERR_AGAIN: more bytes are needed; ERR_CANCELLED: the peer closed, out holds the answer;
 * ERR_INVALID, ERR_LIMIT: not a frame that a client may send. */
MUST_CHECK enum err cli_demo_ws_frame(struct sv in, struct buf *out, size_t *used_out);
