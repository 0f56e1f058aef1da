/* http/problem: what happened and what to do, for people and for programs, by the status of a refusal. Pure;
 * any thread. */
#pragma once

#include "common/buf.h"
#include "common/sv.h"

struct http_problem_words {
    const char *title;
    const char *what;
    const char *todo;
};

/* allowed: the policy let the visitor in, something else is wrong. */
struct http_problem_words http_problem_words(unsigned status, struct sv code, bool allowed);

struct http_problem {
    unsigned status;
    struct sv code;       /* stable cause code */
    struct sv request_id; /* "": none */
    struct sv login_url;  /* where a person can log in for this host; "": nowhere */
    bool allowed;         /* as above */
};

/* Each appends what programs get: an object of our own, */
void http_problem_json(const struct http_problem *problem, struct buf *body);
/* one text, where an error has room for no more, */
void http_problem_sentence(const struct http_problem *problem, struct buf *body);
/* what kubectl and other clients of Kubernetes print (meta/v1 Status), */
void http_problem_kubernetes(const struct http_problem *problem, struct buf *body);
/* a JSON-RPC 2.0 error for agents. */
void http_problem_mcp(const struct http_problem *problem, struct buf *body);
