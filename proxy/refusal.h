/* proxy_refusal: one refusal in the words of whoever asked: a page for people, JSON or text for programs,
 * what gRPC, gRPC-Web, Connect, Kubernetes and MCP clients read as an error of their own. It says what
 * happened and what to do, never which group or rule would have let somebody in. Pure functions; any
 * thread. Sources: gRPC's PROTOCOL-HTTP2 and PROTOCOL-WEB, the Connect protocol, Kubernetes' meta/v1
 * Status, JSON-RPC 2.0. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/http/accept.h"
#include "common/sv.h"
#include "proxy/emit.h"

enum { PROXY_REFUSAL_MAX = 262144 };

struct proxy_refusal {
    unsigned status; /* HTTP */
    struct sv code;  /* stable cause code */
    struct sv request_id;
    struct sv login_url; /* where a person can log in for this host; empty: nowhere */
    struct sv who;       /* the person who is logged in; "": nobody, or not known */
    struct sv note;      /* what the operator wants to say to people; "" nothing */
    struct sv support;   /* where people get help: a URL; "" nowhere */
    bool allowed;        /* the policy let the visitor in: something else is wrong */
    enum http_media media;
};

/* What goes out. */
struct proxy_refusal_form {
    unsigned status; /* 200 where the error stands in the protocol above */
    struct sv type;
};

/* Appends to body and fields; texts live in arena. */
struct proxy_refusal_form proxy_refusal_write(const struct proxy_refusal *refusal,
                                              struct arena *arena, struct buf *body,
                                              struct proxy_fields *fields);
