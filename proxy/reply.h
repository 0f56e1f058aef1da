/* proxy_reply: answers of our own: refusals, the error page, redirects, small texts. Each ends the
 * exchange. HTML or JSON by what the client ranks higher; gRPC callers get grpc-status. */
#pragma once

#include "proxy/emit.h"
#include "proxy/exchange.h"

struct proxy_reply {
    unsigned status;
    struct sv type; /* Content-Type; "" without a body */
    struct sv body;
    const struct proxy_fields *fields; /* more of the head; NULL: none */
};

void proxy_reply(struct proxy_exchange *x, const struct proxy_reply *reply);
/* A refusal for a stable cause code (a constant), in the form the client understands. */
void proxy_reply_fault(struct proxy_exchange *x, unsigned status, const char *code);
/* The verdict's refusal: its first reason is the code. */
void proxy_reply_denied(struct proxy_exchange *x, unsigned status);
/* 401 for what is no navigation. */
void proxy_reply_login_needed(struct proxy_exchange *x);
/* fields: more of the head, or NULL. */
void proxy_reply_redirect(struct proxy_exchange *x, unsigned status, struct sv location,
                          const struct proxy_fields *fields);
/* To the one spelling of this request's own address. */
void proxy_reply_canonical(struct proxy_exchange *x);
/* What the route's cors block has answers say. */
void proxy_reply_cors(struct proxy_exchange *x, struct proxy_emit *e);
/* Fields that every answer of an upstream gets: set_response_headers, x-request-id. In answers of our own
 * they give way to ours. */
void proxy_reply_common(struct proxy_exchange *x, struct proxy_emit *e);
