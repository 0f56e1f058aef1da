/* proxy_reply: answers of our own: refusals, the error page, redirects, small texts. Each ends the
 * exchange. HTML or JSON by what the client ranks higher; gRPC callers get grpc-status. */
#pragma once

#include "proxy/exchange.h"

struct proxy_reply {
    unsigned status;
    struct sv type; /* Content-Type; "" without a body */
    struct sv body;
    struct sv headers; /* whole lines with their CRLF */
};

void proxy_reply(struct proxy_exchange *x, const struct proxy_reply *reply);
/* A refusal for a stable cause code (a constant), in the form the client understands. */
void proxy_reply_fault(struct proxy_exchange *x, unsigned status, const char *code);
/* The verdict's refusal: its first reason is the code. */
void proxy_reply_denied(struct proxy_exchange *x, unsigned status);
/* 401 for what is no navigation. */
void proxy_reply_login_needed(struct proxy_exchange *x);
/* location without CR and LF; headers as above. */
void proxy_reply_redirect(struct proxy_exchange *x, unsigned status, struct sv location,
                          struct sv headers);
/* Fields that every answer through us gets: set_response_headers, x-request-id. drop: names the
 * route sets. */
void proxy_reply_common(struct proxy_exchange *x, struct buf *head);
