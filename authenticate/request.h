/* authn_request: one HTTP request from the proxy and its one reply. It comes whole (bounded head and
 * body), may wait for the databroker, the provider or a job, and ends with exactly one authn_reply_*
 * call, after which it is gone. Loop thread.
 *
 * The proxy vouches for X-Forwarded-Host, -For and X-Request-Id; nothing that decides trusts more of
 * them: links are verified against our own configured origin, user pages against a signed assertion. */
#pragma once

#include <jansson.h>

#include "authenticate/app.h"
#include "authenticate/flow.h"
#include "authenticate/kids.h"
#include "common/arena.h"
#include "common/http/page.h"
#include "common/list.h"

enum {
    AUTHN_BODY_MAX = 65536,
    AUTHN_HEAD_MAX = 65536,
    AUTHN_REQUESTS_MAX = 1024,
    AUTHN_TIMEOUT_S = 30
};

enum authn_method { AUTHN_METHOD_OTHER = 0, AUTHN_GET, AUTHN_POST };

struct evhttp_request;

struct authn_request {
    struct list node;
    struct authn_waiter waiter; /* for a refresh of the provider */
    struct authn *app;
    struct evhttp_request *http;
    struct config *config; /* this request's; referenced */
    struct arena arena;

    enum authn_method method;
    bool head_only;   /* HEAD: as GET, without the body */
    struct sv target; /* as received */
    struct sv path;
    struct sv query;
    struct sv host;    /* what the browser asked for: canonical, without the port */
    bool own_host;     /* it is the authenticate host */
    struct sv address; /* of the client, for the throttle */
    struct sv request_id;
    struct sv body;

    struct authn_flow flow;    /* of a login under way */
    Session__Session *session; /* found by the cookie */
    uint64_t session_version;
    void (*next)(struct authn_request *req, enum err err); /* where authn_session_find goes on */

    struct rpc_pending *call; /* at most one of these is under way */
    struct fetch *fetch;
    unsigned jobs;                   /* that still point here */
    struct authn_exchange *exchange; /* of the provider's callback */
};

/* "" where it is not there; the first one. */
struct sv authn_request_header(const struct authn_request *req, const char *name);
/* The value of a cookie; "" where there is none, or more than one of that name. */
struct sv authn_request_cookie(const struct authn_request *req, struct sv name);

/* Adds a Set-Cookie for this host: Secure, HttpOnly, Lax, Path=/. max_age_s < 0 deletes. */
void authn_reply_cookie(struct authn_request *req, const char *name, struct sv value,
                        int64_t max_age_s);
void authn_reply_header(struct authn_request *req, const char *name, const char *value);
/* 302, or 303 after a POST. */
void authn_reply_redirect(struct authn_request *req, struct sv url);
/* form_origin: where a form of the page may lead beside this host; "" nowhere. */
void authn_reply_page(struct authn_request *req, int status, const struct buf *page,
                      struct sv form_origin);
void authn_reply_text(struct authn_request *req, int status, const char *type, struct sv text);

/* The error page, logged once as request.refused with its code. JSON for those who ask for it. */
struct authn_problem {
    int status;
    const char *code; /* stable; docs/login.md lists them */
    const char *title;
    const char *what;
    const char *todo;
    struct sv link; /* "" none */
    const char *link_text;
    int retry_after_s; /* 0: none */
};

void authn_reply_problem(struct authn_request *req, const struct authn_problem *problem);
/* 503: the databroker does not answer. */
void authn_reply_store_down(struct authn_request *req);
/* The callback of whoever waited: forgets the handle that just ended. */
void authn_request_resumed(struct authn_request *req);
