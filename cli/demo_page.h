/* demo_page: what the demo app shows: who it thinks its visitor is and what it was sent. Pure. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/http/head.h"

/* Appends a whole HTTP response for a request that came whole. */
void cli_demo_page(struct buf *out, const struct http_head *head);
/* The head of the stream of events, and one event as a chunk. */
void cli_demo_events_head(struct buf *out);
void cli_demo_event(struct buf *out, uint64_t number);
/* A short response without a page; closes. */
void cli_demo_error(struct buf *out, int status, const char *text);
