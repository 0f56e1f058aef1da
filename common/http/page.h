/* http/page: the shell and style of every HTML page that Postern shows, and the one page for
 * problems. No scripts, no outside resources; light and dark; readable on a phone. The style is
 * part of the page and named in the CSP by its hash. All values are escaped here: callers hand over
 * plain text. Pure functions; any thread.
 *
 *     http_page_begin(&b, SV("Sign in"));
 *     buf_add_str(&b, "<p>");  buf_add_html(&b, who);  buf_add_str(&b, "</p>");
 *     http_page_end(&b, request_id);
 *
 * Every page goes out with HTTP_PAGE_TYPE, the CSP below and the fields of http_page_headers. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

enum { HTTP_PAGE_MAX = 65536 };

#define HTTP_PAGE_TYPE SV("text/html; charset=utf-8")

/* <!doctype html> … up to the open <main>, with title as <title> and <h1>. */
void http_page_begin(struct buf *b, struct sv title);
/* Closes what begin opened; request_id is shown small at the bottom, "" leaves it out. */
void http_page_end(struct buf *b, struct sv request_id);

enum { HTTP_PAGE_LINKS = 2 };

struct http_page_link {
    struct sv href;
    struct sv text;
};

struct http_page_problem {
    struct sv title;      /* short: "You may not open this page" */
    struct sv what;       /* one sentence: what happened */
    struct sv todo;       /* one sentence: what the reader can do; "" none */
    struct sv code;       /* stable cause code, for whoever is asked for help; "" none */
    struct sv request_id; /* "" none */
    struct sv link;       /* where its main link goes (absolute or local path); "" none */
    struct sv link_text;  /* what the link says */
    struct sv note;       /* what the operator wants to say, first; "" nothing */
    struct http_page_link more[HTTP_PAGE_LINKS]; /* below the main one; "" none */
};

/* The whole page. */
void http_page_problem(struct buf *b, const struct http_page_problem *problem);

/* Appends one row of a list of facts (between http_page_facts_begin and _end): name and value. */
void http_page_facts_begin(struct buf *b);
void http_page_fact(struct buf *b, struct sv name, struct sv value);
void http_page_facts_end(struct buf *b);

/* Appends the value of Content-Security-Policy. Browsers hold form-action against every redirect
 * that follows a form, so origins (scheme://host[:port], may be NULL) names where a form of this
 * page may lead beside its own host. An origin with a byte that could end a directive is left out. */
void http_page_csp(struct buf *b, const struct sv *origins, size_t n);

struct http_page_header {
    const char *name;
    const char *value;
};

/* The other fixed fields of a page (caching, sniffing, framing, referrer); *n_out of them. */
const struct http_page_header *http_page_headers(size_t *n_out);
