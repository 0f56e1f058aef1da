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
};

/* Appends the object that programs get. */
void http_problem_json(const struct http_problem *problem, struct buf *body);
