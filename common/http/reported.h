/* http/reported: a request that another proxy tells us of. We judge it, and the other one forwards it in its
 * own spelling. What gives a request of ours its one reading cannot be done there: where dots would have to
 * be resolved or slashes merged, two servers may walk two ways, and it is refused. Pure functions; any
 * thread. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/http/canon.h"
#include "common/http/head.h"
#include "common/sv.h"

enum { HTTP_REPORTED_TARGET_MAX = 16384 };

/* All as the client sent them. */
struct http_reported {
    struct sv method;
    struct sv authority; /* host[:port] */
    struct sv target;    /* path[?query], raw */
};

/* Completes head, which http_head_init made and which holds what other fields are known, and checks the
 * whole. HTTP_FAULT_NONE, or why it is refused. */
MUST_CHECK enum http_fault http_reported_head(struct http_head *head,
                                              const struct http_reported *reported);
/* The canonical request of that head, as http_canon_request. rules: of our own requests. */
MUST_CHECK enum http_fault http_reported_canon(const struct http_head *head,
                                               const struct http_canon_rules *rules,
                                               struct arena *arena, struct http_request *req_out);
